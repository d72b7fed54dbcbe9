"""ComfyUI's Stable Diffusion 1.5 as a host that an action is learned on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from .....animatediff.motion_file import MotionWeights
from .....animatediff.motion_module import MotionModel, check_num_frames
from .....files.tensor_file import fingerprint
from .....flash.action_file import Source
from .....flash.adain import AdaINConfig
from .....flash.motion_alignment import VideoCall
from .....flash.sampling import SamplerConfig, sample_video
from .....flash.training.action_training import ActionTrainingConfig, Checkpointing, Learned
from .....flash.training.export import write_trained_action
from .....flash.training.latent_pool import Encode
from .....flash.training.method import is_trained
from .....flash.training.noise_law import DiffusionNoise
from ...learning.encoders import vae_in_use
from ...learning.own_weights import baked_in, loaded_from
from ..motion import LoadedMotion
from .alignment import LearningUNet
from .encode import check_clip, check_vae, decode_frames, embed_prompt, encode_frames
from .own_weights import check_learnable, keys_values, own_unet, prediction_of


class ComfyHost:
    """A MODEL's weights, copied, and a motion module, ready to learn. The MODEL stays as it is.

    To be made and used outside of inference mode, in which ComfyUI runs its nodes.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        motion: LoadedMotion,
        config: ActionTrainingConfig,
        *,
        header: Mapping[str, str] | None = None,
    ) -> None:
        """`header` has further entries for the file's header."""
        check_learnable(model)
        check_clip(clip)
        check_vae(vae)
        check_num_frames(motion.config, config.sampling.num_frames)
        self.clip, self.vae = clip, vae
        self.device: torch.device = comfy.model_management.get_torch_device()
        self.dtype = config.dtype
        self.noise = DiffusionNoise(prediction_of(model))
        self.vae_factor: int = vae.downscale_ratio
        self._latent_channels: int = vae.latent_channels
        self._latent_format = model.get_model_object("latent_format")
        self.header = {**(header or {}), **baked_in(model)}
        self.motion = motion.read()
        unet = own_unet(model)
        kv = keys_values(unet, model)
        self.source = Source(name=loaded_from(model) or "an SD 1.5 checkpoint", sha256=fingerprint(kv))
        self.model = LearningUNet(
            unet, model.model.model_config.unet_config, _own_motion(self.motion), config.method.alignment
        )
        self.model.set_checkpointing(config.checkpointing)
        self.model.to(self.device, config.dtype).requires_grad_(False)
        learning = {
            name: weight
            for name, weight in self.model.motion.named_parameters()
            if is_trained(name, config.method.trainable)
        }
        self.weights: Mapping[str, Tensor] = {**learning, **keys_values(unet, model)}
        for weight in self.weights.values():
            weight.data = weight.data.float()
            weight.requires_grad_(True)

    @property
    def num_bytes(self) -> int:
        """Of all weights on the device."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    @property
    def aligned_layers(self) -> Sequence[str]:
        """The cross-frame attentions, in diffusers' order."""
        return self.model.layers

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of the base's keys and values with LoRAs, and of the motion module."""
        return {"base": self.source.sha256, "motion_module": self.motion.sha256}

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        """What the U-Net predicts, computed in the run's dtype."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(latents_BFCHW, timestep_B, text_embeds, call)

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        """One latent for each frame."""
        factor = self.vae_factor
        return torch.Size((num_frames, self._latent_channels, height // factor, width // factor))

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        """The paper's sampling."""
        return sample_video(
            self.predict,
            reference_1CHW,
            prompt,
            negative,
            prediction=self.noise.prediction,
            seed=seed,
            config=config,
            style=AdaINConfig(),
        )

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose what runs again in the backward pass, from now on."""
        self.model.set_checkpointing(checkpointing)

    @contextmanager
    def encoder(self) -> Iterator[Encode]:
        """The VAE, on the device as long as it is used."""

        def encode(video_FCHW: Tensor) -> Tensor:
            return self._latent_format.process_in(encode_frames(self.vae, video_FCHW)).to(self.device)

        with vae_in_use(self.vae):
            yield encode

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1] of scaled latents; the VAE is on the device as long as they come."""
        with vae_in_use(self.vae):
            yield from decode_frames(self.vae, self._latent_format.process_out(latents_FCHW))

    def embed(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C), on the CPU."""
        return embed_prompt(self.clip, prompt)

    def write(self, path: Path, learned: Learned, *, standalone: bool) -> None:
        """Write an action file; a `standalone` one holds a whole motion module."""
        write_trained_action(
            path,
            learned,
            self.motion,
            base=self.source,
            prediction=self.noise.prediction,
            standalone=standalone,
            header=self.header,
        )


def _own_motion(weights: MotionWeights) -> MotionModel:
    motion = MotionModel(weights.config, device="meta")
    motion.load_state_dict({name: tensor.clone() for name, tensor in weights.tensors.items()}, assign=True)
    return motion.eval()
