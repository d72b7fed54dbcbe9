"""Training of a detail decoder, from clips to what was learned: for any VAE, in any host."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from ...files.model_card import model_spec
from ...files.tensor_file import Tensors, fingerprint
from ...training.clips import Clip, clip_hashes
from ...training.cost import Cost, counting
from ...training.loop import LoopConfig, Processes, Shield, train
from ...training.run_folder import Progress, RunFolder
from ...training.sampling import SamplingConfig
from ...training.settings import machine_settings
from ..augment import AugmentConfig
from ..decoder_file import DetailWeights, write_detail_decoder
from ..detail_decoder import DetailDecoder, DetailDecoderConfig
from ..distortion import DistortionConfig
from .card import decoder_card
from .detail_loss import DetailLoss
from .export import code_version


@dataclass(frozen=True, kw_only=True)
class DetailTrainingConfig:
    """Everything that a run consists of beside its clips and its VAE."""

    size: int = 512
    """Pixels of the square that is trained on."""
    frames: int = 2
    """Frames of a micro-batch: 1 to 4, as memory allows. Not in the paper."""
    width: int = DetailDecoderConfig.width
    warping: bool = True
    attention: bool = True
    distortion: DistortionConfig = field(default_factory=DistortionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=10_000, learning_rate=1e-4, cooldown=0.2)
    )
    """Steps and rate are the paper's; the cooldown is not in it."""
    seed: int = 0
    dtype: torch.dtype = torch.float32
    """Of the computation and of the VAE; weights that learn are in fp32."""

    def __post_init__(self) -> None:
        if not 1 <= self.frames < self.sampling.num_frames:
            raise ValueError(
                f"`frames` of a step must lie between 1 and {self.sampling.num_frames - 1}, one less than "
                f"are taken of a clip, but it is {self.frames}."
            )
        if not (self.warping or self.attention):
            raise ValueError("Without both branches nothing can be learned: leave one of them on.")
        AugmentConfig(size=self.size)  # refuses sizes that cannot be

    def layout(self, channels: tuple[int, ...]) -> DetailDecoderConfig:
        """The decoder that learns, for a VAE with these channels."""
        return DetailDecoderConfig(
            channels=channels, width=self.width, warping=self.warping, attention=self.attention
        )


class DetailHost(Protocol):
    """A frozen VAE, wherever it runs, in the run's dtype: what a training of details needs of it.

    Gradients go through `decode`.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def num_bytes(self) -> int:
        """Of the VAE's weights."""

    @property
    def vae_name(self) -> str:
        """What a user knows it by."""

    @property
    def signature(self) -> Tensors:
        """Its SIGNATURE, as the VAE's file has it."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of its levels, from level 0 on."""

    def encode(self, pixels_FCHW: Tensor) -> Tensor:
        """Latents, in the scale that `decode` takes, of pixels in [0, 1]."""

    def references(self, pixels_1CHW: Tensor) -> Sequence[Tensor]:
        """What the encoder has of a picture in [0, 1] after the blocks of each level, level 0 first."""

    def decode(
        self, decoder: DetailDecoder, latents_FCHW: Tensor, references: Sequence[Tensor], strength: float
    ) -> Tensor:
        """Pixels (F, 3, H, W), about [-1, 1], with details of the references."""


AnyDetailHost = TypeVar("AnyDetailHost", bound=DetailHost, covariant=True)


