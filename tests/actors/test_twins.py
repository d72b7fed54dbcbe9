"""Twins from elsewhere on drawn actors: the same motion in another look is taken, and other ones are not."""

from collections.abc import Callable, Sequence

import pytest
from einops import rearrange
from torch import Tensor

from flash_pack.actors.world.actions import ACTIONS
from flash_pack.actors.world.clips import clip_video, make_clip
from flash_pack.actors.world.looks import draw_look
from flash_pack.actors.world.motion import draw_motion
from flash_pack.flash_modules.training.twins import with_twins
from flash_pack.tests.core.drawn_twins import as_clip

Pairs = list[tuple[Tensor, Tensor]]
COUNT, SHIFT = 24, 2


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Of each action one motion in two looks, which have all of its frames and some later ones."""

    def shown(seed: int, action: str, look: int, strange: bool) -> Tensor:
        motion = draw_motion(action, 900 + seed)
        clip = make_clip(motion, draw_look(look, strange), num_frames=COUNT + SHIFT, size=64)
        return rearrange(clip_video(clip), "f h w c -> f c h w")

    return [
        (shown(i, action, 2000 + i, False), shown(i, action, 3000 + i, i % 2 == 0))
        for i, action in enumerate(ACTIONS)
    ]


def refused(pairs: Sequence[Pairs]) -> int:
    """How many of these lists of clips and twins."""

    def is_refused(some: Pairs) -> bool:
        try:
            with_twins([as_clip(clip) for clip, _ in some], [as_clip(twin) for _, twin in some])
        except ValueError:
            return True
        return False

    return sum(map(is_refused, pairs))


def changed(pairs: Pairs, change: Callable[[Tensor], Tensor]) -> list[Pairs]:
    return [[(clip[:COUNT], change(twin))] for clip, twin in pairs]


def test_the_same_motion_in_another_look_is_taken(pairs: Pairs) -> None:
    right = [(clip[:COUNT], twin[:COUNT]) for clip, twin in pairs]
    assert refused([right, *([pair] for pair in right)]) == 0
    joined = with_twins([as_clip(clip) for clip, _ in right], [as_clip(twin) for _, twin in right])
    assert sum(not one.notes for one in joined) >= 0.8 * len(right)


def test_twins_of_each_other_are_refused(pairs: Pairs) -> None:
    clips, twins = ([video[:COUNT] for video in some] for some in zip(*pairs, strict=True))
    swapped = [[(clips[i - 1], twins[i]), (clips[i], twins[i - 1])] for i in range(len(pairs))]
    assert refused(swapped) == len(pairs)


def test_most_wrong_ones_are_refused_where_there_is_one_clip(pairs: Pairs) -> None:
    mirrored = changed(pairs, lambda twin: twin[:COUNT].flip(-1))
    early = changed(pairs, lambda twin: twin[SHIFT:])
    assert refused(mirrored) >= 0.75 * len(pairs)
    assert refused(early) >= 0.75 * len(pairs)
    others = [[(pairs[i - 1][0][:COUNT], pairs[i][1][:COUNT])] for i in range(len(pairs))]
    assert refused(others) >= 0.5 * len(pairs)
