"""Loads the pack into a real ComfyUI, or skips every test in this folder and says so loudly."""

import asyncio
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")


def why_not() -> str | None:
    """The reason why the tests cannot run here, if there is one."""
    if not (COMFYUI / "main.py").is_file():
        return f"there is no ComfyUI at {COMFYUI}"
    needed = ["aiohttp", "torchsde", "torchvision", "comfy_kitchen", "comfy_aimdo"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{sys.executable} is not ComfyUI's Python (no {', '.join(missing)})" if missing else None


def import_torchvision() -> None:
    """Import torchvision even where its compiled part does not fit torch (a CUDA build beside a CPU torch).

    Then its operators are declared without code: ComfyUI imports torchvision, but no test calls them.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", signature)
        torch.library.define("torchvision::qnms", signature)
        importlib.import_module("torchvision")


def set_up_comfyui() -> None:
    """Put ComfyUI first on sys.path and choose its settings, before anything of it is imported."""
    sys.path.insert(0, str(COMFYUI))
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True  # ComfyUI's default on a CPU is slow
    import_torchvision()


REASON = why_not()
if REASON is None:
    set_up_comfyui()


class Skipped(pytest.File):
    """A test file or a folder that is not even imported: its first lines import ComfyUI."""

    def collect(self):
        pytest.skip(REASON, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return Skipped.from_parent(parent, path=module_path) if REASON else None


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return Skipped.from_parent(parent, path=path) if REASON else None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if REASON and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK  # all skipped is no failure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REASON:
        how = "Run `make test-host COMFYUI_PATH=<folder> COMFYUI_PYTHON=<its Python>`; both have defaults."
        terminalreporter.section("THE TESTS INSIDE COMFYUI DID NOT RUN", red=True, bold=True)
        terminalreporter.write_line(f"{REASON}. {how}", red=True, bold=True)


@dataclass(frozen=True)
class Pack:
    """The pack as ComfyUI loaded it. Its classes are not those of the `flash_pack` alias."""

    package: ModuleType
    NODE_CLASS_MAPPINGS: dict[str, type]

    def module(self, name: str) -> ModuleType:
        """A module of the loaded pack: `pack.module("flash_modules.flash.adain")`."""
        return importlib.import_module(f"{self.package.__name__}.{name}")


@pytest.fixture(scope="session")
def pack() -> Pack:
    import nodes

    assert asyncio.run(nodes.load_custom_node(str(ROOT))), "ComfyUI did not load the pack; its log says why."
    return Pack(sys.modules[str(ROOT).replace(".", "_x_")], nodes.NODE_CLASS_MAPPINGS)
