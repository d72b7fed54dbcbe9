"""What is seen of an action or a RefAdapter while it is learned, on the user's own picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..backends.diffusers.cogvideox import (
    BaseFiles,
    decode_video,
    encode_picture,
    guided_velocity,
    keep_blocks_on_cpu,
    load_vae,
)
from ..backends.diffusers.cogvideox.train import LearningHost
from ..files.provenance import Origin
from ..files.video_files import write_video
from ..flexiact.ref_adapter_file import RefAdapter
from ..flexiact.sampling import TransferConfig, draw_start, draw_step_noise, sample_latents
from ..training.run_folder import Progress
from .transfer import encode_prompts


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture of the user's that performs what is learned, and how."""

    name: str
    """Of its videos' files."""
    image_1HWC: Tensor
    prompt: str
    adapter: RefAdapter | None
    seed: int
    every: int
    """Steps between two."""


@dataclass
class TransferSamples:
    """Videos on the way, into the run's folder."""

    host: LearningHost
    files: BaseFiles
    folder: Path
    samples: Sequence[Sample]
    text_embeds: dict[str, Tensor]
    """Prompts that are encoded, the empty one among them; others are encoded when they are needed."""
    perform: Callable[[Sample, int], Callable[[], None]]
    """``perform(sample, step) -> remove`` puts what is learned in so many steps into the transformer."""

    def step(self, progress: Progress) -> None:
        for sample in self.samples:
            if progress.step % sample.every == 0:
                self._write(self.folder / f"{sample.name}-{progress.step:06d}.mp4", progress.step, sample)

    @torch.inference_mode()
    def _write(self, path: Path, step: int, sample: Sample) -> None:
        """Perform with the tokens as they are, and then let them learn on."""
        device, transformer, shape = self.host.device, self.host.transformer, self.files.shape.latents
        vae = load_vae(self.files, transformer.dtype).to(device)
        picture_1CHW = encode_picture(vae, sample.image_1HWC).float()
        prompt, negative = (self._encoded(text) for text in (sample.prompt, ""))
        self.host.remove()
        remove = self.perform(sample, step)
        if self.host.saving.offload:
            come_back = keep_blocks_on_cpu(transformer, device)
        try:
            latents_FCHW = sample_latents(
                guided_velocity(
                    transformer,
                    picture_1CHW,
                    prompt,
                    negative,
                    TransferConfig.cfg,
                ),
                draw_start(*shape, seed=sample.seed).to(device),
                draw_step_noise(*shape, seed=sample.seed),
                TransferConfig.steps,
            )
        finally:
            if self.host.saving.offload:
                come_back()
            remove()
            self.host.add()
            self.host.to(device)
        write_video(path, decode_video(vae, latents_FCHW), 8, Origin())

    def _encoded(self, prompt: str) -> Tensor:
        device = self.host.device
        if prompt not in self.text_embeds:
            (text_embeds,) = encode_prompts(self.files, [prompt], device, self.host.transformer.dtype)
            self.text_embeds[prompt] = text_embeds.cpu()
        return self.text_embeds[prompt].to(device)
