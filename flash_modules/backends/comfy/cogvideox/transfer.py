"""Actions and RefAdapter on ComfyUI's CogVideoX: patches of weights, and an override of attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter import LoRAAdapter
from einops import rearrange
from torch import Tensor

from ....flexiact.action_file import TransferAction, check_fits
from ....flexiact.motion_tokens import Prefix, attend_with_prefix, layer_prefix
from ....flexiact.performance import Performance, joined_tokens, key_biases, performed
from ....flexiact.ref_adapter_file import STRENGTH, RefAdapter, check_adapter_fits
from .corrections import corrected

PERFORMANCES = "flash_performances"
"""In `transformer_options`: tuple of Performance, those of all nodes in a row. Also the key of wrappers."""
REF_ADAPTER = "flash_ref_adapter"
"""The name of the RefAdapter that a MODEL has."""
_PREFIXES = "flash_prefixes"
"""_Prefixes, during a run."""
OVERRIDE = "optimized_attention_override"
"""ComfyUI's."""


def transfer_action(
    model: ModelPatcher,
    performance: Performance,
    adapter: RefAdapter | None = None,
    adapter_strength: float = STRENGTH,
) -> ModelPatcher:
    """A clone of the MODEL that performs one more action, with the RefAdapter at its strength if it is given.

    Raises ValueError if the MODEL is no CogVideoX-5b-I2V, or the files are for another one.
    """
    if not isinstance(performance.action, TransferAction):
        raise ValueError(
            f"The action '{performance.action.name}' was learned by FLASH, for Stable Diffusion 1.5: connect "
            "it to Apply Action, or load one here that was learned from one clip with FlexiAct."
        )
    m = corrected(model).clone()
    net = m.model.diffusion_model
    check_fits(performance.action, num_layers=len(net.blocks), width=net.dim)
    if adapter is not None:
        _add_ref_adapter(m, adapter, adapter_strength)
    options = m.model_options["transformer_options"]
    options[PERFORMANCES] = (*options.get(PERFORMANCES, ()), *performed([performance]))
    wrappers = ((WrappersMP.OUTER_SAMPLE, _keep_prefixes), (WrappersMP.DIFFUSION_MODEL, _perform))
    for kind, wrapper in wrappers:
        m.remove_wrappers_with_key(kind, PERFORMANCES)
        m.add_wrapper_with_key(kind, PERFORMANCES, wrapper)
    return m


def _add_ref_adapter(m: ModelPatcher, adapter: RefAdapter, strength: float) -> None:
    options, net = m.model_options["transformer_options"], m.model.diffusion_model
    if REF_ADAPTER in options:
        raise ValueError(
            f"This MODEL already has the RefAdapter '{options[REF_ADAPTER]}': choose none in one of the two "
            "Transfer Action nodes."
        )
    check_adapter_fits(adapter, num_layers=len(net.blocks), width=net.dim)
    patches = {}
    for (layer, part), low_rank in adapter.parts.items():
        name = f"diffusion_model.blocks.{layer}.{'attn_out' if part == 'out' else part}.weight"
        weights = (low_rank.up_CR, low_rank.down_RC, low_rank.alpha, None, None, None)
        patches[name] = LoRAAdapter(set(), weights)
    patched = m.add_patches(patches, strength)
    assert len(patched) == len(patches), "a projection of this model has another name"
    options[REF_ADAPTER] = adapter.name


@dataclass
class _Prefixes:
    """What the tokens are for each layer. They depend on weights alone, so a run computes them once."""

    by_layer: dict[int, Prefix] = field(default_factory=dict)


def _keep_prefixes(executor, *args, **kwargs):
    """A wrapper of a sampling run: its prefixes are kept, unless prompts change weights on the way."""
    guider = executor.class_obj
    prompts = (prompt for prompts in guider.conds.values() for prompt in prompts)
    if not any("hooks" in prompt for prompt in prompts):
        guider.model_options["transformer_options"][_PREFIXES] = _Prefixes()  # of this run alone
    return executor(*args, **kwargs)


def _perform(executor, x, timestep, context, ofs=None, transformer_options=None, **kwargs):
    """A wrapper of the model: for this call, every attention reads the actions' prefix, too."""
    options = transformer_options or {}
    net, performances = executor.class_obj, options.get(PERFORMANCES, ())
    if not performances:
        return executor(x, timestep, context, ofs, options, **kwargs)
    attention = _Attention(
        net=net,
        performances=performances,
        prefixes=options.get(_PREFIXES, _Prefixes()),
        biases_M2=key_biases(performances, float(timestep[0])),
        num_text=context.shape[1],
        inner=options.get(OVERRIDE),
    )
    out = executor(x, timestep, context, ofs, {**options, OVERRIDE: attention}, **kwargs)
    if attention.layers not in (0, len(net.blocks)):  # 0: a cache of another node stood in for the model
        raise ValueError(
            f"{attention.layers} of this model's {len(net.blocks)} attentions ran, so another node "
            "leaves out or repeats blocks, which does not go together with Transfer Action: remove that node."
        )
    return out


@dataclass
class _Attention:
    """ComfyUI's attention in one call of the model, with a prefix. Calls are counted: ComfyUI tells no layer.

    It is put in place for the call, so it is the outermost override, whatever other nodes set before or
    after; theirs is called inside.
    """

    net: CogVideoXTransformer3DModel
    performances: Sequence[Performance]
    prefixes: _Prefixes
    biases_M2: Tensor | None
    num_text: int
    inner: Callable | None
    layers: int = 0
    """How many have run."""

    @torch.compiler.disable  # what it adds changes from call to call, and ComfyUI drops the guards on it
    def __call__(self, func, q, k, v, heads: int, **kwargs):
        kernel = partial(self._kernel, func, kwargs)
        prefix = self._prefix(q)
        q, k, v = (rearrange(x, "b n (heads d) -> b n heads d", heads=heads) for x in (q, k, v))
        out = attend_with_prefix(q, k, v, prefix, self.biases_M2, self.num_text, kernel)
        self.layers += 1
        return rearrange(out, "b n heads d -> b n (heads d)")

    def _prefix(self, like: Tensor) -> Prefix:
        known, layer = self.prefixes.by_layer, self.layers % len(self.net.blocks)
        if layer not in known:
            block = self.net.blocks[layer]
            tokens_MC = joined_tokens(self.performances, layer).to(like)
            known[layer] = layer_prefix(tokens_MC, block.k, block.v, block.norm_k, block.num_heads)
        return known[layer]

    def _kernel(self, func, kwargs, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The attention that ComfyUI, or another node's override, would have used.

        Some of them know only the usual scale, so that any other one is put into the queries.
        """
        heads, channels = q.shape[2:]
        usual = channels**-0.5
        if scale != usual:
            q = q * (scale / usual)
        q, k, v = (rearrange(x, "b n heads d -> b n (heads d)") for x in (q, k, v))
        attend = func if self.inner is None else partial(self.inner, func)
        out = attend(q, k, v, heads=heads, **kwargs)
        return rearrange(out, "b n (heads d) -> b n heads d", heads=heads)
