from fractions import Fraction

import pytest
import torch
from comfy_api.latest import InputImpl, Types

from flash_pack.flash_modules.evaluation.compare import side_by_side


def test_pictures_and_videos_are_put_side_by_side_in_their_order(node_classes) -> None:
    node = node_classes["FLASH_CompareVideos"]
    torch.manual_seed(0)
    one_FHWC, two_FHWC = torch.rand(3, 32, 48, 3), torch.rand(2, 32, 40, 3)
    components = Types.VideoComponents(images=two_FHWC, audio=None, frame_rate=Fraction(8))
    videos = {"video1": InputImpl.VideoFromComponents(components), "video0": one_FHWC, "video2": None}
    found = node.execute(videos=videos, names="before\n\n").result[0]
    assert torch.equal(found, side_by_side([one_FHWC, two_FHWC], ["before", "video 2"]))


def test_the_node_asks_for_two_videos_of_either_kind(node_classes) -> None:
    inputs = node_classes["FLASH_CompareVideos"].INPUT_TYPES()["required"]
    kind, options = inputs["videos"]
    assert kind == "COMFY_AUTOGROW_V3"
    assert options["template"]["min"] == 2
    assert next(iter(options["template"]["input"]["required"].values()))[0] == "IMAGE,VIDEO"


def test_one_video_alone_is_refused(node_classes) -> None:
    with pytest.raises(ValueError, match="There are 1 videos and 1 names: connect two videos or more"):
        node_classes["FLASH_CompareVideos"].execute(videos={"video0": torch.rand(2, 16, 16, 3)}, names="")
