"""ComfyUI's Wan with motion alignment, made to learn.

Each layer knows its own place, and finds in the options of a call what it must know of that call, so that one
that runs again in the backward pass does the same, whatever ran in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.wan.model import WanAttentionBlock, WanModel, WanSelfAttention
from einops import rearrange, repeat
from torch import Tensor, nn

from .....attention import attend
from .....flash.motion_alignment import (
    AlignmentConfig,
    VideoCall,
    align_correspondence,
    align_tokens,
    check_pairs,
)
from .....flash.training.settings import Checkpointing
from ...learning.again import Again
from ...learning.own_attention import own_attention

_LEARNING = "flash_learning"
"""Learning, in `transformer_options` during one call."""


@dataclass(frozen=True)
class _Learning:
    """How the layers of a call learn."""

    config: AlignmentConfig
    video: VideoCall
    again: Again


class _AlignedAttention(nn.Module):
    """A self-attention over all frames whose twins take what the original's does."""

    def __init__(self, attention: WanSelfAttention, index: int) -> None:
        super().__init__()
        self.attention, self.index = attention, index

    def forward(self, x: Tensor, freqs: Tensor, transformer_options: dict) -> Tensor:
        """As the attention's, tokens (B, F N, C) frame by frame."""
        learning: _Learning = transformer_options[_LEARNING]
        return learning.again.motion_in_block(lambda x, freqs: self._attend(x, freqs, learning), x, freqs)

    def _attend(self, x_BLC: Tensor, freqs: Tensor, learning: _Learning) -> Tensor:
        own, video, config = self.attention, learning.video, learning.config
        q_BLC, k_BLC = (
            self._turned(norm(project(x_BLC)), freqs)
            for norm, project in ((own.norm_q, own.q), (own.norm_k, own.k))
        )
        if video.swaps_L is not None and config.p > 0.0:
            swap = video.swaps_L[self.index]
            q_BLC, k_BLC = align_correspondence(q_BLC, k_BLC, swap, detach_source=config.detach_source)
        out_BLC = own.o(attend(q_BLC, k_BLC, own.v(x_BLC), own.num_heads))
        return align_tokens(out_BLC, video, config, self.index)

    def _turned(self, x_BLC: Tensor, freqs: Tensor) -> Tensor:
        """With positions (RoPE)."""
        heads_BLHD = rearrange(x_BLC, "b l (h d) -> b l h d", h=self.attention.num_heads)
        return rearrange(apply_rope1(heads_BLHD, freqs), "b l h d -> b l (h d)")


class _LearningBlock(nn.Module):
    """A block that may run again in the backward pass."""

    def __init__(self, block: WanAttentionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, **more) -> Tensor:
        """As the block's."""
        learning: _Learning = more["transformer_options"][_LEARNING]
        return learning.again.block(lambda x: self.block(x, **more), x)


class LearningWan(nn.Module):
    """A transformer of our own as a model of videos whose first frame is clean."""

    def __init__(self, net: WanModel, config: AlignmentConfig) -> None:
        super().__init__()
        self.net, self.config = net, config
        self.layers: Sequence[str] = [f"blocks.{index}.self_attn" for index in range(len(net.blocks))]
        """Names of the aligned layers, of which `draw_layers` draws."""
        for index, block in enumerate(net.blocks):
            block.self_attn = _AlignedAttention(block.self_attn, index)
        net.blocks = nn.ModuleList(_LearningBlock(block) for block in net.blocks)
        self._again = Again("none")

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose one of CHECKPOINTING from now on; "motion" is the self-attentions. ValueError for others."""
        self._again = Again(checkpointing)

    def forward(
        self,
        latents_BFCHW: Tensor,
        timestep_B: Tensor,
        text_embeds_BMC: Tensor,
        call: VideoCall | None = None,
    ) -> Tensor:
        """The velocity (B, F, C, h, w), computed in the latents' dtype; frame 0 has timestep 0.

        Of [originals, twins] along the batch if there is a call.
        """
        num_videos, num_frames = latents_BFCHW.shape[:2]
        video = replace(call or VideoCall(), num_frames=num_frames)
        if call is not None and call.num_pairs:
            swaps_L = check_pairs(call, num_videos, len(self.layers))
            video = replace(video, swaps_L=swaps_L.to(latents_BFCHW.device))
        timestep_BF = repeat(timestep_B.float(), "b -> b f", f=num_frames).clone()
        timestep_BF[:, 0] = 0
        options = {
            _LEARNING: _Learning(self.config, video, self._again),
            "optimized_attention_override": own_attention,
        }
        found_BCFHW = self.net(
            rearrange(latents_BFCHW, "b f c h w -> b c f h w"),
            timestep_BF,
            text_embeds_BMC.to(latents_BFCHW),
            transformer_options=options,
        )
        return rearrange(found_BCFHW, "b c f h w -> b f c h w")
