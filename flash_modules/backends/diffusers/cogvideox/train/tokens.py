"""Tokens that learn, in diffusers' CogVideoX."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from .....files.tensor_file import fingerprint
from .....flexiact.training.loss import zero_tokens
from ..guidance import predict_velocity
from ..transfer import PrefixAttention, action_prefix

_KNOWN_BY = (
    "time_embedding.linear_1.weight",
    "transformer_blocks.0.attn1.to_q.weight",
    "proj_out.weight",
)
Checkpointing = Literal["none", "blocks", "cpu"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""What saves memory: nothing; blocks run again in the backward pass, so that their inputs alone are kept; and
those inputs wait in the computer's memory."""


def _run_again(block: nn.Module, *args: Any) -> Any:
    return checkpoint(block, *args, use_reentrant=False)


def _run_again_from_cpu(block: nn.Module, video: Tensor, *args: Any) -> Any:
    """What this kind of checkpoint keeps goes by the hooks of autograd, if something before it learns."""
    with save_on_cpu():
        return checkpoint(
            block,
            video if video.requires_grad else video.detach().requires_grad_(),
            *args,
            use_reentrant=True,
        )


class LearningTokens:
    """A transformer whose attentions read tokens that learn: a `Host` of `token_training`.

    The transformer is frozen; `remove` takes the tokens out of it again, and `add` puts them back.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        num_tokens: int,
        checkpointing: Checkpointing = "blocks",
    ) -> None:
        blocks, width = transformer.transformer_blocks, transformer.proj_out.in_features
        self.transformer = transformer.requires_grad_(False)
        self._tokens = zero_tokens(len(blocks), num_tokens, width)
        self._kept = [block.attn1.processor for block in blocks]
        self._checkpointing = checkpointing
        self.add()

    def add(self) -> None:
        """Put the tokens into the transformer."""
        for block, tokens in zip(self.transformer.transformer_blocks, self._tokens.values(), strict=True):
            block.attn1.set_processor(PrefixAttention(partial(action_prefix, tokens_MC=tokens), lambda: None))
        if self._checkpointing != "none":
            run_again = _run_again if self._checkpointing == "blocks" else _run_again_from_cpu
            self.transformer.enable_gradient_checkpointing(run_again)

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def fingerprint(self) -> str:
        """What the transformer is known by: the hash of a few of its weights, as all take minutes."""
        weights = self.transformer.state_dict()
        return fingerprint({name: weights[name] for name in _KNOWN_BY})

    def to(self, device: torch.device) -> None:
        """Move transformer and tokens."""
        self.transformer.to(device)
        for tokens in self._tokens.values():
            tokens.data = tokens.data.to(device)

    @property
    def tokens(self) -> Mapping[str, nn.Parameter]:
        return self._tokens

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor:
        """Velocity (B, F, C, h, w)."""
        return predict_velocity(self.transformer, latents_BFCHW, picture_BFCHW, timestep_B, text_embeds_BMC)

    def remove(self) -> None:
        """Take the tokens out of the transformer."""
        self.transformer.disable_gradient_checkpointing()
        for block, processor in zip(self.transformer.transformer_blocks, self._kept, strict=True):
            block.attn1.set_processor(processor)
