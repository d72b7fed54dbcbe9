import pytest
import torch

from flash_pack.flash_modules.evaluation.compare import side_by_side
from flash_pack.tests.core.made_videos import scene


def test_videos_stand_side_by_side_under_their_names() -> None:
    one_FHWC, other_FHWC = scene(), 1 - scene(look=3)
    both_FHWC = side_by_side([one_FHWC, other_FHWC], ["one", "the other"])
    label = 2 * 12
    assert both_FHWC.shape == (8, 64 + label, 96 + 8 + 96, 3)
    assert torch.equal(both_FHWC[:, label:, :96], one_FHWC)
    assert torch.equal(both_FHWC[:, label:, 104:], other_FHWC)
    assert both_FHWC[:, :, 96:104].min() == 1
    for part_FHWC in (both_FHWC[:, :label, :96], both_FHWC[:, :label, 104:]):
        assert part_FHWC.min() < 0.2 < 0.8 < part_FHWC.mean()  # letters on white
    assert not torch.equal(both_FHWC[:, :label, :96], both_FHWC[:, :label, 104:])


def test_all_get_the_height_of_the_first_and_a_shorter_one_keeps_its_last_frame() -> None:
    large_FHWC = torch.rand(3, 128, 100, 3)
    both_FHWC = side_by_side([scene(), large_FHWC], ["a", "b"])
    assert both_FHWC.shape == (8, 88, 96 + 8 + 50, 3)
    shown_FHWC = both_FHWC[:, 24:, 104:]
    assert torch.equal(shown_FHWC[2], shown_FHWC[7])
    assert not torch.equal(shown_FHWC[1], shown_FHWC[2])
    assert shown_FHWC[0].mean().item() == pytest.approx(large_FHWC[0].mean().item(), abs=0.01)


def test_names_of_any_letters_and_length_are_drawn() -> None:
    side_by_side([scene(), scene()], ["<b>\u0416\u4e2d\U0001f600" * 50, ""])


def test_less_than_two_videos_or_names_are_refused() -> None:
    with pytest.raises(ValueError, match="There are 1 videos and 1 names: connect two videos or more"):
        side_by_side([scene()], ["a"])
    with pytest.raises(ValueError, match="There are 2 videos and 1 names"):
        side_by_side([scene(), scene()], ["a"])
    with pytest.raises(ValueError, match="A video must be"):
        side_by_side([scene(), scene()[0]], ["a", "b"])
