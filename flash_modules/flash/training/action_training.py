"""Training of an action, from clips to what was learned: on any base model, in any host."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from einops import rearrange
from torch import Tensor

from ...training.clips import Clip, clip_hashes
from ...training.cost import Cost, counting
from ...training.exam import Marks
from ...training.loop import Processes, Shield, SingleProcess, train
from ...training.run_folder import Progress, RunFolder
from ...training.sampling import seeded, take_frames
from ..augment import AugmentConfig
from ..motion_alignment import VideoCall
from ..sampling import SamplerConfig
from .action_loss import ActionLoss
from .exam import ActionExam, Questions
from .latent_pool import Encode, LatentPool
from .loss import Predict
from .noise_law import NoiseLaw
from .settings import CHECKPOINTING as CHECKPOINTING  # parts of a training, also for who looks for them here
from .settings import ActionTrainingConfig as ActionTrainingConfig
from .settings import Checkpointing as Checkpointing
from .settings import kept_aside, parted
from .settings import run_settings as run_settings


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a run has learned, and from what."""

    weights: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    """The same weights before the run, on the CPU."""
    config: ActionTrainingConfig
    steps: int
    prompts: tuple[str, ...]
    fps: float
    """Frames per second of what was taken of the clips."""
    clip_hashes: tuple[str, ...]
    """Of the clips that were learned from."""
    twin_hashes: tuple[str, ...]
    """Of their twins, where those are from elsewhere."""


class Host(Protocol):
    """A base model with its motion, ready to learn, wherever it runs: what a training needs of it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def noise(self) -> NoiseLaw:
        """By which the base was taught; what `predict` gives is its target."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights that learn, in fp32, by their names in the host's action files."""

    @property
    def num_bytes(self) -> int:
        """Of all weights on the device, those that learn and those that do not."""

    @property
    def aligned_layers(self) -> Sequence[str]:
        """Names of the layers in which twins may take the original's correspondence, in the order in which
        `draw_layers` draws them: of a U-Net down, up, middle."""

    @property
    def vae_factor(self) -> int:
        """Pixels of a picture for one pixel of its latent, in each direction."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What the run's models are known by, by their names in its settings."""

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        """Noise or velocity, BFCHW; of [originals, twins] along the batch if there is a call."""

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        """(F, C, h, w) of the latents of so many pictures of so many pixels."""

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        """Latents (F, C, h, w) of a video that begins with the picture of this latent, with what is learned
        so far; `prompt` and `negative` are text embeddings (1, M, C)."""

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose what runs again in the backward pass, from now on."""

    def encoder(self) -> AbstractContextManager[Encode]:
        """The VAE's way there, on the device as long as it is used."""

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1] of scaled latents, one after the other."""

    def embed(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C) of a prompt, on the CPU. Raises ValueError if it is too long."""

    def write(self, path: Path, learned: Learned, *, standalone: bool) -> None:
        """Write what was learned as the host's kind of action file."""


AnyHost = TypeVar("AnyHost", bound=Host, covariant=True)


