"""What an action is learned from, from files: frames, captions, hashes, and the sheet that shows them."""

from pathlib import Path

import pytest
import torch
from einops import rearrange

from flash_pack.flash_modules.flexiact.training.sheet import draw_sheet, taken_line
from flash_pack.flash_modules.flexiact.training.source import one_clip, table_of_crops
from flash_pack.flash_modules.flexiact.training.views import ViewConfig
from flash_pack.tests.core.small_clips import H, W, frames_shown, write_folder, write_video

VIEW = ViewConfig(frames=9, height=H, width=W)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A video of 20 frames, one of 12, a table of both."""
    write_video(tmp_path / "long.mp4", 20)
    write_folder(tmp_path / "short", 12)
    (tmp_path / "crop.csv").write_text("long.mp4,2,11,8,0,one\nshort,0,12,16,0,two\nlong.mp4,1,20,8,0,one\n")
    return tmp_path


def test_a_tables_videos_are_one_view_each(clips: Path) -> None:
    source = table_of_crops(clips / "crop.csv", VIEW)
    first, second, third = source.videos()
    assert first.shape == (9, 3, H, W)
    assert frames_shown(first) == list(range(2, 11))
    assert set(frames_shown(second)) == {0, 2, 4, 6, 8, 10}
    assert frames_shown(third) == [1, 3, 5, 8, 10, 12, 15, 17, 19]
    assert (source.captions, source.caption_of) == (["one", "two"], [0, 1, 0])
    assert source.notes == [
        "short has 6 frames there, and some are shown twice to make 9.",
        "long.mp4: 9 of 19 frames, spread evenly.",
    ]


def test_a_run_knows_a_table_by_its_rows_and_videos(clips: Path) -> None:
    table, text = clips / "crop.csv", (clips / "crop.csv").read_text()
    sha256, settings = table_of_crops(table, VIEW).sha256, table_of_crops(table, VIEW).settings
    for change in (("2,11", "3,12"), ("0,12,16", "0,12,24"), ("two", "three")):
        table.write_text(text.replace(*change))
        assert table_of_crops(table, VIEW).settings != settings
        assert table_of_crops(table, VIEW).sha256 == sha256
    write_folder(clips / "other", 13)
    table.write_text(text.replace("short", "other"))
    assert table_of_crops(table, VIEW).settings == settings
    assert table_of_crops(table, VIEW).sha256 != sha256
    assert one_clip(clips / "long.mp4", "one", VIEW).settings == {}


def test_a_row_beyond_its_video_is_refused(clips: Path) -> None:
    (clips / "crop.csv").write_text("long.mp4,0,21,8,0,one")
    with pytest.raises(ValueError, match=r"Line 1 of crop\.csv goes up to frame 21, and long\.mp4 has 20"):
        table_of_crops(clips / "crop.csv", VIEW)


def test_the_sheet_shows_every_view_as_it_is_learned_from(clips: Path) -> None:
    source = one_clip(clips / "long.mp4", "one", VIEW)
    sheet = draw_sheet(source)
    assert sheet.size == (16 + 7 * 146, 8 + 12 * (18 + 96 + 8))
    pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
    pixels_HWC = pixels.view(sheet.height, sheet.width, 3) / 255
    for number, video_FCHW in enumerate(source.videos()):
        top = 8 + number * 122 + 18
        last_HWC = pixels_HWC[top : top + 96, 8 + 6 * 146 : 6 * 146 + 152]
        wanted = torch.nn.functional.adaptive_avg_pool2d(video_FCHW[-1], (96, 144))
        torch.testing.assert_close(last_HWC, rearrange(wanted, "c h w -> h w c"), atol=3e-3, rtol=0)


def test_a_turned_clip_stands_upright_and_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    write_video(path, prepare=lambda stream: stream.set_display_rotation(90))
    source = one_clip(path, "one", ViewConfig(frames=9, height=W, width=H, crop=1.0, columns=1, rows=1))
    assert f"turned.mp4: {H}x{W}, turned by 90 degrees, 20 frames" in taken_line(source.parts[0])
    (video_FCHW,) = source.videos()
    bar_FHW = video_FCHW[:, 1] - video_FCHW[:, 0] - video_FCHW[:, 2]
    rows = bar_FHW[:, :, -16:].mean(dim=2).argmax(dim=1).tolist()  # it moves up or down, as it is turned
    assert rows == sorted(rows, reverse=True)
    assert rows[0] - rows[-1] > 20
