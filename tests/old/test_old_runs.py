"""Runs that were begun before go on by the same command; with other settings they are refused."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flash_pack.flash_modules import cli
from flash_pack.tests.backends.command_line import sentence_of

CLOSE = 2e-3
"""Relative; on other processors we saw up to 6e-4 in the change of a tensor, and 4e-6 in a loss."""
NO_GRADIENT = ".attn.to_k.bias"
"""A softmax takes no notice of it, so it learns from rounding alone."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Continued:
    """A run as it was, as it is after its command was given again, and as it should be."""

    name: str
    before: Path
    after: Path
    expected: Path
    said: str

    @property
    def begun(self) -> Path:
        return newest(self.before)

    @property
    def ended(self) -> Path:
        return newest(self.after)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def newest(run: Path) -> Path:
    """The checkpoint of a run with the most steps."""
    return max(run.glob("checkpoint-*"), key=step_of)


def trained(folder: Path) -> Tensors:
    return load_file(folder / "trainable.safetensors")


def state(folder: Path) -> dict[str, float]:
    return json.loads((folder / "state.json").read_text())


def losses(run: Path) -> dict[int, float]:
    """By step, from the run's table."""
    rows = [line.split(",") for line in (run / "loss.csv").read_text().splitlines()]
    assert rows[0] == ["step", "seconds", "loss"]
    return {int(step): float(loss) for step, _, loss in rows[1:]}


@pytest.fixture(scope="module", params=["wave", "both", "details"])
def continued(
    request: pytest.FixtureRequest, commands: dict, unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> Continued:
    name = request.param
    folder = shutil.copytree(unpacked, tmp_path_factory.mktemp(name) / "old")
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        assert cli.main(commands["runs"][name]) == 0
    places = unpacked / "runs" / name, folder / "runs" / name, unpacked / "expected" / name
    return Continued(name, *places, said.getvalue())


def test_an_old_run_goes_on_from_its_checkpoint_to_its_end(continued: Continued) -> None:
    steps = step_of(continued.ended)
    assert f"Going on from step {step_of(continued.begun)}." in continued.said
    assert f"Wrote runs/{continued.name}/{continued.name}.safetensors after {steps} of {steps} steps." in (
        continued.said
    )
    assert steps == state(continued.ended)["step"] == state(continued.expected)["step"]


def test_an_old_run_ends_with_the_weights_that_it_would_have_had(continued: Continued) -> None:
    before, got, wanted = map(trained, (continued.begun, continued.ended, continued.expected))
    assert got.keys() == wanted.keys() == before.keys()
    for name in wanted:
        change = (wanted[name] - before[name]).norm()
        assert change > 0, name
        if not name.endswith(NO_GRADIENT):
            assert (got[name] - wanted[name]).norm() <= CLOSE * change, name


def test_an_old_run_goes_on_with_its_losses(continued: Continued) -> None:
    before, got, wanted = map(losses, (continued.before, continued.after, continued.expected))
    assert before.items() <= got.items()
    assert got == pytest.approx(wanted, rel=CLOSE)
    for key in ("loss", "best"):
        assert state(continued.ended)[key] == pytest.approx(state(continued.expected)[key], rel=CLOSE)
    assert state(continued.ended)["seconds"] > state(continued.begun)["seconds"]


def test_an_old_run_keeps_its_settings(continued: Continued) -> None:
    before, after = (
        json.loads((run / "settings.json").read_text()) for run in (continued.before, continued.after)
    )
    assert after == before


def test_an_old_run_writes_a_file_as_it_would_have(continued: Continued) -> None:
    """Only weights, steps, date and version differ from then, two options that are gone, and what came."""
    before, after = (run / f"{continued.name}.safetensors" for run in (continued.before, continued.after))
    assert layout(after) == layout(before)
    header, new_header = header_of(before), header_of(after)
    assert new_header["flash.steps"] == str(step_of(continued.ended))
    for key in ("flash.steps", "flash.code_version", "modelspec.date"):
        assert (key in new_header) == (key in header)
        header.pop(key, None), new_header.pop(key, None)
    for came in ("flash.card", "modelspec.implementation"):
        assert new_header.pop(came)
    if "flash.align" in header:
        align = json.loads(header["flash.align"])
        assert [align.pop(gone) for gone in ("independent", "layers_seed")] == [False, None]
        header["flash.align"] = json.dumps(align)
    assert new_header == header


def layout(path: Path) -> dict[str, tuple]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in load_file(path).items()}


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("wave", ["--seed", "1"], "seed: 0 then, 1 now"),
        ("wave", ["--lr", "0.02"], "learning_rate: 0.01 then, 0.02 now"),
        ("wave", ["--accumulation", "2"], "parts_of_a_step: 1 then, 2 now"),
        ("wave", ["--dtype", "bf16"], 'dtype: "float32" then, "bfloat16" now'),
        ("wave", ["--variant", "3"], "method: "),
        ("wave", ["--align-frames", "all"], "method: alignment: exclude_first: true then, false now"),
        ("wave", ["--noise", "shared"], "method: shared_noise: null then, true now"),
        ("wave", ["--frames", "8"], "sampling: "),
        ("wave", ["--pool", "3"], "pool: "),
        ("wave", ["--prompt", "dancing"], "clips: "),
        ("details", ["--size", "48"], "size: 32 then, 48 now"),
        ("details", ["--width", "8"], "decoder: "),
    ],
)
def test_an_old_run_with_other_settings_is_refused(
    old: Path, commands: dict, capsys: pytest.CaptureFixture[str], name: str, change: list[str], reason: str
) -> None:
    before = contents(old / "runs")
    assert cli.main([*commands["runs"][name], *change]) == 2
    said = sentence_of(capsys.readouterr().err)
    assert f"The run '{name}' was begun with other settings ({reason}" in said
    assert said.endswith(f"give another name, or the same settings to go on. It lies in runs/{name}.")
    assert contents(old / "runs") == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other_weights(path: Path) -> None:
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def other_pictures(path: Path) -> None:
    shutil.copy(path.parents[1] / "jump" / "c.gif", path)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("base/unet/diffusion_pytorch_model.safetensors", other_weights, "base: "),
        ("motion.safetensors", other_weights, "motion_module: "),
        ("wave_hands/a.gif", other_pictures, "clips: "),
    ],
)
def test_an_old_run_with_other_files_is_refused(
    old: Path, commands: dict, capsys: pytest.CaptureFixture[str], file: str, change: Callable, reason: str
) -> None:
    change(old / file)
    assert cli.main(commands["runs"]["wave"]) == 2
    said = sentence_of(capsys.readouterr().err)
    assert f"The run 'wave' was begun with other settings ({reason}" in said


@pytest.mark.parametrize("name", ["plain", "plain-details"])
def test_an_old_command_leaves_to_defaults_what_it_did(
    old: Path, commands: dict, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """With another seed it is refused for that alone, so all that it does not say is as it was."""
    assert cli.main([*commands["defaults"][name], "--seed", "1"]) == 2
    said = sentence_of(capsys.readouterr().err)
    assert f"The run '{name}' was begun with other settings (seed: 0 then, 1 now): give" in said
