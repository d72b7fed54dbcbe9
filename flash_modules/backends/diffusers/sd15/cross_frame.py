"""Cross-frame attention in diffusers' U-Net."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from ....attention import attend
from ....flash.cross_frame import with_first_frame
from .call import Present
from .motion import AnimatedUNet


@dataclass(frozen=True)
class CrossFrameAttention:
    """diffusers' attention processor with keys and values from [current frame; first frame]."""

    present: Present

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: None, **__: None) -> Tensor:
        tokens_XNC = hidden_states
        keys_XMC = with_first_frame(attn.to_k(tokens_XNC), self.present.call.num_frames)
        values_XMC = with_first_frame(attn.to_v(tokens_XNC), self.present.call.num_frames)
        out_XNC = attend(attn.to_q(tokens_XNC), keys_XMC, values_XMC, attn.heads)
        projection, dropout = attn.to_out
        return dropout(projection(out_XNC))


def add_cross_frame_attention(model: AnimatedUNet) -> AnimatedUNet:
    """The same U-Net; its self-attentions read [current frame; first frame] from now on."""
    model.undo.add(read_first_frame(model.unet, model.present))
    return model


def read_first_frame(unet: UNet2DConditionModel, present: Present) -> Callable[[], None]:
    """Let a U-Net's self-attentions read [current frame; first frame]; the result takes that back."""
    before = unet.attn_processors
    unet.set_attn_processor(
        {
            name: CrossFrameAttention(present) if name.endswith(".attn1.processor") else processor
            for name, processor in before.items()
        }
    )
    return partial(unet.set_attn_processor, before)
