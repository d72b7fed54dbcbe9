"""Training of an action on diffusers' U-Net: from clips and a base to an action file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .....animatediff.motion_file import MotionWeights
from .....files.tensor_file import fingerprint
from .....flash.action_file import Action, Source, write_action
from .....flash.adain import AdaINConfig
from .....flash.motion_alignment import PairCall
from .....flash.sampling import SamplerConfig
from .....flash.training.action_loss import ActionLoss
from .....flash.training.export import action_header, clip_hashes, code_version, trained_action
from .....flash.training.latent_pool import Encode, LatentPool, PoolConfig
from .....flash.training.method import MethodConfig
from .....training.clips import Clip
from .....training.loop import LoopConfig, Processes, SingleProcess, train
from .....training.run_folder import Progress, RunFolder
from .....training.sampling import SamplingConfig, seeded, take_frames
from ..action import keys_values
from ..cross_frame import add_cross_frame_attention
from ..load.base import Base
from ..load.encode import decode_frames, encode_picture, encode_prompt
from ..motion import add_motion, check_frames
from ..sampler import sample_video
from .alignment import add_alignment
from .cost import Cost, count_cost
from .trainable import select_trainable


@dataclass(frozen=True, kw_only=True)
class ActionTrainingConfig:
    """Everything that a run consists of beside its clips and models."""

    method: MethodConfig = field(default_factory=MethodConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    text_drop: float = 0.1
    """Chance of the empty prompt in place of the caption: AnimateDiff's, for classifier-free guidance."""
    seed: int = 0
    checkpointing: str = "none"
    """One of CHECKPOINTING: what runs again in the backward pass, to save memory."""
    dtype: torch.dtype = torch.float32
    """Of the computation and of the frozen weights; weights that learn are in fp32."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.text_drop <= 1.0:
            raise ValueError(f"`text_drop` is a chance between 0 and 1, but it is {self.text_drop}.")


class ActionTraining:
    """A base, its motion module and clips, ready for training. The base's U-Net belongs to it from now on."""

    def __init__(
        self,
        base: Base,
        base_name: str,
        motion: MotionWeights,
        clips: Sequence[Clip],
        config: ActionTrainingConfig,
        device: torch.device,
    ) -> None:
        check_frames(motion.config, config.sampling.num_frames)
        _check_size(base, config.method.augment.size)
        self.base, self.motion, self.clips, self.config, self.device = base, motion, clips, config, device
        self.base_source = Source(name=base_name, sha256=fingerprint(keys_values(base.unet)))
        self.text_embeds = {
            text: encode_prompt(base, text).clone() for text in {"", *(clip.caption for clip in clips)}
        }
        animated = add_cross_frame_attention(add_motion(base.unet, motion))
        self.model = add_alignment(animated, config.method.alignment, checkpointing=config.checkpointing)
        self.model.to(device, config.dtype)
        self.weights = select_trainable(animated, config.method.trainable)
        for weight in self.weights.values():
            weight.data = weight.data.float()
        self.before = {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}

    def settings(self, parts_of_a_step: int) -> dict[str, Any]:
        """What may not change while a run goes on."""
        config = self.config
        return {
            "clips": [
                {"action": clip.action, "caption": clip.caption, "sha256": sha256}
                for clip, sha256 in zip(self.clips, self._hashes, strict=True)
            ],
            "base": self.base_source.sha256,
            "motion_module": self.motion.sha256,
            "method": asdict(config.method),
            "sampling": asdict(config.sampling),
            "pool": {"per_clip": config.pool.per_clip, "renew_steps": config.pool.renew_steps},
            "text_drop": config.text_drop,
            **config.loop.settings,
            "parts_of_a_step": parts_of_a_step,
            "seed": config.seed,
            "dtype": str(config.dtype).removeprefix("torch."),
        }

    @cached_property
    def _hashes(self) -> list[str]:
        return clip_hashes(self.clips)

    def run(
        self,
        folder: RunFolder,
        *,
        processes: Processes | None = None,
        on_entry: Callable[[], object] = lambda: None,
        on_step: Callable[[Progress], object] = lambda progress: None,
        on_note: Callable[[str], object] = lambda note: None,
    ) -> Progress:
        """Train until the end or a stop, as `training.loop.train`; `on_entry` counts what is encoded."""
        processes = processes or SingleProcess()
        pool = self.pool(folder.path / f"pool-{processes.index}")
        newest = folder.checkpoints()[:1] or [0]
        pool.prepare(newest[0] * self.config.loop.accumulation * processes.count, on_entry)
        loss = ActionLoss(
            predict=self.predict,
            prediction=self.base.prediction,
            num_layers=self.model.num_layers,
            pool=pool,
            text_embeds=self.text_embeds,
            method=self.config.method,
            text_drop=self.config.text_drop,
            seed=self.config.seed,
            device=self.device,
        )
        weights: dict[str, nn.Parameter] = self.weights  # type: ignore[assignment]
        return train(
            folder, weights, loss, self.config.loop, processes=processes, on_step=on_step, on_note=on_note
        )

    def cost(self, size: int | None = None, checkpointing: str | None = None) -> Cost:
        """What a pair costs, as configured or in another size (pixels); counted without computing it."""
        size = (size or self.config.method.augment.size) // self.base.vae_factor
        channels = self.base.vae.config.latent_channels
        shape = torch.Size((self.config.sampling.num_frames, channels, size, size))
        self.model.set_checkpointing(checkpointing or self.config.checkpointing)
        try:
            return count_cost(
                self.predict,
                self.weights.values(),
                shape,
                self.embeds(""),
                num_layers=self.model.num_layers,
                twins=self.config.method.twins,
                device=self.device,
            )
        finally:
            self.model.set_checkpointing(self.config.checkpointing)

    def pool(self, folder: Path) -> LatentPool:
        """The latents that are trained on; they lie in the folder where memory is short."""
        config = self.config
        return LatentPool(
            self.clips,
            config.pool,
            config.sampling,
            config.method.augment,
            self._encoder,
            folder,
            twins=config.method.twins,
            seed=config.seed,
        )

    @contextmanager
    def _encoder(self) -> Iterator[Encode]:
        """The VAE, on the device as long as it is used."""
        vae = self.base.vae.to(self.device)

        def encode(video_FCHW: Tensor) -> Tensor:
            frames = rearrange(video_FCHW, "f c h w -> f h w c").split(1)
            return torch.cat([encode_picture(vae, frame_1HWC) for frame_1HWC in frames])

        try:
            yield encode
        finally:
            vae.to("cpu")

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: PairCall | None = None
    ) -> Tensor:
        """What the U-Net predicts, computed in the run's dtype."""
        with torch.autocast(self.device.type, self.config.dtype, enabled=self.config.dtype != torch.float32):
            return self.model(latents_BFCHW, timestep_B, text_embeds, call)

    @torch.no_grad()
    def animate(self, image_1HWC: Tensor, prompt: str, seed: int, sampler: SamplerConfig) -> Iterator[Tensor]:
        """Frames (H, W, 3) in [0, 1] of a video with the action as far as it is learned."""
        latents_FCHW = self.animate_latents(image_1HWC, prompt, seed, sampler)
        yield from decode_frames(self.base.vae.to(self.device), latents_FCHW)
        self.base.vae.to("cpu")

    def animate_latents(self, image_1HWC: Tensor, prompt: str, seed: int, sampler: SamplerConfig) -> Tensor:
        """The scaled latents of that video."""
        return sample_video(
            self.predict,
            encode_picture(self.base.vae.to(self.device), image_1HWC),
            self.embeds(prompt),
            self.embeds(""),
            prediction=self.base.prediction,
            seed=seed,
            config=sampler,
            style=AdaINConfig(),
        )

    def embeds(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C), on the device."""
        if prompt not in self.text_embeds:
            self.text_embeds[prompt] = encode_prompt(self.base, prompt).clone()
        return self.text_embeds[prompt].to(self.device)

    def action(self, name: str, steps: int, *, standalone: bool) -> Action:
        """What was learned so far, as an action."""
        config = self.config
        taken = take_frames(self.clips[0], config.sampling, seeded(config.seed, "fps"))
        header = action_header(
            prediction=self.base.prediction,
            method=config.method,
            sampling=config.sampling,
            loop=config.loop,
            size=config.method.augment.size,
            steps=steps,
            seed=config.seed,
            fps=taken.fps,
            hashes=self._hashes,
            version=code_version(),
        )
        return trained_action(
            name,
            self.weights,
            self.before,
            self.motion,
            base_source=self.base_source,
            frames=config.sampling.num_frames,
            prompts=list(dict.fromkeys(clip.caption for clip in self.clips)),
            header=header,
            standalone=standalone,
        )

    def write(self, path: Path, steps: int, *, standalone: bool) -> None:
        """Write what was learned so far as an action file."""
        write_action(path, self.action(path.stem, steps, standalone=standalone), self.motion.config)


def _check_size(base: Base, size: int) -> None:
    least = 2 * base.vae_factor  # one latent pixel has no mean and deviation to norm by
    if size < least:
        raise ValueError(
            f"`size` must be {least} pixels or more with this base, but it is {size}: 512 is the paper's."
        )
