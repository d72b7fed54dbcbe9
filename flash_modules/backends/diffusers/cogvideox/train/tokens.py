"""Tokens that learn, in diffusers' CogVideoX."""

from collections.abc import Mapping
from functools import partial

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from .....flexiact.training.loss import zero_tokens
from ..guidance import predict_velocity
from ..transfer import PrefixAttention, action_prefix


class LearningTokens:
    """A transformer whose attentions read tokens that learn: a `Host` of `token_training`.

    The transformer is frozen; `remove` takes the tokens out of it again. `checkpointing` keeps the inputs of
    blocks alone, and runs each again in the backward pass.
    """

    def __init__(
        self, transformer: CogVideoXTransformer3DModel, num_tokens: int, *, checkpointing: bool = True
    ) -> None:
        blocks, width = transformer.transformer_blocks, transformer.proj_out.in_features
        self.transformer = transformer.requires_grad_(False)
        self._tokens = zero_tokens(len(blocks), num_tokens, width)
        for tokens in self._tokens.values():
            tokens.data = tokens.data.to(self.device)
        self._kept = [block.attn1.processor for block in blocks]
        for block, tokens in zip(blocks, self._tokens.values(), strict=True):
            block.attn1.set_processor(PrefixAttention(partial(action_prefix, tokens_MC=tokens), lambda: None))
        if checkpointing:
            transformer.enable_gradient_checkpointing()

    @property
    def device(self) -> torch.device:
        return self.transformer.device

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
