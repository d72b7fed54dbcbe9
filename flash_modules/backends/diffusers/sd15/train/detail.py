"""Training of a detail decoder on diffusers' VAE: from clips and a VAE to a decoder file."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from .....files.tensor_file import fingerprint
from .....flash.augment import AugmentConfig
from .....flash.decoder_file import SIGNATURE, DetailWeights, write_detail_decoder
from .....flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from .....flash.distortion import DistortionConfig
from .....flash.training.card import decoder_card
from .....flash.training.detail_loss import DetailLoss
from .....flash.training.export import code_version
from .....training.clips import Clip, clip_hashes
from .....training.loop import LoopConfig, Processes, Shield, train
from .....training.run_folder import Progress, RunFolder
from .....training.sampling import SamplingConfig
from ..detail import decode_with_details, detail_channels, reference_features


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


class DetailTraining:
    """A VAE and clips, ready for training; only the added layers learn."""

    def __init__(
        self,
        vae: AutoencoderKL,
        vae_name: str,
        clips: Sequence[Clip],
        config: DetailTrainingConfig,
        device: torch.device,
    ) -> None:
        self.vae, self.vae_name, self.clips, self.config = vae, vae_name, clips, config
        self.device = device
        self.signature = {name: vae.state_dict()[name].clone() for name in SIGNATURE}
        nn.Module.to(vae, device, config.dtype)  # diffusers' own warns, of an empty list of modules
        vae.eval().requires_grad_(False)
        layout = DetailDecoderConfig(
            channels=detail_channels(vae),
            width=config.width,
            warping=config.warping,
            attention=config.attention,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.decoder = DetailDecoder(layout).to(device)
        self.loss = DetailLoss(
            rebuild=self.rebuild,
            clips=clips,
            sampling=config.sampling,
            augment=AugmentConfig(size=config.size),
            distortion=config.distortion,
            frames=config.frames,
            seed=config.seed,
            device=device,
        )

    def rebuild(self, distorted_FCHW: Tensor, first_1CHW: Tensor, strength: float = 1.0) -> Tensor:
        """Distorted frames through the VAE, with details of the first frame; about [0, 1]."""
        with torch.autocast(self.device.type, self.config.dtype, enabled=self.config.dtype != torch.float32):
            with torch.no_grad():
                pixels_FCHW = distorted_FCHW.to(self.config.dtype) * 2 - 1
                latents_FCHW = self.vae.encode(pixels_FCHW).latent_dist.mean * self.vae.config.scaling_factor
                references = reference_features(self.vae, rearrange(first_1CHW, "1 c h w -> 1 h w c"))
            mended_FCHW = decode_with_details(self.vae, self.decoder, latents_FCHW, references, strength)
        return mended_FCHW / 2 + 0.5

    def settings(self, micro_batches: int) -> dict[str, Any]:
        """What may not change while a run goes on; a step has so many micro-batches, in all processes."""
        config = self.config
        return {
            "clips": [
                {"action": clip.action, "sha256": sha256}
                for clip, sha256 in zip(self.clips, self._hashes, strict=True)
            ],
            "vae": fingerprint(self.signature),
            "decoder": asdict(self.decoder.config),
            "size": config.size,
            "frames": config.frames,
            "distortion": asdict(config.distortion),
            "sampling": asdict(config.sampling),
            **config.loop.settings,
            "parts_of_a_step": micro_batches,
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

    @torch.no_grad()
    def sample(self, number: int) -> dict[str, Tensor]:
        """Pictures (F, C, H, W) in [0, 1] of a micro-batch: true, the VAE's, ours, and what ours is off."""
        drawn = self.loss.draw(number)
        distorted_FCHW, first_1CHW = (x.to(self.device) for x in (drawn.distorted_FCHW, drawn.first_1CHW))
        plain_FCHW, ours_FCHW = (
            self.rebuild(distorted_FCHW, first_1CHW, strength).float().cpu().clamp(0, 1)
            for strength in (0.0, 1.0)
        )
        off_FCHW = (ours_FCHW - drawn.true_FCHW).abs()
        return {"true": drawn.true_FCHW, "VAE": plain_FCHW, "ours": ours_FCHW, "difference": off_FCHW}

    def write(self, path: Path, steps: int) -> None:
        """Write what was learned so far as a detail decoder file."""
        config = self.config
        header = {
            **decoder_card(),
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": "stable-diffusion-v1/flash-decoder",
            "modelspec.title": path.stem,
            "flash.steps": str(steps),
            "flash.lr": str(config.loop.learning_rate),
            "flash.seed": str(config.seed),
            "flash.size": str(config.size),
            "flash.distortion": json.dumps(asdict(config.distortion)),
            "flash.data": json.dumps({"n_clips": len(self.clips), "sha256": self._hashes}),
            "flash.code_version": code_version(),
        }
        weights = DetailWeights(
            name=path.stem,
            config=self.decoder.config,
            tensors={name: w.to("cpu", torch.float16) for name, w in self.decoder.state_dict().items()},
            signature=self.signature,
            vae_name=self.vae_name,
            header=header,
        )
        write_detail_decoder(path, weights)