class DetailTraining(Generic[AnyDetailHost]):
    """A VAE and clips, ready for training; only the added layers learn."""

    def __init__(
        self,
        host: AnyDetailHost,
        clips: Sequence[Clip],
        config: DetailTrainingConfig,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """`hashes` are those of the clips' files, where they are known already."""
        self.host, self.clips, self.config = host, clips, config
        self._known_hashes = hashes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.decoder = DetailDecoder(config.layout(host.channels)).to(host.device)
        self.loss = DetailLoss(
            rebuild=self.rebuild,
            clips=clips,
            sampling=config.sampling,
            augment=AugmentConfig(size=config.size),
            distortion=config.distortion,
            frames=config.frames,
            seed=config.seed,
            device=host.device,
        )

    def rebuild(self, distorted_FCHW: Tensor, first_1CHW: Tensor, strength: float = 1.0) -> Tensor:
        """Distorted frames through the VAE, with details of the first frame; about [0, 1]."""
        dtype = self.config.dtype
        with torch.autocast(self.host.device.type, dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                latents_FCHW = self.host.encode(distorted_FCHW)
                references = self.host.references(first_1CHW)
            mended_FCHW = self.host.decode(self.decoder, latents_FCHW, references, strength)
        return mended_FCHW / 2 + 0.5

    def settings(self, micro_batches: int) -> dict[str, Any]:
        """What may not change while a run goes on; a step has so many micro-batches, in all processes."""
        clips = list(zip(self.clips, self._hashes, strict=True))
        return detail_settings(clips, self.host.signature, self.decoder.config, self.config, micro_batches)

    @cached_property
    def _hashes(self) -> Sequence[str]:
        return self._known_hashes or clip_hashes(self.clips)

    def run(
        self,
        folder: RunFolder,
        *,
        processes: Processes | None = None,
        stopped: Callable[[], bool] = lambda: False,
        shield: Shield = nullcontext,
        on_step: Callable[[Progress], object] = lambda progress: None,
        on_note: Callable[[str], object] = lambda note: None,
    ) -> Progress:
        """Train until the end or a stop, as `training.loop.train`."""
        weights: dict[str, nn.Parameter] = dict(self.decoder.named_parameters())
        return train(
            folder,
            weights,
            self.loss,
            self.config.loop,
            processes=processes,
            stopped=stopped,
            shield=shield,
            on_step=on_step,
            on_note=on_note,
        )

    def cost(self, size: int | None = None, frames: int | None = None) -> Cost:
        """What a micro-batch costs, as configured or otherwise; counted without computing it."""
        size, frames = size or self.config.size, frames or self.config.frames
        with counting() as counter:
            distorted_FCHW = torch.empty(frames, 3, size, size, device=self.host.device)
            loss = self.rebuild(distorted_FCHW, distorted_FCHW[:1]).float().square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            for weight in self.decoder.parameters():
                weight.grad = None
        return counter.cost

    @torch.no_grad()
    def sample(self, number: int) -> dict[str, Tensor]:
        """Pictures (F, C, H, W) in [0, 1] of a micro-batch: true, the VAE's, ours, and what ours is off."""
        drawn, device = self.loss.draw(number), self.host.device
        distorted_FCHW, first_1CHW = (x.to(device) for x in (drawn.distorted_FCHW, drawn.first_1CHW))
        plain_FCHW, ours_FCHW = (
            self.rebuild(distorted_FCHW, first_1CHW, strength).float().cpu().clamp(0, 1)
            for strength in (0.0, 1.0)
        )
        off_FCHW = (ours_FCHW - drawn.true_FCHW).abs()
        return {"true": drawn.true_FCHW, "VAE": plain_FCHW, "ours": ours_FCHW, "difference": off_FCHW}

    def sample_sheet(self) -> Tensor:
        """One picture (H, W, 3) in [0, 1] of the first micro-batch's `sample`: a row of frames for each."""
        return rearrange(list(self.sample(0).values()), "r f c h w -> (r h) (f w) c")

    def write(self, path: Path, steps: int, header: Mapping[str, str] | None = None) -> None:
        """Write what was learned so far as a detail decoder file; `header` has further entries for it."""
        config = self.config
        told = {
            **decoder_card(),
            **model_spec("stable-diffusion-v1/flash-decoder", path.stem),
            "flash.steps": str(steps),
            "flash.lr": str(config.loop.learning_rate),
            "flash.seed": str(config.seed),
            "flash.size": str(config.size),
            "flash.distortion": json.dumps(asdict(config.distortion)),
            "flash.data": json.dumps({"n_clips": len(self.clips), "sha256": list(self._hashes)}),
            "flash.code_version": code_version(),
        }
        weights = DetailWeights(
            name=path.stem,
            config=self.decoder.config,
            tensors={name: w.to("cpu", torch.float16) for name, w in self.decoder.state_dict().items()},
            signature=self.host.signature,
            vae_name=self.host.vae_name,
            header={**told, **(header or {})},
        )
        write_detail_decoder(path, weights)


def detail_settings(
    clips: Sequence[tuple[Clip, str]],
    signature: Tensors,
    layout: DetailDecoderConfig,
    config: DetailTrainingConfig,
    micro_batches: int,
) -> dict[str, Any]:
    """`DetailTraining.settings` of clips with their hashes, of a VAE's signature and a decoder's layout."""
    return {
        "clips": [{"action": clip.action, "sha256": sha256} for clip, sha256 in clips],
        "vae": fingerprint(signature),
        "decoder": asdict(layout),
        "size": config.size,
        "frames": config.frames,
        "distortion": asdict(config.distortion),
        **machine_settings(config, micro_batches),
    }
