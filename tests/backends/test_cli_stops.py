"""Commands that are stopped, refused early, or have no room: what is kept, and what is said."""

import contextlib
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.cli.run import Stop
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.training import latent_pool
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_models import write_gif
from flash_pack.tests.disks import small_disk


@pytest.fixture(scope="module")
def files(training_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in ("base", "motion.safetensors", "picture.png"):
        (folder / name).symlink_to(training_files / name)
    write_gif(folder / "jump" / "a.gif", "orange")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.train, "check_memory", lambda training: None)


@pytest.fixture
def train(files: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*flags: str, **changes: object) -> int:
        arguments = {
            "base": files / "base",
            "motion": files / "motion.safetensors",
            "clips": files / "jump",
            "out": "wave",
            "runs": tmp_path / "runs",
            "frames": 3,
            "size": 16,
            "steps": 5,
            "pool": 1,
            "lr": 1e-3,
            "device": "cpu",
            **changes,
        }
        return run_command("train", arguments, *flags)

    return run


@pytest.fixture
def animate(files: Path, tmp_path: Path) -> Callable[..., int]:
    def run(**changes: object) -> int:
        arguments = {
            "base": files / "base",
            "motion": files / "motion.safetensors",
            "image": files / "picture.png",
            "prompt": "a girl runs",
            "frames": 2,
            "steps": 1,
            "size": "32x16",
            "device": "cpu",
            "out": tmp_path / "video.gif",
            **changes,
        }
        return run_command("animate", arguments)

    return run


def ctrl_c(times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, times: int) -> None:
    """Press Ctrl-C within one of the calls of a function: once it has begun, and before it ends."""
    plain, calls = getattr(owner, name), []

    def pressed(*args: object, **kwargs: object) -> object:
        calls.append(None)
        if len(calls) == call:
            ctrl_c(times)
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, pressed)


def newest(tmp_path: Path) -> int:
    run = tmp_path / "runs" / "wave"
    return max(int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("owner", "name", "call", "times", "step"),
    [
        (torch.optim.AdamW, "step", 2, 1, 2),
        (torch.optim.AdamW, "step", 2, 2, 2),  # in the midst of the change of the weights
        (torch.optim.AdamW, "step", 2, 5, 2),
        (cli.progress.Board, "step", 3, 2, 3),  # between two steps
        (cli.progress.Bars, "step", 1, 2, 1),
        (RunFolder, "write", 1, 2, 2),  # in the midst of the writing
        (latent_pool.LatentPool, "entry", 3, 2, 2),  # in the midst of a step
    ],
)
def test_ctrl_c_twice_keeps_all_whole_steps_and_their_result(
    train, tmp_path: Path, monkeypatch, capsys, owner: Any, name: str, call: int, times: int, step: int
) -> None:
    interrupt(monkeypatch, owner, name, call, times)
    status = train("--save-steps", "2" if name == "write" else "500")
    said = capsys.readouterr()
    assert newest(tmp_path) == step
    result = tmp_path / "runs" / "wave" / "wave.safetensors"
    assert json.loads(read_tensors(result)[1]["flash.steps"]) == step
    assert f"after {step} of 5 steps" in said.out
    if times == 1:
        assert status == 0
    else:
        assert status == 130
        assert f"Stopped. Checkpoint {step} is kept in " in said.err
    monkeypatch.undo()
    assert train() == 0


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_while_the_result_is_written_does_not_break_it_off(
    train, tmp_path: Path, monkeypatch, capsys, times: int
) -> None:
    """Of a run that was stopped, and of one that came to its end."""
    interrupt(monkeypatch, cli.train.ActionTraining, "write", 1, times)
    assert train(steps=2) == (130 if times > 1 else 0)
    assert (tmp_path / "runs" / "wave" / "wave.safetensors").is_file()
    assert "Nothing" not in capsys.readouterr().err


def test_ctrl_c_while_clips_are_encoded_ends_soon(train, tmp_path: Path, monkeypatch, capsys) -> None:
    interrupt(monkeypatch, latent_pool.LatentPool, "_make", 1, 1)
    assert train(pool=50) == 130
    assert "Stopped. Nothing was learned yet; " in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/wave/checkpoint-*"))


