"""`python -m flash_modules preview`: what is said of each clip, and the picture of frames and twins."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.training import clip_draw
from flash_pack.flash_modules.flash.training import preview as preview_file
from flash_pack.flash_modules.flash.training.exam import draw_aside
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.sampling import SamplingConfig, seeded, take_frames
from flash_pack.tests.backends.command_line import run_command

W, H = 64, 48


def moving(num_frames: int, still_from: int = 1000) -> Iterator[Image.Image]:
    for i in range(num_frames):
        picture = Image.new("RGB", (W, H), "navy")
        place = 3 * min(i, still_from) % 50
        picture.paste("orange", (place, 8, place + 14, 40))
        yield picture


def write_clip(path: Path, num_frames: int = 20, *, fps: int = 25, still_from: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for picture in moving(num_frames, still_from):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def write_gif(path: Path, num_frames: int, size: tuple[int, int] = (W, H)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (picture.resize(size) for picture in moving(num_frames))
    first.save(path, save_all=True, append_images=rest, duration=80)


@pytest.fixture
def preview(tmp_path: Path) -> Callable[..., int]:
    """Runs the command on folders below tmp_path; a list gives an argument several times."""

    def run(*folders: str, **changes: object) -> int:
        clips = [tmp_path / folder for folder in folders]
        given = {"clips": clips, "size": 32, "frames": 5, "out": tmp_path / "sheet.png", **changes}
        return run_command("preview", given)

    return run


def test_lines_and_picture_tell_what_is_taken(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "high_jump" / "a.mp4")
    write_clip(tmp_path / "high_jump" / "bb.mp4")
    (tmp_path / "high_jump" / "bb.txt").write_text("a boy jumps")
    (tmp_path / "high_jump" / "c.mp4").touch()
    write_clip(tmp_path / "run" / "a.mp4")
    assert preview("high_jump", "run") == 0
    found = find_clips([tmp_path / "high_jump", tmp_path / "run"]).used
    config = SamplingConfig(num_frames=5)
    starts = [take_frames(clip, config, seeded(0, "preview", i)).indices[0] for i, clip in enumerate(found)]
    ends = [start + 16 for start in starts]
    assert capsys.readouterr().out.splitlines() == [
        f"high_jump/a.mp4   64x48, 20 frames, 0.8 s, 25 fps -> frames {starts[0]} to {ends[0]} at 6.25 fps, "
        "0.7 s: 'high jump'",
        f"high_jump/bb.mp4  64x48, 20 frames, 0.8 s, 25 fps -> frames {starts[1]} to {ends[1]} at 6.25 fps, "
        "0.7 s: 'a boy jumps'",
        f"run/a.mp4         64x48, 20 frames, 0.8 s, 25 fps -> frames {starts[2]} to {ends[2]} at 6.25 fps, "
        "0.7 s: 'run'",
        "high_jump/c.mp4   skipped: the file is empty (0 bytes)",
        "3 of 4 clips used: 'high jump' 2, 'run' 1.",
        f"Wrote {tmp_path / 'sheet.png'}",
    ]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 + 5 * 96 + 8, 8 + 3 * (18 + 2 * 96 + 8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["high_jump", "run", "sheet.png"]


def test_picture_shows_originals_above_their_twins(
    preview: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tile is one frame of one video: here grey by its place, and the twin red."""

    def pair(
        video_FCHW: torch.Tensor, shape: tuple[int, int], drawn: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        grey_FCHW = torch.linspace(0, 0.8, len(video_FCHW)).view(-1, 1, 1, 1).expand(-1, 3, *shape)
        red_FCHW = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(len(video_FCHW), 3, *shape)
        return grey_FCHW, red_FCHW

    monkeypatch.setattr(clip_draw, "augmented_pair", pair)
    write_clip(tmp_path / "jump" / "a.mp4")
    assert preview("jump") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        for i in range(5):
            assert sheet.getpixel((8 + 96 * i + 48, 8 + 18 + 48)) == (51 * i,) * 3
            assert sheet.getpixel((8 + 96 * i + 48, 8 + 18 + 96 + 48)) == (255, 0, 0)


def test_same_seed_gives_the_same_picture(preview: Callable[..., int], tmp_path: Path) -> None:
    write_clip(tmp_path / "jump" / "a.mp4")
    pictures = []
    for seed in (3, 3, 4):
        assert preview("jump", seed=seed) == 0
        pictures.append((tmp_path / "sheet.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("clip", "changes", "note"),
    [
        ({"still_from": 0}, {}, "! nothing moves in it: take it away"),
        ({"still_from": 10, "num_frames": 17}, {}, "! 1 of 5 frames repeat the one before: cut pauses"),
        ({"num_frames": 3}, {}, "! too few frames at even times: 2 are taken twice or more"),
        ({"num_frames": 60}, {"sampling": "whole"}, "! 1.7 frames per second show a motion in steps"),
        ({}, {"size": 64}, "! smaller than 64 pixels, and so made larger"),
    ],
)
def test_clips_to_mend_are_named(
    preview: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    clip: dict[str, int],
    changes: dict[str, object],
    note: str,
) -> None:
    write_clip(tmp_path / "jump" / "a.mp4", **clip)
    assert preview("jump", **changes) == 0
    notes = [line.strip() for line in capsys.readouterr().out.splitlines() if "!" in line]
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_clips_that_differ_are_named(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "jump" / "a.mp4")
    write_clip(tmp_path / "jump" / "b.mp4", num_frames=9)
    write_gif(tmp_path / "jump" / "c.gif", num_frames=9, size=(40, 40))
    assert preview("jump") == 0
    said = capsys.readouterr().out
    assert "! 2 of 64x48, 1 of 40x40: the clips differ in size. All are cut to squares of 32 pixels." in said
    assert "! Clips are seen at 6.25 (jump/a.mp4) to 12.5 (jump/" in said


def test_very_many_clips_are_all_listed_and_some_shown(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gif(tmp_path / "run" / "0.gif", num_frames=2)
    (tmp_path / "jump").mkdir()
    for i in range(500):
        (tmp_path / "jump" / f"{i}.gif").symlink_to(tmp_path / "run" / "0.gif")
    assert preview("jump", "run", frames=2) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "64x48" in line]
    assert [line.split()[0] for line in lines] == [f"jump/{i}.gif" for i in range(500)] + ["run/0.gif"]
    assert "! 501 clips are very many: 4 to 16 for each action are enough" in said
    assert "The picture shows 16 of the 501 clips." in said
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 8 + 16 * (18 + 2 * 96 + 8)


def test_arguments_reach_the_sampling(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "jump" / "a.mp4")
    write_clip(tmp_path / "run" / "a.mp4")
    assert preview("jump", "run", stride=2, prompt=["a man jumps", "a man runs"]) == 0
    said = capsys.readouterr().out
    assert "at 12.5 fps, 0.4 s: 'a man jumps'" in said
    assert "at 12.5 fps, 0.4 s: 'a man runs'" in said
    assert preview("jump", sampling="whole", stride=2) == 0
    assert "frames 0 to 19 at 5.26 fps, 0.8 s: 'jump'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "sheet.jpg"}, "sheet.jpg is no name for the picture: let it end in .png."),
        ({"out": "missing/sheet.png"}, "There is no folder"),
        ({"size": 30}, "`size` must be a multiple of 8 pixels, but it is 30"),
        ({"frames": 1}, "A video needs 2 frames or more"),
        ({"stride": 0}, "`stride` must be 1 or more"),
        ({"seed": -1}, "--seed must lie between 0 and 2^64 - 1"),
        ({"prompt": ["a", "b"]}, "There are 2 prompts for 1 folders"),
        ({"clips": "missing"}, "There is no folder missing: give a folder with clips in it."),
    ],
)
def test_mistakes_are_told_before_a_clip_is_read(
    preview: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    message: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a clip was read")

    (tmp_path / "jump").mkdir()
    monkeypatch.setattr(cli.clips, "preview_clips", fail)
    assert preview("jump", **changes) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["jump"]


def test_folder_without_a_clip_that_can_be_used_is_an_error(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jump").mkdir()
    (tmp_path / "jump" / "a.mp4").touch()
    assert preview("jump") == 2
    said = capsys.readouterr().err
    assert "jump can be used:\n  a.mp4: the file is empty (0 bytes)" in said
    assert not (tmp_path / "sheet.png").exists()


def test_lines_say_which_clip_is_kept_aside(
    preview: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        write_clip(tmp_path / "jump" / f"{number}.mp4")
    assert preview("jump") == 0
    lines = capsys.readouterr().out.splitlines()
    (kept,) = draw_aside(find_clips([tmp_path / "jump"]).used, seed=0)
    said = [i for i, line in enumerate(lines) if "kept aside for the exam" in line]
    assert len(said) == 1
    assert lines[said[0] - 1].startswith(f"jump/{kept}.mp4")


def test_oblong_videos_in_real_time_are_shown_as_they_are_seen(tmp_path: Path) -> None:
    write_clip(tmp_path / "jump" / "a.mp4", 60)
    lines: list[str] = []
    sheet = preview_file.preview_clips(
        find_clips([tmp_path / "jump"]),
        SamplingConfig(num_frames=49, fps=20.0, frames_step=4),
        AugmentConfig(size=32, width=64),
        seed=0,
        on_line=lines.append,
    )
    assert sheet.width == 2 * 8 + 32 * 192  # no more than 32 tiles
    assert "60 frames, 2.4 s, 25 fps -> frames" in lines[0]
    assert "at 20 fps, 2.2 s: 'jump'" in lines[0]
    assert "it is short: 45 of 49 frames are taken" in lines[1]
