"""What the layers of diffusers' U-Net know of the present call, and how what was added is taken out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch.utils import checkpoint

from ....flash.motion_alignment import VideoCall


@dataclass
class Present:
    """The call that layers are in, which none of them gets as an argument."""

    call: VideoCall = field(default_factory=VideoCall)
    """The latest one; it stays until the next, because gradient checkpointing runs layers again."""

    def checkpoint(self, layer: Callable, *args):
        """`layer(*args)`, to run again in the backward pass, under this very call whatever ran in between."""
        call = self.call

        def run(*args):
            with self.during(call):
                return layer(*args)

        return checkpoint.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)

    @contextmanager
    def during(self, call: VideoCall) -> Iterator[None]:
        """Layers are in this call; afterwards in the one before."""
        before, self.call = self.call, call
        try:
            yield
        finally:
            self.call = before


class Undo:
    """Steps that take out again what was added to a U-Net, the latest first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, *steps: Callable[[], object]) -> None:
        self._steps += steps

    def run(self) -> None:
        while self._steps:
            self._steps.pop()()
