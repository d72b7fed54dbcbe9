"""What is drawn of a clip: frames and an augmentation, and the pictures for them."""

from collections.abc import Sequence

import pytest
import torch

from flash_pack.flash_modules.flash.augment import AugmentConfig, crop, draw_augmentation
from flash_pack.flash_modules.flash.training.clip_draw import draw_clip
from flash_pack.flash_modules.training.clips import Clip
from flash_pack.flash_modules.training.sampling import SamplingConfig, seeded, take_frames
from flash_pack.tests.core.small_clips import H, W, frames_shown, only_clip, write_folder

SAMPLING = SamplingConfig(num_frames=4, stride=2)
AUGMENT = AugmentConfig(size=32, zoom=1.5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("clips") / "jump"
    write_folder(folder / "a", 20)
    return only_clip(folder)


def test_frames_and_augmentation_depend_on_the_generator_alone(clip: Clip) -> None:
    one = draw_clip(clip, SAMPLING, AUGMENT, seeded(1))
    torch.manual_seed(99)
    again = draw_clip(clip, SAMPLING, AUGMENT, seeded(1))
    assert (one.taken, one.augmentation) == (again.taken, again.augmentation)
    assert torch.equal(one.video_FCHW, again.video_FCHW)
    others = [draw_clip(clip, SAMPLING, AUGMENT, seeded(i)) for i in range(2, 8)]
    assert len({other.taken.indices for other in others}) > 1
    assert len({other.augmentation for other in others}) == len(others)


def test_frames_are_drawn_first_then_chosen_then_the_augmentation(clip: Clip) -> None:
    def choose(indices: Sequence[int], generator: torch.Generator) -> Sequence[int]:
        first, second = torch.randperm(len(indices), generator=generator)[:2].tolist()
        return sorted((indices[first], indices[second]), reverse=True)

    drawn = draw_clip(clip, SAMPLING, AUGMENT, seeded(3), choose=choose)
    generator = seeded(3)
    taken = take_frames(clip, SAMPLING, generator)
    chosen = choose(taken.indices, generator)
    assert drawn.taken == taken
    assert frames_shown(drawn.video_FCHW) == chosen
    assert drawn.augmentation == draw_augmentation(AUGMENT, generator)


def test_the_video_holds_the_frames_that_were_taken(clip: Clip) -> None:
    drawn = draw_clip(clip, SAMPLING, AUGMENT, seeded(4))
    assert len(drawn.taken.indices) == SAMPLING.num_frames
    assert frames_shown(drawn.video_FCHW) == list(drawn.taken.indices)


@pytest.mark.parametrize(("size", "zoom"), [(32, 1.5), (40, 1.15), (32, 1.0)])
def test_pictures_are_as_large_as_the_largest_crop_needs(clip: Clip, size: int, zoom: float) -> None:
    augment = AugmentConfig(size=size, zoom=zoom)
    height, width = draw_clip(clip, SAMPLING, augment, seeded(5)).video_FCHW.shape[-2:]
    assert size * zoom <= height <= size * zoom + 1
    assert width == round(height * W / H)


def test_small_clips_are_not_made_larger_before_the_crop(clip: Clip) -> None:
    augment = AugmentConfig(size=2 * H)
    drawn = draw_clip(clip, SAMPLING, augment, seeded(6))
    assert drawn.video_FCHW.shape[-2:] == (H, W)
    assert crop(drawn.video_FCHW, augment.shape, drawn.augmentation).shape[-2:] == (2 * H, 2 * H)
