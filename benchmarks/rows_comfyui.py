"""The rows of ComfyUI: steps of its own sampler, with a bare MODEL and ours. Runs in ComfyUI's Python."""

import cProfile
import pstats
import runpy
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(folder) for folder in (ROOT / ".venv").glob("lib/python*/site-packages")]  # last: pytest

from . import measure  # noqa: E402

REASON = runpy.run_path(str(measure.ROOT / "tests" / "comfy" / "conftest.py"))["REASON"]  # sets ComfyUI up

if REASON:
    measure.tell({"left_out": REASON})
    raise SystemExit

import comfy_aimdo.control  # noqa: E402
from comfy.cli_args import args  # noqa: E402

VRAM = sys.argv[sys.argv.index("--vram") + 1] if "--vram" in sys.argv else ""
args.lowvram, args.novram = VRAM == "low", VRAM == "no"  # read when ComfyUI is imported
if VRAM == "dynamic":
    comfy_aimdo.control.init()  # before that too

import comfy.memory_management  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfyui_version  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.patcher_extension import WrappersMP  # noqa: E402

from flash_modules.backends.comfy.sd15 import add_action, add_first_frame, add_motion  # noqa: E402
from flash_modules.backends.comfy.sd15.motion import LoadedMotion, hand_over  # noqa: E402
from flash_modules.flash.first_frame import first_frame_latents  # noqa: E402

from .measure import LOADS, SMALL, TEXT_WIDTH, Load  # noqa: E402
from .steps import Rows, Spent, Step, Stopwatch  # noqa: E402

PACK = ROOT / "flash_modules"
BACKEND = PACK / "backends"
MEMORY_STEPS = (20, 200)
PROFILED_STEPS = 20


def bare_model(load: Load) -> ModelPatcher:
    """A MODEL as a checkpoint loader gives it: SD 1.5 of these widths."""
    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": load.widths[0],
            "num_res_blocks": [2, 2, 2, 2],
            "channel_mult": [width // load.widths[0] for width in load.widths],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "transformer_depth_middle": 1,
            "context_dim": TEXT_WIDTH,
            "use_spatial_transformer": True,
            "legacy": False,
            "num_heads": 8,
            "num_head_channels": -1,
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "dtype": load.dtype,
        }
    )
    config.set_inference_dtype(load.dtype, None)
    offload_device = comfy.model_management.unet_offload_device()
    base = comfy.model_base.BaseModel(config, device=offload_device)
    measure.randomise(base.diffusion_model.to(load.device), seed=0).to(offload_device)
    return comfy.model_patcher.CoreModelPatcher(
        base, comfy.model_management.get_torch_device(), offload_device
    )


def load_motion(load: Load) -> LoadedMotion:
    """Random weights as files have them, in fp16."""
    weights = measure.hollow_motion(replace(load, dtype=torch.float16))
    motion = hand_over(lambda: weights)
    net = motion.patcher.model.to(load.device)
    for weight in net.parameters():
        weight.data = weight.data.contiguous()  # hollow no longer
    measure.randomise(net, seed=1).to(motion.patcher.offload_device)
    return motion


def reference(load: Load) -> torch.Tensor:
    return torch.randn(1, 4, load.size, load.size, generator=torch.Generator().manual_seed(2))


def first_frame(load: Load, model: ModelPatcher, motion: LoadedMotion) -> tuple[ModelPatcher, torch.Tensor]:
    """The MODEL and the latents of a video that begins with a picture."""
    picture_1CHW = reference(load)
    m = add_first_frame(add_action(model, motion, None), picture_1CHW)
    return m, first_frame_latents(picture_1CHW, load.num_frames)


def empty(load: Load) -> torch.Tensor:
    return torch.zeros(load.num_frames, 4, load.size, load.size)


