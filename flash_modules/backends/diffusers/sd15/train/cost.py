"""What a computation costs, counted without doing it."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from .....flash.motion_alignment import PairCall
from .....flash.training.loss import Predict


@dataclass(frozen=True)
class Cost:
    """Of one computation."""

    flops: int
    """A multiply and an add count as two."""
    peak_bytes: int
    """The most that is held at a time, beside what was there before."""


def count_cost(
    predict: Predict,
    weights: Iterable[Tensor],
    latents_shape: torch.Size,
    text_embeds_1MC: Tensor,
    *,
    num_layers: int,
    twins: bool,
    device: torch.device,
) -> Cost:
    """The cost of a step on the noise of one clip (F, C, h, w), of its twin too if there are twins.

    It is that of the forward and backward pass, gradients of `weights`, which are those that learn, too.
    """
    videos = 2 if twins else 1
    with counting() as counter:
        latents_BFCHW = torch.empty(videos, *latents_shape, device=device)
        text_embeds_BMC = torch.empty(videos, *text_embeds_1MC.shape[1:], device=device)
        timestep_B = torch.ones(videos, dtype=torch.long, device=device)
        swaps_L = torch.zeros(num_layers, dtype=torch.bool, device=device)
        call = PairCall(num_pairs=1, swaps_L=swaps_L) if twins else None
        loss = predict(latents_BFCHW, timestep_B, text_embeds_BMC, call).float().square().mean()
        loss.backward()
        for weight in weights:
            weight.grad = None
    return counter.cost


_aten = torch.ops.aten
_FORMULAS = {
    **flop_registry,
    # torch 2.13 has these for CUDA alone
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, out_val, **__: sdpa_flop_count(
        q.shape, k.shape, v.shape
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, out_val, **__: sdpa_backward_flop_count(
            grad.shape, q.shape, k.shape, v.shape
        )
    ),
}


@contextmanager
def counting() -> Iterator["CostCounter"]:
    """What runs inside computes nothing: tensors have shapes alone. Their cost is counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), CostCounter() as counter:
        yield counter


class CostCounter(TorchDispatchMode):
    """Counts the work of operators, and the bytes of the storages that they make as long as those are held.

    torch's FlopCounterMode keeps what checkpointed layers compute anew, so memory cannot be taken beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.held = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    @property
    def cost(self) -> Cost:
        return Cost(self.flops, self.peak)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, num_bytes: int) -> None:
        self.held -= num_bytes
