"""Loads the pack into a real ComfyUI, or skips every test in this folder and says so loudly."""

import asyncio
import importlib
import importlib.util
import os
import sys
from functools import cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
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


class LoadedPack(MetaPathFinder, Loader):
    """Lets `flash_pack`, by which tests import the pack, be the copy that ComfyUI loaded."""

    @cached_property
    def package(self) -> ModuleType:
        import nodes

        loaded = asyncio.run(nodes.load_custom_node(str(ROOT)))
        assert loaded, "ComfyUI did not load the pack; its log says why."
        return sys.modules[str(ROOT).replace(".", "_x_")]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        ours = name.startswith("flash_pack.") and not name.startswith("flash_pack.tests")
        return ModuleSpec(name, self) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.package.__name__ + spec.name.removeprefix("flash_pack"))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = module.__spec__.loader_state  # it is loaded; only its own name is put back


if REASON is None:
    LOADED_PACK = LoadedPack()
    sys.meta_path.insert(0, LOADED_PACK)


@pytest.fixture(scope="session")
def node_classes() -> dict[str, type]:
    """All of ComfyUI's node classes, ours among them, by their ids."""
    import nodes

    assert LOADED_PACK.package
    return nodes.NODE_CLASS_MAPPINGS
