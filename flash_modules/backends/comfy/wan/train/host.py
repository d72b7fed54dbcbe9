"""ComfyUI's Wan 2.2 as a host that an action is learned on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from einops import rearrange
from torch import Tensor

from .....flash.motion_alignment import VideoCall
from .....flash.sampling import SamplerConfig
from .....flash.training.action_training import ActionTrainingConfig, Checkpointing, Learned
from .....flash.training.latent_pool import Encode
from .....flash.training.lora_export import write_trained_lora
from .....flash.training.noise_law import FlowNoise
from ...learning.encoders import vae_in_use
from ...learning.own_weights import baked_in, loaded_from
from ..kinds import ARCHITECTURE, BASE
from .alignment import LearningWan
from .encode import FACTOR, check_clip, check_vae, embed_prompt, encode_video, latent_frames
from .low_rank import add_low_rank
from .own_net import base_fingerprint, check_learnable, own_net
from .sampling import sample_video


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What learns."""

    rank: int = 16
    text: bool = False
    """Keys and values of the attentions to the text learn too, as in the paper's U-Net."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"`rank` must be 1 or more, but it is {self.rank}: 16 is usual.")


class WanHost:
    """A MODEL's transformer with a LoRA that learns. The MODEL stays as it is.

    To be made and used outside of inference mode, in which ComfyUI runs its nodes.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        config: ActionTrainingConfig,
        lora: LoRAConfig,
        *,
        header: Mapping[str, str] | None = None,
    ) -> None:
        """`header` has further entries for the file's header."""
        check_learnable(model)
        check_clip(clip)
        check_vae(vae)
        self.noise = FlowNoise(shift_of(model))
        self.clip, self.vae, self.lora = clip, vae, lora
        self.device: torch.device = comfy.model_management.get_torch_device()
        self.dtype = config.dtype
        self.header = {**(header or {}), **baked_in(model)}
        self.base_name = loaded_from(model) or BASE
        self._base_sha256 = base_fingerprint(model)
        self._model_sampling = model.get_model_object("model_sampling")
        self._latent_format = model.get_model_object("latent_format")
        net = own_net(model)
        self.weights: Mapping[str, Tensor] = add_low_rank(net, lora.rank, text=lora.text, seed=config.seed)
        self.model = LearningWan(net, config.method.alignment)
        self.model.set_checkpointing(config.checkpointing)
        self.model.to(self.device)

    @property
    def num_bytes(self) -> int:
        """Of all weights on the device, quantised ones as they are kept."""
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    @property
    def aligned_layers(self) -> Sequence[str]:
        """The self-attentions, block by block."""
        return self.model.layers

    @property
    def vae_factor(self) -> int:
        """Of the VAE."""
        return FACTOR

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of the base with LoRAs, and of what learns on it."""
        return model_settings(self._base_sha256, self.noise, self.lora)

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        """The velocity, computed in the run's dtype."""
        found_BFCHW = self.model(latents_BFCHW.to(self.dtype), timestep_B, text_embeds, call)
        return found_BFCHW.to(latents_BFCHW.dtype)

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        """One latent of the first picture, and one of every four that follow."""
        channels = self._latent_format.latent_channels
        return torch.Size((latent_frames(num_frames), channels, height // FACTOR, width // FACTOR))

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        """Core's sampling, as its template for this base has it."""
        frames = latent_frames(config.num_frames)
        return sample_video(
            self.predict, self._model_sampling, reference_1CHW, prompt, negative, frames, seed, config
        )

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose what runs again in the backward pass, from now on."""
        self.model.set_checkpointing(checkpointing)

    @contextmanager
    def encoder(self) -> Iterator[Encode]:
        """The VAE, on the device as long as it is used."""

        def encode(video_FCHW: Tensor) -> Tensor:
            latents_1CFHW = rearrange(encode_video(self.vae, video_FCHW), "f c h w -> 1 c f h w")
            scaled_1CFHW = self._latent_format.process_in(latents_1CFHW)
            return rearrange(scaled_1CFHW, "1 c f h w -> f c h w").to(self.device)

        with vae_in_use(self.vae):
            yield encode

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1] of scaled latents, as VAE Decode makes them."""
        latents_1CFHW = rearrange(latents_FCHW, "f c h w -> 1 c f h w")
        with vae_in_use(self.vae):
            yield from self.vae.decode(self._latent_format.process_out(latents_1CFHW).cpu())[0]

    def embed(self, prompt: str) -> Tensor:
        """Text embeddings (1, 512, C), on the CPU."""
        return embed_prompt(self.clip, prompt)

    def write(self, path: Path, learned: Learned, *, standalone: bool = False) -> None:
        """Write a LoRA file, which is the same whether `standalone` or not."""
        write_trained_lora(
            path,
            learned,
            base=self.base_name,
            architecture=ARCHITECTURE,
            shift=self.noise.shift,
            header=self.header,
        )


def model_settings(base_sha256: str, noise: FlowNoise, lora: LoRAConfig) -> dict[str, str]:
    """What of the model a run may not change: the base, the shift, the LoRA's shape."""
    return {
        "base": base_sha256,
        "shift": f"{noise.shift:g}",
        "lora": f"rank {lora.rank}{', text' if lora.text else ''}",
    }


def shift_of(model: ModelPatcher) -> float:
    """With which the MODEL samples. Raises ValueError if it does not sample by flow matching."""
    sampling = model.get_model_object("model_sampling")
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    if not flow or not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscreteFlow):
        raise ValueError(
            "This MODEL samples otherwise than by flow matching: take the ModelSampling node away, or put "
            "ModelSamplingSD3 in its place, which sets the shift."
        )
    return float(sampling.shift)
