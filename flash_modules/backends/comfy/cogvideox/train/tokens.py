"""Tokens that learn, in ComfyUI's CogVideoX."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.ldm.cogvideo.model import CogVideoXBlock
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor, nn

from .....flexiact.motion_tokens import attend_with_prefix, layer_prefix, sdpa
from .....flexiact.performance import Performance, key_biases
from .....flexiact.ref_adapter_file import LowRank, RefAdapter
from .....flexiact.training.loss import zero_tokens
from .....flexiact.training.saving import USUAL, Saving
from ..transfer import OVERRIDE
from .own_net import check_learnable, own_net


class _LearningBlock(nn.Module):
    """A block whose attention reads tokens, too: torch's own, whatever kernel ComfyUI was started with."""

    def __init__(self, block: CogVideoXBlock, tokens_MC: nn.Parameter, biases: Callable) -> None:
        super().__init__()
        self.block, self.run = block, USUAL.run
        self.run_again: Callable | None = None
        self._tokens: Callable[[], Tensor] = lambda: tokens_MC  # so that they are no weight of the module
        self._biases = biases

    def forward(
        self, hidden_states, encoder_hidden_states, temb, image_rotary_emb=None, transformer_options=None
    ):
        """As the block's; the index of calls would be wrong where blocks run again, so each has its own."""
        attention = partial(self._attend, encoder_hidden_states.shape[1])
        run = (self.run_again if torch.is_grad_enabled() else None) or self.run
        options = {OVERRIDE: attention}
        return run(self.block, hidden_states, encoder_hidden_states, temb, image_rotary_emb, options)

    def _attend(self, num_text: int, func, q, k, v, heads: int, **_) -> Tensor:
        block, tokens_MC = self.block, self._tokens().to(k)
        prefix = layer_prefix(tokens_MC, block.k, block.v, block.norm_k, heads)
        q, k, v = (rearrange(x, "b n (heads d) -> b n heads d", heads=heads) for x in (q, k, v))
        out = attend_with_prefix(q, k, v, prefix, self._biases(), num_text, sdpa)
        return rearrange(out, "b n heads d -> b n (heads d)")


class LearningTokens:
    """A MODEL's transformer whose attentions read tokens that learn: a `Host` of `token_training`.

    The MODEL stays as it is. To be made and used outside of inference mode, in which ComfyUI runs nodes.
    """

    saving: Saving
    """What saves memory."""

    def __init__(self, model: ModelPatcher, num_tokens: int, saving: Saving = USUAL) -> None:
        check_learnable(model)
        self.dtype: torch.dtype = model.model.get_dtype_inference()
        self.net = own_net(model)
        self._device = torch.device("cpu")
        self._biases_M2: Tensor | None = None
        self._tokens = zero_tokens(len(self.net.blocks), num_tokens, self.net.dim)
        self.net.blocks = nn.ModuleList(
            _LearningBlock(block, tokens, lambda: self._biases_M2)
            for block, tokens in zip(self.net.blocks, self._tokens.values(), strict=True)
        )
        self.save_memory(saving)

    def save_memory(self, saving: Saving) -> None:
        """Save memory in another way from now on; `to` then moves what waits elsewhere."""
        self.saving = saving
        for block in self.net.blocks:
            block.run, block.run_again = saving.run, saving.run_again

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        return self._tokens

    @property
    def tokens(self) -> Mapping[str, nn.Parameter]:
        return self._tokens

    @property
    def num_blocks(self) -> int:
        return len(self.net.blocks)

    @property
    def num_bytes(self) -> int:
        return _bytes_of(self.net)

    @property
    def block_bytes(self) -> int:
        return _bytes_of(self.net.blocks)

    @property
    def input_shapes(self) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        embed = self.net.patch_embed
        frames = (embed.sample_frames - 1) // embed.temporal_compression_ratio + 1
        latents = frames, self.net.in_channels // 2, embed.sample_height, embed.sample_width
        return latents, (embed.max_text_seq_length, embed.text_proj.in_features)

    @contextmanager
    def first_blocks(self, count: int) -> Iterator[None]:
        """So many blocks alone, as long as it lasts."""
        all_blocks = self.net.blocks
        self.net.blocks = nn.ModuleList(all_blocks[:count])
        try:
            yield
        finally:
            self.net.blocks = all_blocks

    def to(self, device: torch.device) -> None:
        """Move transformer and tokens; blocks that wait are left on the CPU."""
        self._device = device
        for name, part in self.net.named_children():
            waits = self.saving.offload and name == "blocks"
            part.to("cpu" if waits else device)
        for tokens in self._tokens.values():
            tokens.data = tokens.data.to(device)

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor:
        """Velocity (B, F, C, h, w), computed in the number type that ComfyUI chose for the MODEL."""
        inputs_BFCHW = torch.cat([latents_BFCHW, picture_BFCHW], dim=2).to(self.dtype)
        inputs_BCFHW = rearrange(inputs_BFCHW, "b f c h w -> b c f h w")
        velocity_BCFHW = self.net(inputs_BCFHW, timestep_B, text_embeds_BMC.to(self.dtype))
        return rearrange(velocity_BCFHW, "b c f h w -> b f c h w").to(latents_BFCHW)

    @contextmanager
    def performing(
        self, performance: Performance, adapter: RefAdapter | None, strength: float
    ) -> Iterator[Callable[..., Tensor]]:
        """A `Velocity` with the tokens as they are, early boost and RefAdapter, as long as it lasts.

        `performance` is of the tokens.
        """

        def velocity(latents, picture, timestep_1: Tensor, text_embeds) -> Tensor:
            biases_M2 = key_biases([performance], float(timestep_1))
            self._biases_M2 = None if biases_M2 is None else biases_M2.to(self.device)
            return self.predict(latents, picture, timestep_1, text_embeds)

        changed = self._add_adapter(adapter, strength) if adapter is not None else []
        try:
            yield velocity
        finally:
            self._biases_M2 = None
            for layer in changed:
                layer.weight_function = []

    def _add_adapter(self, adapter: RefAdapter, strength: float) -> list[Any]:
        """Let ComfyUI's layers add it whenever they cast their weights, which stay as they are."""
        layers: list[Any] = []
        for (number, part), low_rank in adapter.parts.items():
            layer = getattr(self.net.blocks[number].block, "attn_out" if part == "out" else part)
            layer.weight_function = [partial(_changed, _on(low_rank, self.device), strength)]
            layers.append(layer)
        return layers


def _on(low_rank: LowRank, device: torch.device) -> LowRank:
    return LowRank(down_RC=low_rank.down_RC.to(device), up_CR=low_rank.up_CR.to(device), alpha=low_rank.alpha)


def _changed(low_rank: LowRank, strength: float, weight: Tensor) -> Tensor:
    return weight + low_rank.delta(strength).to(weight)


def _bytes_of(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
