"""The rows of ComfyUI: steps of its own sampler, with a bare MODEL and ours. Runs in ComfyUI's Python."""

import cProfile
import json
import pstats
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(folder) for folder in (ROOT / ".venv").glob("lib/python*/site-packages")]  # last: pytest

from . import measure  # noqa: E402

REASON = runpy.run_path(str(measure.ROOT / "tests" / "comfy" / "conftest.py"))["REASON"]  # sets ComfyUI up

if REASON:
    print("\n" + json.dumps({"left_out": REASON}))
    raise SystemExit

from comfy.cli_args import args  # noqa: E402

VRAM = sys.argv[sys.argv.index("--vram") + 1] if "--vram" in sys.argv else ""
args.lowvram, args.novram = VRAM == "low", VRAM == "no"  # read when the next line is imported

import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
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

from .measure import LOADS, SMALL, TEXT_WIDTH, Load, Rows, Step  # noqa: E402

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
    measure.randomise(base.diffusion_model, seed=0)
    return ModelPatcher(base, comfy.model_management.get_torch_device(), offload_device)


def load_motion(load: Load) -> LoadedMotion:
    weights = measure.hollow_motion(load)
    weights.tensors.update({name: tensor.clone() for name, tensor in weights.tensors.items()})
    motion = hand_over(lambda: weights)
    measure.randomise(motion.patcher.model, seed=1)
    return motion


def reference(load: Load) -> torch.Tensor:
    return torch.randn(1, 4, load.size, load.size, generator=torch.Generator().manual_seed(2))


def flash_model(load: Load, model: ModelPatcher) -> ModelPatcher:
    return add_first_frame(add_action(model, load_motion(load), None), reference(load))


def sample(
    load: Load, model: ModelPatcher, steps: int, callback: Callable[..., None] | None = None
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    positive, negative = (
        [[torch.randn(1, load.text_tokens, TEXT_WIDTH, generator=generator), {}]] for _ in range(2)
    )
    latents = first_frame_latents(reference(load), load.num_frames)
    noise = comfy.sample.prepare_noise(latents, 4)
    return comfy.sample.sample(
        model, noise, steps, 7.5, "ddim", "ddim_uniform", positive, negative, latents,
        callback=callback, disable_pbar=True, seed=4,
    )  # fmt: skip


def timed(load: Load, model: ModelPatcher) -> Step:
    """One step in ComfyUI's sampler; what it prepares before the first step is left out."""
    seconds: list[float] = []

    def stopwatch(executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = measure.clock()
        out = executor(*args, **kwargs)
        seconds.append(measure.clock() - start)
        return out

    m = model.clone()
    m.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "benchmark", stopwatch)

    def step() -> float:
        sample(load, m, steps=1)
        return seconds.pop()

    return step


def rows(load: Load) -> Rows:
    model = bare_model(load)
    return {
        "bare": lambda: timed(load, model),
        "ours: Apply Motion Module": lambda: timed(load, add_motion(model, load_motion(load))),
        "ours: Apply Action without an action, First Frame": lambda: timed(load, flash_model(load, model)),
    }


def more() -> dict[str, Any]:
    """Milliseconds a step in our own Python, and memory of a long run: with small widths, and all modules."""
    model = flash_model(SMALL, bare_model(SMALL))
    sample(SMALL, model, steps=2)
    profile = cProfile.Profile(time.thread_time)  # what other programs take does not count
    profile.runcall(sample, SMALL, model, steps=PROFILED_STEPS)
    memory: dict[int, int] = {}

    def look(step: int, *_: object) -> None:
        if step + 1 in MEMORY_STEPS:
            memory[step + 1] = psutil.Process().memory_info().rss

    sample(SMALL, model, MEMORY_STEPS[-1], look)
    return {"whole_pack": own_python(profile, PACK), "hooks": own_python(profile, BACKEND), "memory": memory}


def own_python(profile: cProfile.Profile, folder: Path) -> float:
    """Milliseconds a step in functions of this folder, calls of torch excluded, its operators (+, *) not."""
    functions = vars(pstats.Stats(profile))["stats"].items()
    own = (seconds for (file, *_), (_, _, seconds, *_) in functions if Path(file).is_relative_to(folder))
    return 1e3 * sum(own) / PROFILED_STEPS


def latents() -> list[float]:
    """A short run's result, with small widths, to be compared with that of another way to hold memory."""
    return sample(SMALL, flash_model(SMALL, bare_model(SMALL)), steps=2).flatten().tolist()


if __name__ == "__main__":
    with torch.inference_mode():
        if VRAM:
            print("\n" + json.dumps({"latents": latents()}))
            raise SystemExit
        measure.serve(f"ComfyUI {comfyui_version.__version__}", rows, LOADS, more)
