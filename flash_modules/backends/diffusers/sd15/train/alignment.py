"""Motion alignment in diffusers' U-Net."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from .....animatediff.motion_module import TemporalAttention
from .....attention import attend
from .....flash.cross_frame import with_first_frame
from .....flash.motion_alignment import (
    AlignmentConfig,
    PairCall,
    align_attention,
    align_module,
    align_queries_keys,
    check_pairs,
)
from .....flash.training.action_training import CHECKPOINTING, Checkpointing
from ..cross_frame import CrossFrameAttention
from ..motion import AnimatedUNet, MotionHook
from ..places import find_places
from .checkpointing import Moment, Present


@dataclass(frozen=True)
class AlignedMotionHook(MotionHook):
    """A motion module and the alignment of what it gives (Eq. 3-4)."""

    present: Present
    config: AlignmentConfig

    def __call__(self, layer: nn.Module, args: tuple, out: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        features_XCHW = out[0] if isinstance(out, tuple) else out
        if self.present.checkpointing != "none" and torch.is_grad_enabled():
            features_XCHW = self.present.checkpoint(self.run, features_XCHW)
        else:
            features_XCHW = self.run(features_XCHW)
        return (features_XCHW,) if isinstance(out, tuple) else features_XCHW

    def run(self, features_XCHW: Tensor) -> Tensor:
        features_XCHW = self.motion.get_submodule(self.name)(features_XCHW, self.call.num_frames)
        if self.config.tau == 100.0 or self.config.after_attention or self.present.moment.call is None:
            return features_XCHW
        return align_module(features_XCHW, self.call.num_frames, self.config)


@dataclass(frozen=True)
class AttentionHook:
    """Alignment of what a temporal attention gives, before it is added to its input."""

    present: Present
    config: AlignmentConfig

    def __call__(self, layer: nn.Module, args: tuple, tokens_YFC: Tensor) -> Tensor:
        call = self.present.moment.call
        if call is None:
            return tokens_YFC
        return align_attention(tokens_YFC, call.num_pairs, self.config)


@dataclass(frozen=True)
class AlignedCrossFrameAttention(CrossFrameAttention):
    """Cross-frame attention in which twins take the originals' correspondence where it was drawn (Eq. 5)."""

    present: Present
    config: AlignmentConfig
    index: int

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: None, **__: None) -> Tensor:
        if self.present.moment.call is None:
            return super().__call__(attn, hidden_states)
        q_XNC, k_XMC = align_queries_keys(
            attn.to_q(hidden_states),
            with_first_frame(attn.to_k(hidden_states), self.call.num_frames),
            self.present.moment.call.swaps_L[self.index],
            attn.heads,
            self.config,
        )
        v_XMC = with_first_frame(attn.to_v(hidden_states), self.call.num_frames)
        projection, dropout = attn.to_out
        return dropout(projection(attend(q_XNC, k_XMC, v_XMC, attn.heads)))


class AlignedUNet(nn.Module):
    """An AnimatedUNet that also takes pairs. Without pairs it gives what the AnimatedUNet gives."""

    def __init__(self, model: AnimatedUNet, config: AlignmentConfig, checkpointing: Checkpointing) -> None:
        super().__init__()
        layers = [
            name for name, p in model.unet.attn_processors.items() if isinstance(p, CrossFrameAttention)
        ]
        _check_model(model, layers)
        self.model = model
        self.layers: Sequence[str] = layers
        """Names of the cross-frame attentions, of which `draw_layers` draws: down, up, middle."""
        self.present = Present(model.call)
        _align_motion(model, self.present, config)
        if config.p > 0.0:
            _align_attention(model, self.present, config, layers)
        self.set_checkpointing(checkpointing)

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose one of CHECKPOINTING from now on. Raises ValueError for others."""
        if checkpointing not in CHECKPOINTING:
            raise ValueError(
                f"`checkpointing` must be one of {', '.join(CHECKPOINTING)}, but it is '{checkpointing}'."
            )
        self.present.checkpointing = checkpointing
        if checkpointing == "all":
            self.model.unet.enable_gradient_checkpointing(self.present.checkpoint)
        else:
            self.model.unet.disable_gradient_checkpointing()

    def predict(
        self,
        latents_BFCHW: Tensor,
        timestep_B: Tensor,
        text_embeds: Tensor,
        call: PairCall | None = None,
    ) -> Tensor:
        """As AnimatedUNet.predict, (B, F, C, H, W); on [originals, twins] if there is a call."""
        if call is not None:
            check_pairs(call, latents_BFCHW.shape[0], len(self.layers))
            call = replace(call, swaps_L=call.swaps_L.to(latents_BFCHW.device))
        self.present.moment = Moment(latents_BFCHW.shape[1], call)
        try:
            return self.model.predict(latents_BFCHW, timestep_B, text_embeds)
        finally:
            self.present.moment = Moment()

    forward = predict  # what DistributedDataParallel calls


def add_alignment(
    model: AnimatedUNet, config: AlignmentConfig, *, checkpointing: Checkpointing = "none"
) -> AlignedUNet:
    """The same U-Net, with cross-frame attention, made to learn from pairs: FLASH's motion alignment.

    `checkpointing` is one of CHECKPOINTING. diffusers' own switch leaves the motion modules out.
    """
    return AlignedUNet(model, config, checkpointing)


def _align_motion(model: AnimatedUNet, present: Present, config: AlignmentConfig) -> None:
    """Exchange the hooks of the motion modules, at their places among a layer's hooks."""
    for place in find_places(model.unet, model.motion.config).values():
        for key, hook in place._forward_hooks.items():
            if isinstance(hook, MotionHook):
                aligned = AlignedMotionHook(hook.motion, hook.name, hook.call, present, config)
                place._forward_hooks[key] = aligned
    if config.after_attention and config.tau < 100.0:
        for layer in model.motion.modules():
            if isinstance(layer, TemporalAttention):
                layer.register_forward_hook(AttentionHook(present, config))


def _align_attention(
    model: AnimatedUNet, present: Present, config: AlignmentConfig, layers: list[str]
) -> None:
    processors = {
        name: AlignedCrossFrameAttention(model.call, present, config, layers.index(name))
        if name in layers
        else processor
        for name, processor in model.unet.attn_processors.items()
    }
    model.unet.set_attn_processor(processors)


def _check_model(model: AnimatedUNet, layers: list[str]) -> None:
    if not layers:
        raise ValueError(
            "This U-Net has no cross-frame attention, and an action learned without it would not fit the "
            "sampler: call add_cross_frame_attention first."
        )
    hooks = (
        hook
        for place in find_places(model.unet, model.motion.config).values()
        for hook in place._forward_hooks.values()
    )
    if any(isinstance(hook, AlignedMotionHook) for hook in hooks):
        raise ValueError(
            "This U-Net learns from pairs already: load the checkpoint again for other settings."
        )