def sample(
    load: Load,
    model: ModelPatcher,
    latents: torch.Tensor,
    steps: int,
    callback: Callable[..., None] | None = None,
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    positive, negative = (
        [[torch.randn(1, load.text_tokens, TEXT_WIDTH, generator=generator), {}]] for _ in range(2)
    )
    noise = comfy.sample.prepare_noise(latents, 4)
    return comfy.sample.sample(
        model, noise, steps, 7.5, "ddim", "ddim_uniform", positive, negative, latents,
        callback=callback, disable_pbar=True, seed=4,
    )  # fmt: skip


def timed(load: Load, model: ModelPatcher, latents: torch.Tensor) -> Step:
    """One step in ComfyUI's sampler; what it prepares before the first step is left out."""
    comfy.model_management.unload_all_models()  # of rows before this one
    spent: list[Spent] = []

    def stopwatch(executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        watch = Stopwatch()
        out = executor(*args, **kwargs)
        spent.append(watch.stop())
        return out

    m = model.clone()
    m.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "benchmark", stopwatch)

    def step() -> Spent:
        sample(load, m, latents, steps=1)
        return spent.pop()

    return step


def rows(load: Load) -> Rows:
    """The last row is AnimateDiff-Evolved's, where a checkout of it is given and the widths are its own."""
    model, motion = bare_model(load), load_motion(load)
    start = empty(load)
    ours: dict[str, Callable[[], Step]] = {
        "bare": lambda: timed(load, model, start),
        "ours: Apply Motion Module": lambda: timed(load, add_motion(model, motion), start),
        "ours: Apply Action without an action, First Frame": lambda: timed(
            load, *first_frame(load, model, motion)
        ),
    }
    if load.peer is None or load.widths != measure.CPU.widths:
        return ours
    checkout = load.peer
    return {**ours, "AnimateDiff-Evolved": lambda: timed(load, peer_model(model, motion, checkout), start)}


def peer_model(model: ModelPatcher, motion: LoadedMotion, checkout: Path) -> ModelPatcher:
    from .peer import add_peer_motion  # imports what most processes do without

    return add_peer_motion(model, motion.patcher.model, checkout)


def more() -> dict[str, Any]:
    """Milliseconds a step in our own Python, and memory of a long run: with small widths, and all modules."""
    model, latents = first_frame(SMALL, bare_model(SMALL), load_motion(SMALL))
    sample(SMALL, model, latents, steps=2)
    profile = cProfile.Profile(time.thread_time)  # what other programs take does not count
    profile.runcall(sample, SMALL, model, latents, steps=PROFILED_STEPS)
    memory: dict[int, int] = {}

    def look(step: int, *_: object) -> None:
        if step + 1 in MEMORY_STEPS:
            memory[step + 1] = psutil.Process().memory_info().rss

    sample(SMALL, model, latents, MEMORY_STEPS[-1], look)
    return {"whole_pack": own_python(profile, PACK), "hooks": own_python(profile, BACKEND), "memory": memory}


def own_python(profile: cProfile.Profile, folder: Path) -> float:
    """Milliseconds a step in functions of this folder, calls of torch excluded, its operators (+, *) not."""
    functions = vars(pstats.Stats(profile))["stats"].items()
    own = (seconds for (file, *_), (_, _, seconds, *_) in functions if Path(file).is_relative_to(folder))
    return 1e3 * sum(own) / PROFILED_STEPS


def short_run() -> list[float]:
    """A short run's result, with small widths, to be compared with that of another way to hold memory."""
    if VRAM == "dynamic":
        hold_memory_dynamically()
    model, latents = first_frame(SMALL, bare_model(SMALL), load_motion(SMALL))
    return sample(SMALL, model, latents, steps=2).flatten().tolist()


def hold_memory_dynamically() -> None:
    """As ComfyUI's main.py begins on NVIDIA's cards, unless it is told otherwise."""
    devices = [(device.index, 0) for device in comfy.model_management.get_all_torch_devices()]
    if not comfy_aimdo.control.init_devices(devices):
        raise RuntimeError("comfy-aimdo does not work here")
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True


if __name__ == "__main__":
    with torch.inference_mode():
        if VRAM:
            measure.tell({"latents": short_run()})
            raise SystemExit
        measure.serve(f"ComfyUI {comfyui_version.__version__}", rows, LOADS, more)
