"""Actions and a RefAdapter in diffusers' CogVideoX."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor, nn

from ....flexiact.action_file import check_fits
from ....flexiact.motion_tokens import Prefix, attend_with_prefix, layer_prefix, sdpa
from ....flexiact.performance import Performance, joined_tokens, key_biases, performed
from ....flexiact.ref_adapter_file import STRENGTH, Part, RefAdapter, check_adapter_fits

_PROJECTIONS: dict[Part, str] = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}


class PrefixAttention:
    """CogVideoX's attention, whose queries read a layer's prefix, too: a processor of diffusers."""

    def __init__(
        self, make_prefix: Callable[[Attention], Prefix], biases: Callable[[], Tensor | None]
    ) -> None:
        self._make_prefix, self._biases = make_prefix, biases

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video (B, N, C) and text (B, M, C) after attention over both; diffusers gives no mask."""
        num_text = encoder_hidden_states.shape[1]
        tokens_BNC = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        q, k, v = (
            rearrange(project(tokens_BNC), "b n (heads d) -> b n heads d", heads=attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k = (_turned(x, num_text, image_rotary_emb) for x in (attn.norm_q(q), attn.norm_k(k)))
        biases_M2 = self._biases()
        if biases_M2 is not None:
            biases_M2 = biases_M2.to(q.device)
        out = attend_with_prefix(q, k, v, self._make_prefix(attn), biases_M2, num_text, sdpa)
        out_BNC = attn.to_out[1](attn.to_out[0](rearrange(out, "b n heads d -> b n (heads d)")))
        return out_BNC[:, num_text:], out_BNC[:, :num_text]


def _turned(x: Tensor, num_text: int, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
    """Queries or keys (B, N, heads, D) with positions; text has none."""
    if rotary is None:
        return x
    video = apply_rotary_emb(rearrange(x[:, num_text:], "b n heads d -> b heads n d"), rotary)
    return torch.cat([x[:, :num_text], rearrange(video, "b heads n d -> b n heads d")], dim=1)


def action_prefix(attn: Attention, tokens_MC: Tensor) -> Prefix:
    """What an attention's own keys and values are for these tokens."""
    weight = attn.to_k.weight
    return layer_prefix(
        tokens_MC.to(weight.device, weight.dtype), attn.to_k, attn.to_v, attn.norm_k, attn.heads
    )


class _Run:
    """What the layers of one transformer know: the actions, the timestep, and prefixes once they are made."""

    def __init__(self, performances: Sequence[Performance]) -> None:
        self.performances = performances
        self.biases_M2: Tensor | None = None
        self._prefixes: dict[int, Prefix] = {}

    def note_timestep(self, transformer: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        """A hook before the transformer's forward. Raises ValueError if videos are at several timesteps."""
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[2]
        timesteps = set(torch.as_tensor(timestep).flatten().tolist())
        if len(timesteps) != 1:
            raise ValueError(
                f"The videos of a batch are at {len(timesteps)} timesteps, and an action is performed at "
                "one: predict them apart."
            )
        self.biases_M2 = key_biases(self.performances, timesteps.pop())

    def prefix(self, layer: int, attn: Attention) -> Prefix:
        if layer not in self._prefixes:
            self._prefixes[layer] = action_prefix(attn, joined_tokens(self.performances, layer))
        return self._prefixes[layer]


def add_transfer(
    transformer: CogVideoXTransformer3DModel,
    performances: Sequence[Performance],
    adapter: RefAdapter | None = None,
    adapter_strength: float = STRENGTH,
) -> Callable[[], None]:
    """Perform actions, and keep pictures' looks with a RefAdapter; what comes back takes all out again.

    The adapter's weights become part of the transformer's; it is then bit for bit what it was. Actions'
    keys and values are made at the first forward and kept, so weights must not change after it. Raises
    ValueError if an action or the adapter is for another model.
    """
    num_layers, width = len(transformer.transformer_blocks), transformer.proj_out.in_features
    for performance in performances:
        check_fits(performance.action, num_layers=num_layers, width=width)
    undo = []
    if adapter is not None and adapter_strength:
        check_adapter_fits(adapter, num_layers=num_layers, width=width)
        undo.append(_add_adapter(transformer, adapter, adapter_strength))
    if acting := performed(performances):
        undo.append(_add_actions(transformer, acting))

    def remove() -> None:
        for step in reversed(undo):
            step()
        undo.clear()

    return remove


def projections(transformer: CogVideoXTransformer3DModel) -> Iterator[tuple[int, Part, nn.Linear]]:
    """All that a RefAdapter changes, with its layer, and which of the four it is."""
    for layer, block in enumerate(transformer.transformer_blocks):
        for part, name in _PROJECTIONS.items():
            yield layer, part, block.attn1.get_submodule(name)


def _add_actions(
    transformer: CogVideoXTransformer3DModel, performances: Sequence[Performance]
) -> Callable[[], None]:
    run = _Run(performances)
    hook = transformer.register_forward_pre_hook(run.note_timestep, with_kwargs=True)
    kept = [block.attn1.processor for block in transformer.transformer_blocks]
    for layer, block in enumerate(transformer.transformer_blocks):
        block.attn1.set_processor(PrefixAttention(partial(run.prefix, layer), lambda: run.biases_M2))

    def remove() -> None:
        hook.remove()
        for block, processor in zip(transformer.transformer_blocks, kept, strict=True):
            block.attn1.set_processor(processor)

    return remove


@torch.no_grad()
def _add_adapter(
    transformer: CogVideoXTransformer3DModel, adapter: RefAdapter, strength: float
) -> Callable[[], None]:
    """Exchange the tensors of the weights; those they were loaded from stay as they are, in their file."""
    kept = []
    for layer, part, projection in projections(transformer):
        low_rank, weight = adapter.parts[layer, part], projection.weight
        kept.append((weight, weight.data))
        weight.data = (weight.float() + low_rank.delta(strength).to(weight.device)).to(weight.dtype)

    def remove() -> None:
        for weight, values in kept:
            weight.data = values.to(weight.device)

    return remove
