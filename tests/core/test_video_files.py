"""Pictures in, videos out."""

from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from torch import Tensor

from flash_pack.flash_modules.files.video_files import (
    check_size,
    check_video_path,
    fit_picture,
    read_picture,
    video_size,
    write_video,
)

H, W, NUM_FRAMES = 32, 48, 5


def frames(num_frames: int = NUM_FRAMES) -> Iterator[Tensor]:
    """Frames that get brighter, with a colour gradient from left to right."""
    for index in range(num_frames):
        frame_HWC = torch.full((H, W, 3), index / num_frames)
        frame_HWC[..., 0] = torch.linspace(0, 1, W)
        yield frame_HWC


def read_video(path: Path) -> list[Image.Image]:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    with Image.open(path) as file:
        read = []
        for index in range(file.n_frames):
            file.seek(index)
            read.append(file.convert("RGB"))
        return read


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".MP4"])
def test_video_has_the_frames_that_were_given(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    write_video(path, frames(), fps=8)
    read = read_video(path.rename(path.with_suffix(suffix.lower())))
    assert len(read) == NUM_FRAMES
    for picture, frame_HWC in zip(read, frames(), strict=True):
        assert picture.size == (W, H)
        values_HWC = torch.tensor(list(picture.tobytes())).reshape(H, W, 3) / 255
        assert float((values_HWC - frame_HWC).abs().mean()) < 0.06
    assert [file.suffix.lower() for file in tmp_path.iterdir()] == [suffix.lower()]


def test_mp4_plays_everywhere_at_the_asked_speed(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", frames(), fps=12)
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12


def test_a_name_without_ending_is_a_folder_of_exact_pictures(tmp_path: Path) -> None:
    check_video_path(tmp_path / "video")
    write_video(tmp_path / "video", frames(), fps=8)
    read = [read_picture(path) for path in sorted((tmp_path / "video").iterdir())]
    assert len(read) == NUM_FRAMES
    for picture, frame_HWC in zip(read, frames(), strict=True):
        assert torch.equal(fit_picture(picture, (W, H))[0], (frame_HWC * 255).round() / 255)
    with pytest.raises(ValueError, match="is a folder: give the name of a file in it, or of a folder"):
        check_video_path(tmp_path / "video")


def test_interruption_leaves_no_folder(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Tensor]:
        yield from frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "video", interrupted(), fps=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_interruption_leaves_the_old_file(tmp_path: Path, suffix: str, stop: type[BaseException]) -> None:
    def interrupted() -> Iterator[Tensor]:
        yield from frames(3)
        raise stop

    path = tmp_path / f"video{suffix}"
    path.write_text("old")
    with pytest.raises(stop):
        write_video(path, interrupted(), fps=8)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_picture_is_cut_to_the_centre_and_fills_the_size() -> None:
    picture = Image.new("RGB", (300, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))
    image_1HWC = fit_picture(picture, (64, 64))
    assert image_1HWC.shape == (1, 64, 64, 3)
    assert torch.allclose(image_1HWC, torch.tensor([0.0, 0.0, 1.0]), atol=0.05)


def test_picture_of_the_right_size_keeps_its_values() -> None:
    values = torch.randint(0, 256, (H, W, 3), dtype=torch.uint8)
    image_1HWC = fit_picture(Image.fromarray(values.numpy()), (W, H))
    assert torch.equal(image_1HWC[0], values.float() / 255)


def test_picture_is_turned_upright_and_loses_its_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGBA", (40, 20)).save(tmp_path / "picture.png", exif=exif)
    picture = read_picture(tmp_path / "picture.png")
    assert (picture.size, picture.mode) == ((20, 40), "RGB")


@pytest.mark.parametrize(
    ("picture", "size"),
    [((512, 512), (512, 512)), ((100, 61), (96, 56)), ((4000, 3000), (584, 440)), ((50, 8), (48, 8))],
)
def test_size_of_the_video_follows_the_picture(picture: tuple[int, int], size: tuple[int, int]) -> None:
    assert video_size(picture, multiple=8) == size


def test_picture_without_room_for_a_video_is_refused() -> None:
    with pytest.raises(ValueError, match="The picture is 300 x 7, too small or too narrow"):
        video_size((300, 7), multiple=8)


@pytest.mark.parametrize(
    ("size", "near"), [((500, 512), "496 x 512"), ((512, 3), "512 x 8"), ((0, 8), "8 x 8")]
)
def test_size_that_is_no_multiple_is_refused(size: tuple[int, int], near: str) -> None:
    check_size((512, 384), multiple=8)
    with pytest.raises(ValueError, match=f"not a multiple of 8 on both sides: use {near}"):
        check_size(size, multiple=8)


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    text, cut = tmp_path / "picture.png", tmp_path / "cut.png"
    text.write_text("no picture")
    Image.effect_noise((64, 64), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    for path in (text, cut, tmp_path, tmp_path / "missing.png"):
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            read_picture(path)


def test_places_where_no_video_can_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(ValueError, match=r"video\.avi is no video file that can be written"):
        check_video_path(tmp_path / "video.avi")
    with pytest.raises(ValueError, match=r"There is no folder .*missing"):
        check_video_path(tmp_path / "missing" / "video.mp4")
    with pytest.raises(ValueError, match=r"folder\.gif is a folder"):
        check_video_path(tmp_path / "folder.gif")
