"""Motion alignment in diffusers' U-Net, and which of its layers run again in the backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from .....animatediff.motion_module import TemporalAttention
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
from .....flash.training.action_training import CHECKPOINTING, Checkpointing
from ..call import Present, Undo
from ..cross_frame import CrossFrameAttention
from ..motion import AnimatedUNet, MotionHook


@dataclass(frozen=True)
class AlignedMotionHook(MotionHook):
    """A motion module, and the alignment of what it gives (Eq. 3-4)."""

    config: AlignmentConfig
    again: bool
    """Whether both run again in the backward pass, to save memory."""

    def run(self, features_XCHW: Tensor) -> Tensor:
        if self.again and torch.is_grad_enabled():
            return self.present.checkpoint(self._run, features_XCHW)
        return self._run(features_XCHW)

    def _run(self, features_XCHW: Tensor) -> Tensor:
        features_XCHW = super().run(features_XCHW)
        if self.config.tau == 100.0 or self.config.after_attention:
            return features_XCHW
        return align_module(features_XCHW, self.present.call, self.config, self.name)


@dataclass(frozen=True)
class AttentionHook:
    """Alignment of what a temporal attention gives, before it is added to its input."""

    present: Present
    config: AlignmentConfig

    def __call__(self, layer: nn.Module, args: tuple, tokens_YFC: Tensor) -> Tensor:
        return align_attention(tokens_YFC, self.present.call, self.config, layer)


@dataclass(frozen=True)
class AlignedCrossFrameAttention(CrossFrameAttention):
    """Cross-frame attention in which twins take the originals' correspondence where it was drawn (Eq. 5)."""

    config: AlignmentConfig
    index: int

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: None, **__: None) -> Tensor:
        call = self.present.call
        if call.swaps_L is None:
            return super().__call__(attn, hidden_states)
        q_XNC, k_XMC = align_queries_keys(
            attn.to_q(hidden_states),
            with_first_frame(attn.to_k(hidden_states), call.num_frames),
            call.swaps_L[self.index],
            attn.heads,
            self.config,
        )
        v_XMC = with_first_frame(attn.to_v(hidden_states), call.num_frames)
        projection, dropout = attn.to_out
        return dropout(projection(attend(q_XNC, k_XMC, v_XMC, attn.heads)))


class AlignedUNet(nn.Module):
    """An AnimatedUNet that also takes pairs. Without pairs it gives what the AnimatedUNet gives."""

    def __init__(self, model: AnimatedUNet, config: AlignmentConfig, checkpointing: Checkpointing) -> None:
        super().__init__()
        self.layers: Sequence[str] = _cross_frame_layers(model)
        """Names of the cross-frame attentions, of which `draw_layers` draws: down, up, middle."""
        if hasattr(model, _MARK):
            raise ValueError(
                "This U-Net learns from pairs already: load the checkpoint again for other settings, or take "
                "them out with `remove`."
            )
        self.model, self.config = model, config
        self._undo = Undo()
        model.undo.add(self._undo.run)
        setattr(model, _MARK, True)
        self._undo.add(partial(delattr, model, _MARK), partial(model.run_motion, MotionHook))
        self._undo.add(model.unet.disable_gradient_checkpointing)
        if config.after_attention and config.tau < 100.0:
            hook = AttentionHook(model.present, config)
            attentions = (layer for layer in model.motion.modules() if isinstance(layer, TemporalAttention))
            self._undo.add(*(layer.register_forward_hook(hook).remove for layer in attentions))
        if config.p > 0.0:
            self._align_attention()
        self.set_checkpointing(checkpointing)

    def _align_attention(self) -> None:
        unet, present = self.model.unet, self.model.present
        before = unet.attn_processors
        aligned = {
            name: AlignedCrossFrameAttention(present, self.config, index)
            for index, name in enumerate(self.layers)
        }
        unet.set_attn_processor({**before, **aligned})
        self._undo.add(partial(unet.set_attn_processor, before))

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose one of CHECKPOINTING from now on. Raises ValueError for others."""
        if checkpointing not in CHECKPOINTING:
            raise ValueError(
                f"`checkpointing` must be one of {', '.join(CHECKPOINTING)}, but it is '{checkpointing}'."
            )
        self.model.run_motion(partial(AlignedMotionHook, config=self.config, again=checkpointing != "none"))
        if checkpointing == "all":  # diffusers' own switch leaves the motion modules out
            self.model.unet.enable_gradient_checkpointing(self.model.present.checkpoint)
        else:
            self.model.unet.disable_gradient_checkpointing()

    def predict(
        self,
        latents_BFCHW: Tensor,
        timestep_B: Tensor,
        text_embeds: Tensor,
        call: VideoCall | None = None,
    ) -> Tensor:
        """As AnimatedUNet.predict, (B, F, C, H, W); on [originals, twins], or on stills, as a call says."""
        if call is not None and call.num_pairs:
            swaps_L = check_pairs(call, latents_BFCHW.shape[0], len(self.layers))
            call = replace(call, swaps_L=swaps_L.to(latents_BFCHW.device))
        with self.model.present.during(call or VideoCall()):
            return self.model.predict(latents_BFCHW, timestep_B, text_embeds)

    forward = predict  # what DistributedDataParallel calls

    def remove(self) -> AnimatedUNet:
        """Take alignment and checkpointing out again; the result is the AnimatedUNet as it was."""
        self._undo.run()
        return self.model


def add_alignment(
    model: AnimatedUNet, config: AlignmentConfig, *, checkpointing: Checkpointing = "none"
) -> AlignedUNet:
    """The same U-Net, with cross-frame attention, made to learn from pairs: FLASH's motion alignment."""
    return AlignedUNet(model, config, checkpointing)


_MARK = "flash_aligned"
"""Attribute of an AnimatedUNet that learns from pairs."""


def _cross_frame_layers(model: AnimatedUNet) -> list[str]:
    processors = model.unet.attn_processors
    layers = [name for name, processor in processors.items() if isinstance(processor, CrossFrameAttention)]
    if not layers:
        raise ValueError(
            "This U-Net has no cross-frame attention, and an action learned without it would not fit the "
            "sampler: call add_cross_frame_attention first."
        )
    return layers
