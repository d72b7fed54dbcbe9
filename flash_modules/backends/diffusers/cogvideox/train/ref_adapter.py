"""A RefAdapter that learns, in diffusers' CogVideoX."""

from functools import partial

from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle

from .....flexiact.training.ref_training import new_low_ranks, weight_name
from .....flexiact.training.saving import USUAL, Saving
from ..transfer import projections
from .host import LearningHost


class LearningRefAdapter(LearningHost):
    """A transformer with low-rank layers beside its attentions' projections: a `Host` of `ref_training`."""

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        rank: int,
        seed: int,
        saving: Saving = USUAL,
    ) -> None:
        blocks, width = transformer.transformer_blocks, transformer.proj_out.in_features
        super().__init__(transformer, new_low_ranks(len(blocks), rank, width, seed), saving)
        self._handles: list[RemovableHandle] = []
        self.add()

    def put_in(self) -> None:
        for layer, part, projection in projections(self.transformer):
            down, up = (self.weights[weight_name(layer, part, which)] for which in ("down", "up"))
            self._handles.append(projection.register_forward_hook(partial(_beside, down, up)))

    def take_out(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _beside(down_RC: Tensor, up_CR: Tensor, module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
    """What the projection gives, and half of what the low-rank layer does: alpha is half of its rank."""
    (x,) = args
    return out + 0.5 * linear(linear(x, down_RC.to(x.dtype)), up_CR.to(x.dtype))
