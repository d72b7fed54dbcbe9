"""Clips that other nodes give: the frames that are seen, their names, and what is refused."""

import asyncio
from fractions import Fraction
from pathlib import Path

import execution
import folder_paths
import nodes
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from einops import rearrange

from flash_pack.flash_modules.backends.comfy.sd15.train.options import TrainingOptions
from flash_pack.flash_modules.backends.comfy.video_clips import given_clips
from flash_pack.flash_modules.files.video_files import as_picture
from flash_pack.flash_modules.training.clips import clip_hashes
from flash_pack.tests.core.drawn_twins import drawn
from flash_pack.tests.core.small_clips import write_video

NOWHERE = Path("nowhere")


def made_video(num_frames: int = 6, fps: int = 8, shade: float = 0.0, size: tuple[int, int] = (10, 14)):
    """A tensor VIDEO whose frames are all different."""
    images_FHWC = torch.arange(num_frames)[:, None, None, None].expand(-1, *size, 3) / 255 + shade
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=images_FHWC, frame_rate=Fraction(fps), audio=None)
    )


def test_frames_and_times_are_the_videos_own():
    (clip,) = given_clips(NOWHERE, "jumping", [made_video()]).used
    assert (clip.num_frames, clip.size, clip.fps, clip.duration) == (6, (14, 10), 8.0, 0.75)
    video_FCHW = clip.read([0, 3, 3, 5])
    assert video_FCHW.shape == (4, 3, 10, 14)
    assert (video_FCHW[:, 0, 0, 0] * 255).round().tolist() == [0, 3, 3, 5]


def test_frames_with_a_longer_short_side_are_made_smaller():
    (clip,) = given_clips(NOWHERE, "jumping", [made_video(size=(20, 30))]).used
    assert clip.read([1], short_side=10).shape == (1, 3, 10, 15)
    assert clip.read([1], short_side=25).shape == (1, 3, 20, 30)


def test_a_trimmed_file_is_another_clip(tmp_path):
    whole = InputImpl.VideoFromFile(str(write_video(tmp_path / "a.mp4", 20)))
    trimmed = whole.as_trimmed(0.2, 0.4)
    clips = given_clips(NOWHERE, "jumping", [whole, trimmed]).used
    assert [clip.num_frames for clip in clips] == [20, 10]
    assert torch.equal(clips[1].read([0]), clips[0].read([5]))
    assert len(set(clip_hashes(clips))) == 2
    assert clip_hashes(clips) == clip_hashes(given_clips(NOWHERE, "jumping", [whole, trimmed]).used)


def test_another_rate_or_picture_is_another_clip():
    videos = [made_video(fps=8), made_video(fps=9), made_video(shade=1 / 255)]
    assert len(set(clip_hashes(given_clips(NOWHERE, "jumping", videos).used))) == 3


def test_a_video_is_decoded_once_for_entries_that_follow_one_another(monkeypatch):
    videos = [made_video(), made_video(shade=0.5)]
    clips = given_clips(NOWHERE, "jumping", videos).used
    decoded = []
    plain = InputImpl.VideoFromComponents.get_components
    monkeypatch.setattr(
        InputImpl.VideoFromComponents,
        "get_components",
        lambda self: (decoded.append(videos.index(self)), plain(self))[1],
    )
    for clip in (clips[0], clips[0], clips[1], clips[1], clips[0]):
        clip.read([1, 2], 9)
    assert decoded == [0, 1, 0]


def test_what_is_transparent_becomes_white(monkeypatch):
    parts = Types.VideoComponents(
        images=torch.zeros(2, 4, 4, 3), frame_rate=Fraction(8), audio=None, alpha=torch.zeros(2, 4, 4, 1)
    )
    monkeypatch.setattr(InputImpl.VideoFromComponents, "get_components", lambda self: parts)
    (clip,) = given_clips(NOWHERE, "jumping", [made_video()]).used
    assert (clip.read([0]) == 1.0).all()


def test_an_empty_text_stands_for_the_prompt():
    videos = [made_video(), made_video(shade=0.3)]
    for texts, expected in (
        (["a girl  jumps\n", ""], ["a girl jumps", "jumping"]),
        ([], ["jumping", "jumping"]),
        (["a boy jumps"], ["a boy jumps", "a boy jumps"]),
    ):
        used = given_clips(NOWHERE, " jumping ", videos, texts).used
        assert [clip.caption for clip in used] == expected


