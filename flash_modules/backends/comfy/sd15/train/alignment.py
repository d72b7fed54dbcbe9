"""ComfyUI's U-Net with motion, cross-frame attention and motion alignment, made to learn.

All that a layer must know stands in the options of this one call, so that a layer that runs again in the
backward pass does the same, whatever ran in between.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.utils import unet_to_diffusers
from einops import rearrange, repeat
from torch import Tensor, nn

from .....animatediff.motion_module import MotionModel, TemporalAttention, check_num_frames
from .....attention import attend
from .....flash.cross_frame import with_first_frame
from .....flash.motion_alignment import (
    AlignmentConfig,
    VideoCall,
    align_attention,
    align_module,
    align_queries_keys,
    check_pairs,
)
from .....flash.training.action_training import Checkpointing
from ...learning.again import Again
from ...learning.own_attention import own_attention
from ..options import CALL, Block, MotionCall
from ..places import find_places
from ..v1_norms import pool_output, pooled_resnet

LEARNING = "flash_learning"
"""Learning, during one call of the U-Net."""


@dataclass(frozen=True)
class Learning:
    """How the layers of a call learn."""

    config: AlignmentConfig
    layers: Mapping[Block, int]
    """Where a block's self-attention stands among the aligned layers."""
    again: Again


class LearningUNet(nn.Module):
    """A U-Net and a motion model, both our own, as one model of videos."""

    def __init__(
        self, unet: UNetModel, unet_config: dict, motion: MotionModel, config: AlignmentConfig
    ) -> None:
        super().__init__()
        self.unet, self.motion, self.config = unet, motion, config
        self.places = find_places(unet, motion.config)
        names = aligned_layers(unet_config)
        self.layers: Sequence[str] = list(names)
        """Names of the aligned layers, of which `draw_layers` draws: down, up, middle."""
        self._indices = {block: index for index, block in enumerate(names.values())}
        self._again = Again("none")

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose one of CHECKPOINTING from now on. Raises ValueError for others."""
        self._again = Again(checkpointing)

    def forward(
        self,
        latents_BFCHW: Tensor,
        timestep_B: Tensor,
        text_embeds_BMC: Tensor,
        call: VideoCall | None = None,
    ) -> Tensor:
        """Noise or velocity (B, F, C, H, W); of [originals, twins] along the batch if there is a call."""
        num_videos, num_frames = latents_BFCHW.shape[:2]
        check_num_frames(self.motion.config, num_frames)
        video = replace(call or VideoCall(), num_frames=num_frames)
        if call is not None and call.num_pairs:
            swaps_L = check_pairs(call, num_videos, len(self.layers))
            video = replace(video, swaps_L=swaps_L.to(latents_BFCHW.device))
        latents_XCHW = rearrange(latents_BFCHW, "b f c h w -> (b f) c h w").to(self._dtype)
        text_embeds_XMC = repeat(text_embeds_BMC, "b m c -> (b f) m c", f=num_frames).to(latents_XCHW)
        timestep_X = repeat(timestep_B, "b -> (b f)", f=num_frames)
        found_XCHW = self.unet(
            latents_XCHW, timestep_X, context=text_embeds_XMC, transformer_options=self._options(video)
        )
        found_BFCHW = rearrange(found_XCHW, "(b f) c h w -> b f c h w", f=num_frames)
        return found_BFCHW.to(latents_BFCHW.dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return self.unet.input_blocks[0][0].weight.dtype

    def _options(self, video: VideoCall) -> dict:
        """Fresh `transformer_options`: the U-Net writes into them."""
        options = {
            CALL: MotionCall(self.motion, self.places, video, replaced=frozenset()),
            LEARNING: Learning(self.config, self._indices, self._again),
            "cond_or_uncond": [0],
            "optimized_attention_override": own_attention,
            "patches": {
                "forward_timestep_embed_patch": [
                    (SpatialTransformer, _after_transformer),
                    (ResBlock, _after_resnet),
                ]
            },
            "patches_replace": {"attn1": dict.fromkeys(self._indices, _attend_to_first_frame)},
        }
        return pool_output(options) if self.motion.config.pool_resnet_norms else options


def aligned_layers(unet_config: dict) -> dict[str, Block]:
    """Blocks whose self-attentions are aligned, by diffusers' names and in its order: down, up, middle.

    ComfyUI's own order is another one, and a draw of layers would mean others there.
    """
    layer = ".transformer_blocks.0.attn1."
    found = {
        theirs.removesuffix("to_q.weight"): ours
        for theirs, ours in unet_to_diffusers(unet_config).items()
        if theirs.endswith(f"{layer}to_q.weight")
    }
    return {f"{name}processor": _block(found[name]) for name in _sorted(found)}


def _sorted(names: Mapping[str, str]) -> list[str]:
    sides = ("down_blocks", "up_blocks", "mid_block")

    def place(name: str) -> tuple[int, ...]:
        side, *rest = name.split(".")
        return (sides.index(side), *(int(part) for part in rest if part.isdecimal()))

    return sorted(names, key=place)


def _block(name: str) -> Block:
    side, index, *_ = name.split(".")
    return {
        "input_blocks": ("input", int(index)),
        "output_blocks": ("output", int(index)),
        "middle_block": ("middle", 0),
    }[side]


def _attend_to_first_frame(q_XNC, k_XNC, v_XNC, extra_options):
    """Cross-frame attention in which twins take the originals' correspondence where it was drawn (Eq. 5)."""
    learning: Learning = extra_options[LEARNING]
    video: VideoCall = extra_options[CALL].video
    heads = extra_options["n_heads"]
    k_XMC = with_first_frame(k_XNC, video.num_frames)
    v_XMC = with_first_frame(v_XNC, video.num_frames)
    if video.swaps_L is not None and learning.config.p > 0.0:
        swap = video.swaps_L[learning.layers[extra_options["block"]]]
        q_XNC, k_XMC = align_queries_keys(q_XNC, k_XMC, swap, heads, learning.config)
    return attend(q_XNC, k_XMC, v_XMC, heads)


