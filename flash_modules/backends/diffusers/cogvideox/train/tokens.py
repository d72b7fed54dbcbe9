"""Tokens that learn, in diffusers' CogVideoX."""

from collections.abc import Mapping
from functools import partial

from diffusers import CogVideoXTransformer3DModel
from torch import nn

from .....flexiact.training.loss import zero_tokens
from .....flexiact.training.saving import USUAL, Saving
from ..transfer import PrefixAttention, action_prefix
from .host import LearningHost


class LearningTokens(LearningHost):
    """A transformer whose attentions read tokens that learn: a `Host` of `token_training`."""

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        num_tokens: int,
        saving: Saving = USUAL,
    ) -> None:
        blocks, width = transformer.transformer_blocks, transformer.proj_out.in_features
        super().__init__(transformer, zero_tokens(len(blocks), num_tokens, width), saving)
        self._kept = [block.attn1.processor for block in blocks]
        self.add()

    @property
    def tokens(self) -> Mapping[str, nn.Parameter]:
        return self.weights

    def put_in(self) -> None:
        for block, tokens in zip(self.transformer.transformer_blocks, self.tokens.values(), strict=True):
            block.attn1.set_processor(PrefixAttention(partial(action_prefix, tokens_MC=tokens), lambda: None))

    def take_out(self) -> None:
        for block, processor in zip(self.transformer.transformer_blocks, self._kept, strict=True):
            block.attn1.set_processor(processor)
