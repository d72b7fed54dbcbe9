"""A host of a few numbers: what training needs of a base model, without any host that exists."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from flash_pack.flash_modules.flash.adain import AdaINConfig
from flash_pack.flash_modules.flash.motion_alignment import VideoCall
from flash_pack.flash_modules.flash.sampling import SamplerConfig, sample_video
from flash_pack.flash_modules.flash.training.action_training import Checkpointing, Learned
from flash_pack.flash_modules.flash.training.latent_pool import Encode
from flash_pack.flash_modules.flash.training.noise_law import DiffusionNoise


def tiny_predict(weights: Mapping[str, Tensor], latents_BFCHW: Tensor, text_embeds_BMC: Tensor) -> Tensor:
    """A plain function: each frame with some of the frame before, brightened by the prompt."""
    before_BFCHW = latents_BFCHW.roll(1, dims=1)
    light_B1C11 = rearrange(text_embeds_BMC.mean(1), "b c -> b 1 c 1 1")
    weights_C11 = {name: rearrange(weight, "c -> c 1 1") for name, weight in weights.items()}
    return weights_C11["keep"] * latents_BFCHW + weights_C11["mix"] * (before_BFCHW + light_B1C11)


class TinyHost:
    """Fulfils `Host`; latents are pictures, averaged over 4 x 4 pixels. It keeps what it was asked for."""

    device = torch.device("cpu")
    noise = DiffusionNoise("epsilon")
    vae_factor = 4
    num_bytes = 1000
    aligned_layers: Sequence[str] = ("down", "up", "middle")
    fingerprints: Mapping[str, str] = {"base_sha256": "tiny"}

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = {name: nn.Parameter(torch.randn(3, generator=generator)) for name in ("keep", "mix")}
        self.calls: list[VideoCall | None] = []
        self.checkpointing: list[Checkpointing] = []
        self.prompts: list[str] = []
        self.written: list[tuple[Path, Learned, bool]] = []

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        self.calls.append(call)
        return tiny_predict(self.weights, latents_BFCHW, text_embeds)

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        return torch.Size((num_frames, 3, height // self.vae_factor, width // self.vae_factor))

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        prediction, style = self.noise.prediction, AdaINConfig()
        return sample_video(
            self.predict,
            reference_1CHW,
            prompt,
            negative,
            prediction=prediction,
            seed=seed,
            config=config,
            style=style,
        )

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        self.checkpointing.append(checkpointing)

    @contextmanager
    def encoder(self) -> Iterator[Encode]:
        yield tiny_encode

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        for latents_CHW in latents_FCHW:
            yield rearrange(latents_CHW / 2 + 0.5, "c h w -> h w c")

    def embed(self, prompt: str) -> Tensor:
        self.prompts.append(prompt)
        return torch.full((1, 2, 3), len(prompt) / 10)

    def write(self, path: Path, learned: Learned, *, standalone: bool) -> None:
        self.written.append((path, learned, standalone))


def tiny_encode(video_FCHW: Tensor) -> Tensor:
    return avg_pool2d(2 * video_FCHW - 1, 4)