def _after_transformer(layer, x, emb, context, transformer_options, *_):
    learning: Learning = transformer_options[LEARNING]
    own = dict(transformer_options)  # run again, the layer would find the last block's name in a shared one
    x = learning.again.block(lambda x, context: layer(x, context, own), x, context)
    transformer_options["transformer_index"] += 1
    return _run_motion(x, SpatialTransformer, transformer_options)


def _after_resnet(layer, x, emb, context, transformer_options, *_):
    learning: Learning = transformer_options[LEARNING]
    call: MotionCall = transformer_options[CALL]
    run = partial(pooled_resnet, layer) if call.net.config.pool_resnet_norms else layer
    more = (call.video.num_frames,) if call.net.config.pool_resnet_norms else ()
    x = learning.again.block(lambda x, emb: run(x, emb, *more), x, emb)
    return _run_motion(x, ResBlock, transformer_options)


def _run_motion(x, layer_class: type[nn.Module], transformer_options):
    learning: Learning = transformer_options[LEARNING]
    call: MotionCall = transformer_options[CALL]
    name = call.places.get((*transformer_options["block"], layer_class))
    if name is None:
        return x
    run = partial(_aligned_motion, call.net.get_submodule(name), call.video, learning.config)
    call.last_features_XCHW = learning.again.motion(run, x)
    return call.last_features_XCHW


def _aligned_motion(
    module: nn.Module, video: VideoCall, config: AlignmentConfig, features_XCHW: Tensor
) -> Tensor:
    """A motion module, and the alignment of what it gives, or of what its attentions give (Eq. 3-4)."""
    if not (video.num_pairs or video.stills) or config.tau == 100.0:
        return module(features_XCHW, video.num_frames)
    if not config.after_attention:
        return align_module(module(features_XCHW, video.num_frames), video, config, module)
    with _aligned_attentions(module, video, config):
        return module(features_XCHW, video.num_frames)


@contextmanager
def _aligned_attentions(module: nn.Module, video: VideoCall, config: AlignmentConfig) -> Iterator[None]:
    def align(layer: nn.Module, args: tuple, tokens_YFC: Tensor) -> Tensor:
        return align_attention(tokens_YFC, video, config, layer)

    attentions = [layer for layer in module.modules() if isinstance(layer, TemporalAttention)]
    handles = [layer.register_forward_hook(align) for layer in attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