def test_texts_of_another_number_are_refused():
    videos = [made_video(), made_video(shade=0.3), made_video(shade=0.6)]
    with pytest.raises(ValueError, match="There are 2 texts for 3 videos: connect both from one node"):
        given_clips(NOWHERE, "", videos, ["one", "two"])


def test_a_video_without_words_is_refused():
    with pytest.raises(ValueError, match="A video has no text, and there is no `prompt`: write what is seen"):
        given_clips(NOWHERE, "", [made_video()], [""])


def test_repeats_and_pictures_are_left_out():
    """Core's node repeats videos of a folder named 3_jump three times."""
    clips = given_clips(NOWHERE, "jumping", [made_video(), made_video(1, shade=0.5), made_video()])
    assert [clip.path.name for clip in clips.used] == ["video 1"]
    assert [(one.path.name, one.reason) for one in clips.skipped] == [
        ("video 2", "a clip needs 2 frames or more, but this has 1"),
        ("video 3", "it is video 1 again"),
    ]


def test_if_none_can_be_used_it_says_why(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    broken = InputImpl.VideoFromFile(str(tmp_path / "a.mp4"))
    with pytest.raises(ValueError, match=r"None of the videos can be used:\n  video 1: it cannot be read"):
        given_clips(NOWHERE, "jumping", [broken])


@pytest.fixture
def graph(tmp_path, monkeypatch) -> dict:
    """Core's node with a folder of videos, and Preview Clips behind it, where no folder is chosen."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    for name in ("a", "b"):
        write_video(tmp_path / "jumps" / f"{name}.mp4", 20 if name == "a" else 24)
    (tmp_path / "jumps" / "b.txt").write_text("a boy jumps")
    given = {"clips": "(none)", "prompt": "a girl jumps", "preset": "draft"}
    links = {"videos": ["1", 0], "texts": ["1", 1]}
    return {
        "1": {"class_type": "LoadVideoTextDataSetFromFolder", "inputs": {"folder": "jumps"}},
        "2": {"class_type": "FLASH_PreviewClips", "inputs": given | links},
    }


def test_a_graph_needs_no_folder_where_videos_are_connected(node_classes, graph):
    asyncio.run(nodes.init_builtin_extra_nodes())
    good, error, _, node_errors = asyncio.run(execution.validate_prompt("test", graph, None))
    assert (good, error, node_errors) == (True, None, {})
    del graph["2"]["inputs"]["videos"]
    _, _, _, node_errors = asyncio.run(execution.validate_prompt("test", graph, None))
    assert "There is no folder '(none)' in ComfyUI's input folder" in str(node_errors)


def test_preview_shows_what_is_taken_of_cores_videos(node_classes, graph):
    asyncio.run(nodes.init_builtin_extra_nodes())
    videos, texts = node_classes["LoadVideoTextDataSetFromFolder"].execute("jumps").result
    inputs = {name: [value] for name, value in graph["2"]["inputs"].items()}
    inputs |= {"videos": videos, "texts": texts, "options": [TrainingOptions(size=64, frames=4)]}
    sheet, report = node_classes["FLASH_PreviewClips"].execute(**inputs).result
    lines = report.splitlines()
    assert lines[0].startswith("videos/video 1  96x64, 20 frames, 0.8 s, 25 fps -> frames ")
    assert lines[0].endswith(" at 6.25 fps, 0.5 s: 'a girl jumps'")
    assert lines[1].endswith("'a boy jumps'")
    assert sheet.shape[0] == 1


def moving_video(way: int, look: int, num_frames: int = 24, fps: int = 8):
    images_FHWC = rearrange(drawn(way, look, num_frames), "f c h w -> f h w c")
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=images_FHWC, frame_rate=Fraction(fps), audio=None)
    )


def test_each_video_has_the_twin_in_its_place_also_where_one_is_left_out():
    videos = [moving_video(0, 10), made_video(1), moving_video(2, 12)]
    twins = [moving_video(0, 20), made_video(1), moving_video(2, 22)]
    clips = given_clips(NOWHERE, "jumping", videos, twins=twins)
    assert [clip.path.name for clip in clips.used] == ["video 1", "video 3"]
    assert [clip.twin.path.name for clip in clips.used] == ["twin 1", "twin 3"]
    for clip, way in zip(clips.used, (0, 2), strict=True):
        expected_FCHW = drawn(way, 20 + way)[[3, 9]]
        torch.testing.assert_close(clip.twin.read([3, 9]), expected_FCHW, atol=1 / 255, rtol=0)
        assert clip.notes == ()
    (alone,) = given_clips(NOWHERE, "jumping", videos[:1]).used
    assert alone.twin is None


def test_clips_of_a_folder_have_twins_in_their_order(tmp_path):
    for name, way in (("a", 0), ("b", 1)):
        folder = tmp_path / "jump" / name
        folder.mkdir(parents=True)
        for f, image_CHW in enumerate(drawn(way, 10 + way)):
            as_picture(rearrange(image_CHW, "c h w -> h w c")).save(folder / f"{f}.png")
    lasting = [clip.fps for clip in given_clips(tmp_path / "jump", "").used]
    assert lasting == [pytest.approx(lasting[0])] * 2
    twins = [moving_video(way, 20 + way, fps=round(lasting[0])) for way in (0, 1)]
    used = given_clips(tmp_path / "jump", "", twins=twins).used
    assert [clip.twin.path.name for clip in used] == ["twin 1", "twin 2"]
    with pytest.raises(ValueError, match=r"The twin of a fits worse than that of b: give twins in the order"):
        given_clips(tmp_path / "jump", "", twins=twins[::-1])
    with pytest.raises(ValueError, match="There are 1 twins for 2 clips: give one of each clip"):
        given_clips(tmp_path / "jump", "", twins=twins[:1])


def test_as_many_twins_as_videos_are_asked_for_and_each_has_to_be_one():
    videos = [moving_video(0, 10), made_video(1)]
    with pytest.raises(ValueError, match="There are 1 twins for 2 clips: give one of each clip"):
        given_clips(NOWHERE, "jumping", videos, twins=[moving_video(0, 20)])
    with pytest.raises(
        ValueError, match=r"The twin 1 cannot be used: a clip needs 2 frames or more, .*\. Mend"
    ):
        given_clips(NOWHERE, "jumping", videos, twins=[made_video(1), made_video(1)])


def test_clips_and_twins_that_are_read_in_turns_are_decoded_once(monkeypatch):
    video, twin = moving_video(0, 10), moving_video(0, 20)
    (clip,) = given_clips(NOWHERE, "jumping", [video], twins=[twin]).used
    decoded = []
    plain = InputImpl.VideoFromComponents.get_components
    monkeypatch.setattr(
        InputImpl.VideoFromComponents, "get_components", lambda self: (decoded.append(self), plain(self))[1]
    )
    for _ in range(3):
        clip.read([1, 2], 9)
        clip.twin.read([1, 2], 9)
    assert decoded == [video, twin]


@pytest.mark.parametrize(
    ("node_id", "more"),
    [
        ("FLASH_PreviewClips", {"preset": ["draft"]}),
        ("FLASH_PreviewClipsWan", {"width": [64], "height": [64]}),
    ],
)
def test_previews_show_given_twins_as_they_are(node_classes, tmp_path, monkeypatch, node_id, more):
    """The negative of what is seen of the clip: no colour of an augmented twin."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    video_FCHW = drawn(0, 10)
    videos = [
        InputImpl.VideoFromComponents(
            Types.VideoComponents(
                images=rearrange(one_FCHW, "f c h w -> f h w c"), frame_rate=Fraction(24), audio=None
            )
        )
        for one_FCHW in (video_FCHW, 1 - video_FCHW)
    ]
    inputs = {"clips": ["(none)"], "prompt": ["jumping"], "videos": videos[:1], "twins": videos[1:], **more}
    sheet, report = node_classes[node_id].execute(**inputs).result
    original, twin = sheet[0, 26 : 26 + 96, 8 : 8 + 4 * 96], sheet[0, 26 + 96 : 26 + 192, 8 : 8 + 4 * 96]
    assert (original + twin - 1).abs().max() < 0.02
    assert original.std() > 0.05
    assert "'jumping'" in report


@pytest.mark.parametrize(
    "node_id",
    ["FLASH_PreviewClips", "FLASH_PreviewClipsWan", "FLASH_LearnAction", "FLASH_LearnActionWan"],
)
def test_twins_are_the_last_input_and_may_be_left_out(node_classes, node_id):
    inputs = node_classes[node_id].define_schema().inputs
    assert (inputs[-1].id, inputs[-1].optional, inputs[-1].io_type) == ("twins", True, "VIDEO")
    assert node_classes[node_id].define_schema().is_input_list
