"""Tokens that learn, in diffusers' CogVideoX."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from .....files.tensor_file import fingerprint
from .....flexiact.training.loss import zero_tokens
from .....flexiact.training.saving import USUAL, Saving
from .....flexiact.training.token_training import KNOWN_BY
from ..guidance import latents_shape, predict_velocity
from ..memory import bytes_of
from ..transfer import PrefixAttention, action_prefix


class LearningTokens:
    """A transformer whose attentions read tokens that learn: a `Host` of `token_training`.

    The transformer is frozen; `remove` takes the tokens out of it again, and `add` puts them back.
    """

    saving: Saving
    """What saves memory."""

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        num_tokens: int,
        saving: Saving = USUAL,
    ) -> None:
        blocks, width = transformer.transformer_blocks, transformer.proj_out.in_features
        self.transformer = transformer.requires_grad_(False)
        self._tokens = zero_tokens(len(blocks), num_tokens, width)
        self._kept = [block.attn1.processor for block in blocks]
        self._device, self.saving = transformer.device, saving
        self.add()

    def add(self) -> None:
        """Put the tokens into the transformer."""
        for block, tokens in zip(self.transformer.transformer_blocks, self._tokens.values(), strict=True):
            block.attn1.set_processor(PrefixAttention(partial(action_prefix, tokens_MC=tokens), lambda: None))
        self.save_memory(self.saving)

    def save_memory(self, saving: Saving) -> None:
        """Save memory in another way from now on; `to` then moves what waits elsewhere."""
        self.saving = saving
        if (run_again := saving.run_again) is None:
            self.transformer.disable_gradient_checkpointing()
        else:
            self.transformer.enable_gradient_checkpointing(run_again)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def num_blocks(self) -> int:
        return len(self.transformer.transformer_blocks)

    @property
    def num_bytes(self) -> int:
        return bytes_of(self.transformer)

    @property
    def block_bytes(self) -> int:
        return bytes_of(self.transformer.transformer_blocks)

    @property
    def input_shapes(self) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        config = self.transformer.config
        return latents_shape(self.transformer), (config.max_text_seq_length, config.text_embed_dim)

    @contextmanager
    def first_blocks(self, count: int) -> Iterator[None]:
        """So many blocks alone, as long as it lasts."""
        all_blocks = self.transformer.transformer_blocks
        self.transformer.transformer_blocks = nn.ModuleList(all_blocks[:count])
        try:
            yield
        finally:
            self.transformer.transformer_blocks = all_blocks

    @property
    def fingerprint(self) -> str:
        """What the transformer is known by: the hash of a few of its weights, as all take minutes."""
        weights = self.transformer.state_dict()
        return fingerprint({name: weights[name] for name in KNOWN_BY})

    def to(self, device: torch.device) -> None:
        """Move transformer and tokens; blocks that wait are left on the CPU."""
        self._device = device
        for name, part in self.transformer.named_children():
            waits = self.saving.offload and name == "transformer_blocks"
            part.to("cpu" if waits else device)
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
