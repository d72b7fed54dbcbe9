"""Packages that are carried to a bare machine."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.carried import NEEDED, TORCH, closure, unpack


def make_wheel(folder: Path, name: str, code: str) -> None:
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_what_is_missing_is_unpacked_and_what_is_here_is_left_alone(tmp_path: Path) -> None:
    make_wheel(tmp_path, "flash_carried", "VALUE = 7")
    make_wheel(tmp_path, "einops", "raise SystemExit('the wrong one')")
    target = tmp_path / "packages"
    unpack(tmp_path, target)
    assert not (target / "einops.py").exists()
    code = "import flash_carried, einops; print(flash_carried.VALUE)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "7"


def test_a_wheel_that_pip_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "flash_broken-1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(RuntimeError, match="pip install failed"):
        unpack(tmp_path, tmp_path / "packages")


def test_all_that_is_needed_is_carried_but_torch_and_what_torch_alone_needs() -> None:
    names = closure(NEEDED, {TORCH})
    assert {"diffusers", "huggingface-hub", "pillow", "kornia-rs"} <= names  # the last two are needed in turn
    assert not {"torch", "sympy", "jinja2"} & names
    assert "transformers" not in closure(NEEDED, {TORCH, "transformers"})
