"""Which of the CogVideoX models a file or a MODEL is: FlexiAct was made for CogVideoX-5b-I2V alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

_WIDTH_OF_2B = 1920
_LATENT_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class _Traits:
    """What tells the kinds apart."""

    in_channels: int
    width: int
    patches_in_time: bool
    learned_positions: bool

    @property
    def kind(self) -> str | None:
        """What it is, in a user's words; None for CogVideoX-5b-I2V."""
        if self.patches_in_time:
            return "CogVideoX 1.5, or VOID, which is built on it"
        if self.in_channels == _LATENT_CHANNELS:
            size = "2b" if self.width == _WIDTH_OF_2B else "5b"
            return f"CogVideoX-{size}, which makes videos from text alone"
        if self.in_channels != 2 * _LATENT_CHANNELS or not self.learned_positions:
            return "a CogVideoX for other inputs (inpainting, control or poses)"
        return None


def check_weights(weights: Mapping[str, Tensor], file_name: str) -> None:
    """Raise ValueError unless these are the weights of CogVideoX-5b-I2V, by ComfyUI's names."""
    patches, block = weights.get("patch_embed.proj.weight"), weights.get("blocks.0.q.weight")
    if patches is None or block is None or "blocks.0.norm1.linear.weight" not in weights:
        raise ValueError(f"{file_name} is no CogVideoX model: choose the file of CogVideoX-5b-I2V.")
    if not block.is_floating_point() and "blocks.0.q.comfy_quant" not in weights:
        raise ValueError(
            f"{file_name} is quantised in a way that ComfyUI cannot read (GGUF inside a safetensors file): "
            "take the bf16 or an fp8 version of CogVideoX-5b-I2V."
        )
    traits = _Traits(
        in_channels=patches.shape[1],
        width=block.shape[0],
        patches_in_time=patches.ndim == 2,
        learned_positions="patch_embed.pos_embedding" in weights,
    )
    if traits.kind:
        raise ValueError(
            f"{file_name} is {traits.kind}: FlexiAct was made for CogVideoX-5b-I2V, choose that."
        )


def check_model(model: ModelPatcher) -> None:
    """Raise ValueError unless the MODEL is CogVideoX-5b-I2V."""
    net = getattr(model.model, "diffusion_model", None)
    if isinstance(net, CogVideoXTransformer3DModel):
        found = _Traits(
            in_channels=net.in_channels,
            width=net.dim,
            patches_in_time=net.patch_size_t is not None,
            learned_positions=net.patch_embed.use_learned_positional_embeddings,
        ).kind
    else:
        config = getattr(model.model, "model_config", None)
        found = type(model.model if config is None else config).__name__
    if found:
        raise ValueError(
            f"This MODEL is {found}: FlexiAct was made for CogVideoX-5b-I2V, connect Load CogVideoX I2V."
        )
