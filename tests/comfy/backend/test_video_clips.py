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

from flash_pack.flash_modules.backends.comfy.sd15.train.options import TrainingOptions
from flash_pack.flash_modules.backends.comfy.video_clips import given_clips
from flash_pack.flash_modules.training.clips import clip_hashes
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