class ActionTraining(Generic[AnyHost]):
    """A host and clips, ready for training."""

    def __init__(
        self,
        host: AnyHost,
        clips: Sequence[Clip],
        config: ActionTrainingConfig,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """`hashes` are those of the clips' files, where they are known already."""
        _check_size(host, config.method.augment)
        self.host, self.config = host, config
        self._all_clips, self._known_hashes = clips, hashes
        self.clips, self.kept_aside = parted(clips, kept_aside(clips, config))
        self._text_embeds = {text: host.embed(text) for text in {"", *(clip.caption for clip in clips)}}
        self.before = {name: weight.detach().cpu().clone() for name, weight in host.weights.items()}
        self._costs: dict[tuple[int, Checkpointing], Cost] = {}

    def settings(self, micro_batches: int) -> dict[str, Any]:
        """What may not change while a run goes on; a step has so many micro-batches, in all processes."""
        clips = list(zip(self._all_clips, self._hashes, strict=True))
        return run_settings(clips, self.host.fingerprints, self.config, micro_batches)

    @cached_property
    def _hashes(self) -> Sequence[str]:
        return self._known_hashes or clip_hashes(self._all_clips)

    def run(
        self,
        folder: RunFolder,
        *,
        processes: Processes | None = None,
        stopped: Callable[[], bool] = lambda: False,
        shield: Shield = nullcontext,
        on_entry: Callable[[], object] = lambda: None,
        on_step: Callable[[Progress], object] = lambda progress: None,
        on_marks: Callable[[Marks], object] = lambda marks: None,
        on_note: Callable[[str], object] = lambda note: None,
    ) -> Progress:
        """Train until the end or a stop, as `training.loop.train`; `on_entry` counts what is encoded."""
        processes = processes or SingleProcess()
        with folder.held() if processes.index == 0 else nullcontext():
            pool = self.pool(folder.path / f"pool-{processes.index}")
            parts_of_a_step = self.config.loop.accumulation * processes.count
            pool.prepare(folder.newest_step() * parts_of_a_step, on_entry)
            return train(
                folder,
                self.host.weights,  # type: ignore[arg-type]
                self._loss(pool),
                self.config.loop,
                processes=processes,
                stopped=stopped,
                shield=shield,
                exam=self.exam(),
                on_step=on_step,
                on_marks=on_marks,
                on_note=on_note,
            )

    def exam(self) -> ActionExam | None:
        """The run's exam, if it takes one."""
        config = self.config
        if config.exam is None:
            return None
        questions = Questions(
            clips=self.clips,
            kept_aside=self.kept_aside,
            least=config.exam.videos,
            sampling=config.sampling,
            augment=config.method.augment,
            seed=config.seed,
            encoder=self.host.encoder,
        )
        return ActionExam(
            predict=self.host.predict,
            law=self.host.noise,
            questions=questions,
            timesteps=config.exam.timesteps,
            text_embeds=self._text_embeds,
            videos_of_a_step=(2 if config.method.twins else 1) * config.loop.accumulation,
            seed=config.seed,
            device=self.host.device,
        )

    def _loss(self, pool: LatentPool) -> ActionLoss:
        return ActionLoss(
            predict=self.host.predict,
            law=self.host.noise,
            num_layers=len(self.host.aligned_layers),
            pool=pool,
            text_embeds=self._text_embeds,
            method=self.config.method,
            text_drop=self.config.text_drop,
            seed=self.config.seed,
            device=self.host.device,
        )

    def pool(self, folder: Path) -> LatentPool:
        """The latents that are trained on; they lie in the folder where memory is short."""
        config = self.config
        return LatentPool(
            self.clips,
            config.pool,
            config.sampling,
            config.method.augment,
            self.host.encoder,
            folder,
            twins=config.method.twins,
            seed=config.seed,
        )

    def cost(self, size: int | None = None, checkpointing: Checkpointing | None = None) -> Cost:
        """What a pair costs, as configured or in another height (pixels); counted without computing it."""
        asked = size or self.config.method.augment.size, checkpointing or self.config.checkpointing
        if asked not in self._costs:
            self._costs[asked] = self._count(*asked)
        return self._costs[asked]

    def _count(self, pixels: int, checkpointing: Checkpointing) -> Cost:
        augment = replace(self.config.method.augment, size=pixels)
        shape = self.host.latent_shape(self.config.sampling.num_frames, *augment.shape)
        self.host.set_checkpointing(checkpointing)
        try:
            return count_cost(
                self.host.predict,
                self.host.weights.values(),
                shape,
                self.embeds(""),
                num_layers=len(self.host.aligned_layers),
                twins=self.config.method.twins,
                device=self.host.device,
            )
        finally:
            self.host.set_checkpointing(self.config.checkpointing)

    def animate(self, image_1HWC: Tensor, prompt: str, seed: int, sampler: SamplerConfig) -> Iterator[Tensor]:
        """Frames (H, W, 3) in [0, 1] of a video with the action as far as it is learned."""
        return self.host.decode(self.animate_latents(image_1HWC, prompt, seed, sampler))

    def animate_latents(self, image_1HWC: Tensor, prompt: str, seed: int, sampler: SamplerConfig) -> Tensor:
        """The scaled latents of that video."""
        with self.host.encoder() as encode:
            reference_1CHW = encode(rearrange(image_1HWC, "1 h w c -> 1 c h w"))
        prompt_1MC, negative_1MC = self.embeds(prompt), self.embeds("")
        return self.host.sample(reference_1CHW, prompt_1MC, negative_1MC, seed=seed, config=sampler)

    def embeds(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C), on the device."""
        if prompt not in self._text_embeds:
            self._text_embeds[prompt] = self.host.embed(prompt)
        return self._text_embeds[prompt].to(self.host.device)

    def learned(self, steps: int) -> Learned:
        """What was learned so far, in so many steps."""
        config = self.config
        taken = take_frames(self.clips[0], config.sampling, seeded(config.seed, "fps"))
        return Learned(
            weights=self.host.weights,
            before=self.before,
            config=config,
            steps=steps,
            prompts=tuple(dict.fromkeys(clip.caption for clip in self.clips)),
            fps=taken.fps,
            clip_hashes=tuple(parted(self._hashes, kept_aside(self._all_clips, config))[0]),
            twin_hashes=tuple(clip_hashes([clip.twin for clip in self.clips if clip.twin])),
        )

    def write(self, path: Path, steps: int, *, standalone: bool) -> None:
        """Write what was learned so far, in so many steps, as an action file."""
        self.host.write(path, self.learned(steps), standalone=standalone)


def count_cost(
    predict: Predict,
    weights: Iterable[Tensor],
    latents_shape: torch.Size,
    text_embeds_1MC: Tensor,
    *,
    num_layers: int,
    twins: bool,
    device: torch.device,
) -> Cost:
    """The cost of a step on the noise of one clip (F, C, h, w), of its twin too if there are twins.

    It is that of the forward and backward pass, gradients of `weights`, which are those that learn, too.
    """
    videos = 2 if twins else 1
    with counting() as counter:
        latents_BFCHW = torch.empty(videos, *latents_shape, device=device)
        text_embeds_BMC = torch.empty(videos, *text_embeds_1MC.shape[1:], device=device)
        timestep_B = torch.ones(videos, dtype=torch.long, device=device)
        swaps_L = torch.zeros(num_layers, dtype=torch.bool, device=device)
        call = VideoCall(num_pairs=1, swaps_L=swaps_L) if twins else None
        loss = predict(latents_BFCHW, timestep_B, text_embeds_BMC, call).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for weight in weights:
            weight.grad = None
    return counter.cost


def _check_size(host: Host, augment: AugmentConfig) -> None:
    least = 2 * host.vae_factor  # one latent pixel has no mean and deviation to norm by
    for name, pixels in zip(("size", "width"), augment.shape, strict=True):
        if pixels < least:
            raise ValueError(
                f"`{name}` must be {least} pixels or more with this base, but it is {pixels}: 512 is the "
                "paper's."
            )
