"""What is seen of an action while it is learned: the user's own picture performs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..backends.diffusers.cogvideox import (
    BaseFiles,
    add_transfer,
    decode_video,
    encode_picture,
    guided_velocity,
    keep_blocks_on_cpu,
    load_vae,
)
from ..backends.diffusers.cogvideox.train import LearningTokens
from ..files.provenance import Origin
from ..files.video_files import write_video
from ..flexiact.performance import Performance
from ..flexiact.ref_adapter_file import RefAdapter
from ..flexiact.sampling import TransferConfig, draw_start, draw_step_noise, sample_latents
from ..flexiact.training.token_training import TokenTraining
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

    training: TokenTraining
    host: LearningTokens
    files: BaseFiles
    folder: Path
    samples: Sequence[Sample]
    _encoded: dict[str, Tensor] = field(init=False)
    """Prompts, as the transformer reads them."""

    def __post_init__(self) -> None:
        lesson = self.training.lesson
        self._encoded = {lesson.caption: lesson.text_of(0)}

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
        action = self.training.learned("sample", step)
        prompt, negative = self._text_embeds(sample.prompt)
        self.host.remove()
        remove = add_transfer(transformer, [Performance(action=action)], sample.adapter)
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

    def _text_embeds(self, prompt: str) -> list[Tensor]:
        """Of the prompt and of the empty one; another prompt than the clip's takes the text encoder, once."""
        lesson, device = self.training.lesson, self.host.device
        if prompt not in self._encoded:
            dtype = self.host.transformer.dtype
            (text_embeds,) = encode_prompts(self.files, [prompt], device, dtype)
            self._encoded[prompt] = text_embeds.cpu()
        return [self._encoded[prompt].to(device), lesson.empty_embeds.to(device)]
