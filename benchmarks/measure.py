"""What is measured, and how: sizes, random weights, memory and FLOPs, for the processes of both hosts."""

import argparse
import gc
import json
import math
import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from flash_modules.animatediff.motion_file import MotionWeights
from flash_modules.animatediff.motion_module import MotionConfig, MotionModel

from .steps import Rows, Step, time_rows

ROOT = Path(__file__).resolve().parents[1]

TEXT_WIDTH = 768
NUM_PROMPTS = 2
"""cond and uncond of classifier-free guidance, in one batch."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Sizes of everything that is measured."""

    device: str
    dtype: torch.dtype
    num_frames: int
    pixels: int
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    text_tokens: int = 77
    peer: Path | None = None
    """A checkout of AnimateDiff-Evolved."""

    @property
    def size(self) -> int:
        """Height and width in latent pixels."""
        return self.pixels // 8

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        device = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        return (
            f"{device}, {dtype}, {NUM_PROMPTS} x {self.num_frames} frames of {self.pixels}x{self.pixels}, "
            f"widths {self.widths}, torch {torch.__version__}, {torch.get_num_threads()} threads"
        )


CPU = Load(device="cpu", dtype=torch.float32, num_frames=8, pixels=128)
CUDA = Load(device="cuda", dtype=torch.float16, num_frames=16, pixels=512)
SMALL = Load(
    device="cpu", dtype=torch.float32, num_frames=4, pixels=64, widths=(32, 64, 128, 128), text_tokens=7
)
LOADS: Mapping[str, Load] = {"cpu": CPU, "cuda": CUDA, "small": SMALL}


FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Of one row, which the others survive."""

AnyLoad = TypeVar("AnyLoad", bound=Load)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A step of a row."""

    seconds: float
    peak_bytes: int
    flops: int
    """A multiply and an add are two; layers that run again count each time."""


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of the whole benchmark, which it hands to its processes."""
    parser.add_argument("--small", action="store_true", help="a quick try with reduced widths on the CPU")
    parser.add_argument("--threads", type=int, help="threads on the CPU; default: torch's own choice")
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of every row")
    parser.add_argument("--pixels", type=int, help="height and width of the video")
    parser.add_argument("--peer", type=Path, help="a checkout of AnimateDiff-Evolved, for a row in ComfyUI")
    return parser


def choose_load(options: argparse.Namespace, loads: Mapping[str, AnyLoad]) -> AnyLoad:
    """The sizes that the options and the device ask for."""
    load = loads["small" if options.small else "cuda" if torch.cuda.is_available() else "cpu"]
    return replace(load, pixels=options.pixels or load.pixels, peer=options.peer)


def serve(
    host: str,
    make_rows: Callable[[AnyLoad], Rows],
    loads: Mapping[str, AnyLoad],
    more: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Be one process: time all rows, or take the memory of one (--memory ROW), or measure `more` (--more).

    The result is the last line of the output, as JSON. Or it is a line for each row as soon as time and
    memory of it were measured by itself (--each).
    """
    parser = add_options(argparse.ArgumentParser())
    parser.add_argument("--memory", metavar="ROW")
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--each", action="store_true", help="time and memory of each row by itself")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    load = choose_load(options, loads)
    if options.each:
        for name, found in measure_rows(make_rows(load), load.device, options.rounds):
            tell({"row": name, **labels(load), **figures(found)})
    elif options.more:
        tell(more())
    elif options.memory:
        tell({"peak": peak_memory(make_rows(load)[options.memory], load.device)})
    else:
        rounds = time_rows(make_rows(load), options.rounds)
        plain = {row: [asdict(spent) for spent in each] for row, each in rounds.items()}
        tell({"host": host, "load": str(load), "rounds": plain})


def tell(result: Mapping[str, Any]) -> None:
    """A result of this process, as a line of its own."""
    print("\n" + json.dumps(result), flush=True)


def measure_rows(rows: Rows, device: str, rounds: int) -> Iterator[tuple[str, Measured | str]]:
    """Each row by itself, one after the other: what its step takes, or why it failed."""
    for name, build in rows.items():
        try:
            yield name, measure_step(build(), device, rounds)
        except FAILURES as error:
            yield name, f"{type(error).__name__}: {error}"
        release()


def labels(load: Load) -> dict[str, str]:
    """What a row is beside its name, for JSON."""
    return {
        "dtype": str(load.dtype).removeprefix("torch."),
        "video": f"{load.num_frames} x {load.pixels}x{load.pixels}",
    }


def figures(found: Measured | str) -> dict[str, Any]:
    """For JSON."""
    return {"error": found} if isinstance(found, str) else asdict(found)


def measure_step(step: Step, device: str, rounds: int, *, counted: bool = True) -> Measured:
    """After a step to warm up, and one before it in which FLOPs are counted unless that is off."""
    flops = count_step(step) if counted else 0
    step()
    release()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(step().seconds for _ in range(rounds))
    if seconds == math.inf:
        raise RuntimeError("out of memory")
    return Measured(seconds=seconds, peak_bytes=peak_bytes(device), flops=flops)


def count_step(step: Step) -> int:
    """FLOPs of a step."""
    with FlopCounter() as counter:
        step()
    return counter.flops


class FlopCounter(TorchDispatchMode):
    """Counts beside the work itself; torch's FlopCounterMode follows modules too, for six times the time."""

    flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None and torch.is_inference_mode_enabled():  # which shows whole layers
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def release() -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(build: Callable[[], Step], device: str) -> int:
    """Bytes: of a whole process that ran a step, or of a step with all weights on a GPU."""
    step = build()
    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
    return peak_bytes(device)


def peak_bytes(device: str) -> int:
    """The most that was held since the last reset on a GPU, else by the process so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def randomise(module: AnyModule, seed: int) -> AnyModule:
    """The same weights for the same seed: matrices that keep a deviation of 1, plain norms, no biases."""
    generators: dict[torch.device, torch.Generator] = {}
    for name, weight in module.named_parameters():
        if weight.is_meta:  # has a shape alone
            continue
        generator = generators.setdefault(weight.device, torch.Generator(weight.device).manual_seed(seed))
        if weight.ndim > 1:
            limit = (3 / weight[0].numel()) ** 0.5
            weight.data.uniform_(-limit, limit, generator=generator)
        else:
            weight.data.fill_(float(name.endswith("weight")))
    return module.eval().requires_grad_(False)


def motion_config(widths: tuple[int, ...]) -> MotionConfig:
    """AnimateDiff v2: a module in the middle block too."""
    return MotionConfig(
        down=tuple((width,) * 2 for width in widths),
        up=tuple((width,) * 3 for width in reversed(widths)),
        mid=widths[-1:],
    )


def hollow_motion(load: Load, device: str = "cpu") -> MotionWeights:
    """Zeros that take no memory until they are copied: the motion of a U-Net that `randomise` fills then."""
    config = motion_config(load.widths)
    zero = torch.zeros((), dtype=load.dtype, device=device)
    shapes = MotionModel(config, device="meta").state_dict()
    tensors = {name: zero.expand(tensor.shape) for name, tensor in shapes.items()}
    return MotionWeights(name="random", version="v2", reason="made so", config=config, tensors=tensors)