def test_ctrl_c_while_clips_are_encoded_again_keeps_what_was_learned(
    train, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert train(steps=2) == 0
    result = (tmp_path / "runs" / "wave" / "wave.safetensors").read_bytes()
    interrupt(monkeypatch, latent_pool.LatentPool, "_make", 1, 2)
    assert train() == 130
    assert "Stopped. Checkpoint 2 is kept in " in capsys.readouterr().err
    assert (tmp_path / "runs" / "wave" / "wave.safetensors").read_bytes() == result


def test_ctrl_c_before_anything_is_written_says_so(
    train, animate, tmp_path: Path, monkeypatch, capsys
) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    for command in (cli.train, cli.animate):
        monkeypatch.setattr(command, "load_base", pressed)
    assert train() == animate() == 130
    assert capsys.readouterr().err.count("Stopped. Nothing was written.") == 2
    assert not list(tmp_path.iterdir())


def test_ctrl_c_after_the_video_is_written_says_so(animate, tmp_path: Path, monkeypatch, capsys) -> None:
    write = cli.animate.write_video

    def pressed(*args: object) -> None:
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.animate, "write_video", pressed)
    assert animate() == 130
    assert f"Stopped. {tmp_path / 'video.gif'} was written." in capsys.readouterr().err


def test_a_shield_holds_back_a_second_signal_and_no_error() -> None:
    stop = Stop()
    with stop.shield():
        stop.note(signal.SIGINT, None)
    assert stop()

    def again(then: Exception | None) -> None:
        with stop.shield(), stop.shield():
            stop.note(signal.SIGINT, None)
            stop.note(signal.SIGINT, None)
            if then:
                raise then

    with pytest.raises(KeyboardInterrupt):
        again(None)
    with pytest.raises(OSError, match="full"):
        again(OSError("full"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a model was read")

    for command, names in (
        (cli.train, ("read_motion", "load_base", "find_base")),
        (cli.train_decoder, ("load_vae",)),
        (cli.animate, ("read_motion", "load_base", "find_base")),
    ):
        for name in names:
            monkeypatch.setattr(command, name, fail)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["train", "train-decoder"])
@pytest.mark.parametrize("change", ["name", "long", "runs is a file", "result is a folder"])
def test_the_place_of_a_run_is_checked_before_a_model_is_read(
    files: Path, tmp_path: Path, capsys, command: str, change: str
) -> None:
    arguments: dict[str, object] = {"clips": files / "jump", "runs": tmp_path / "runs", "out": "wave"}
    models = {"train": {"base": files / "base", "motion": files / "motion.safetensors"}}
    arguments |= models.get(command, {"vae": files / "base"})
    if change == "runs is a file":
        (tmp_path / "runs").touch()
    elif change == "result is a folder":
        (tmp_path / "runs" / "wave" / "wave.safetensors").mkdir(parents=True)
    else:
        arguments["out"] = "../away" if change == "name" else "a" * 300
    assert run_command(command, arguments) == 2
    sentence_of(capsys.readouterr().err)


@pytest.mark.usefixtures("no_model")
def test_a_folder_that_takes_nothing_is_told_before_a_model_is_read(
    animate, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a system administrator may write anywhere
    assert animate() == 2
    assert "Nothing can be written into" in sentence_of(capsys.readouterr().err)
    (tmp_path / "video.gif").symlink_to(tmp_path / "missing" / "video.gif")
    assert animate() == 2
    assert "There is no folder" in sentence_of(capsys.readouterr().err)


def test_the_video_goes_where_a_link_points(animate, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "video.gif").symlink_to(tmp_path / "there" / "mine.gif")
    assert animate() == 0
    assert (tmp_path / "video.gif").is_symlink()
    with Image.open(tmp_path / "there" / "mine.gif") as video:
        assert video.n_frames == 2


def test_a_second_training_of_one_name_is_refused(train, tmp_path: Path, monkeypatch, capsys) -> None:
    said: list[str] = []
    save = cli.progress.Board.step

    def second(board: object, progress: object) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(cli.train, "check_memory", lambda training: None)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            assert train() == 2
        said.append(err.getvalue())
        save(board, progress)

    monkeypatch.setattr(cli.progress.Board, "step", second)
    assert train() == 0
    assert "error: The run 'wave' is being trained by another process" in said[0]
    assert newest(tmp_path) == 5


@pytest.mark.parametrize("kilobytes", [20, 150, 700, 1300])
def test_training_on_a_full_disk_is_one_sentence_and_keeps_what_it_can(
    train, tmp_path: Path, capsys, kilobytes: int
) -> None:
    with small_disk(tmp_path / "disk", kilobytes * 1024) as disk:
        assert train("--save-steps", "1", "--keep", "9", runs=disk, steps=40) == 2
        said = sentence_of(capsys.readouterr().err)
        assert "could not be written (No space left on device): make room on its disk" in said
        run = disk / "wave"
        for path in run.glob("checkpoint-*"):
            assert read_tensors(path / "optimizer.safetensors")
        assert not list(run.glob(".flash-*"))


def test_a_full_disk_of_tensorboard_is_no_traceback(tmp_path: Path, capfd) -> None:
    told = pytest.raises(OSError, match=r"tensorboard could not be written .*make room")
    with small_disk(tmp_path / "disk", 8192) as disk, told:
        fill_board(cli.progress.Board(disk))
    assert "Traceback" not in capfd.readouterr().err


def fill_board(board: cli.progress.Board) -> None:
    with board:
        for step in range(1, 2000):
            board.step(cli.progress.Progress(step=step, seconds=step, loss=1.0))


def test_help_says_what_a_kill_can_cost(capsys) -> None:
    for command in ("train", "train-decoder"):
        with pytest.raises(SystemExit, match="0"):
            cli.main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "(default 500); one is also written after 10 minutes. A kill or a power cut costs at" in said


NAMES = ["踊る人🎬", "naïve façade", b"broken \xff name".decode(errors="surrogateescape")]


def said_on_a_small_console(run: Callable[[], int]) -> tuple[int, str]:
    """Status and output on a console of Windows' Western Europe, which is strict."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run()
    return status, "".join(stream.buffer.getvalue().decode("cp1252") for stream in (out, err))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["preview", "train"])
def test_names_that_cannot_be_shown_are_replaced(
    train, files: Path, tmp_path: Path, name: str, command: str
) -> None:
    clips = tmp_path / "clips"
    write_gif(clips / f"{name}.gif", "orange")
    (clips / f"{name}.txt").write_text("a girl runs")
    (clips / f"{name}2.gif").write_bytes(b"GIF89a")
    arguments = {"clips": clips, "out": tmp_path / "sheet.png", "size": 16, "frames": 3}
    commands = {
        "preview": lambda: run_command("preview", arguments),
        "train": lambda: train(clips=clips, steps=1),
    }
    status, said = said_on_a_small_console(commands[command])
    assert status == 0, said
    shown = name.encode("cp1252", errors="replace").decode("cp1252")
    assert f"{shown}2.gif" in said


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_clips_may_have_any_name(train, tmp_path: Path, name: str) -> None:
    write_gif(tmp_path / name / "a.gif", "orange")
    status, said = said_on_a_small_console(lambda: train(clips=tmp_path / name, steps=1))
    if "\udcff" in name:
        assert status == 2
        assert "is no text: it holds bytes of a name that is not UTF-8. Write another" in said
    else:
        assert status == 0, said


def test_an_error_of_encoding_is_no_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch, train) -> None:
    def fail(*_: object) -> None:
        "\udcff".encode()

    monkeypatch.setattr(cli.train, "find_base", fail)
    with pytest.raises(UnicodeEncodeError):
        train()


@pytest.mark.parametrize("name", ["weight_decay", "max_norm", "save_seconds", "eps"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_settings_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        LoopConfig(**{name: value})
