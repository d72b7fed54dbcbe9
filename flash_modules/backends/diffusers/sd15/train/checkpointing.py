"""Layers that run again in the backward pass, under the very call that they belong to.

diffusers' own switch leaves the motion modules out; and it runs layers under whatever call came last.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch.utils import checkpoint

from .....flash.motion_alignment import PairCall
from .....flash.training.action_training import Checkpointing
from ..call import VideoCall


@dataclass(frozen=True)
class Moment:
    """What layers must know of the present call."""

    num_frames: int = 1
    call: PairCall | None = None


@dataclass
class Present:
    """The present call. Outside of one there are no pairs, so that the plain model runs as ever."""

    video: VideoCall
    moment: Moment = Moment()
    checkpointing: Checkpointing = "none"

    def checkpoint(self, layer: Callable, *args):
        """`layer(*args)`, to run again in the backward pass, under this very call whatever ran in between."""
        moment = replace(self.moment, num_frames=self.video.num_frames)

        def run(*args):
            before, num_frames = self.moment, self.video.num_frames
            self.moment, self.video.num_frames = moment, moment.num_frames
            try:
                return layer(*args)
            finally:
                self.moment, self.video.num_frames = before, num_frames

        return checkpoint.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
