"""Learning on Wan 2.2 of random weights in its true shape, counted and measured. Runs in ComfyUI's Python.

`python -m benchmarks.rows_wan` counts what a step takes, in Markdown, anywhere; with `--measure` it takes
steps on the GPU and tells them as lines of JSON.
"""

import argparse
import json
import runpy
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(folder) for folder in (ROOT / ".venv").glob("lib/python*/site-packages")]  # last: pytest
REASON = runpy.run_path(str(ROOT / "tests" / "comfy" / "conftest.py"))["REASON"]  # sets ComfyUI up
if REASON:
    print(json.dumps({"left_out": REASON}))
    raise SystemExit

import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.wan.model import WanModel  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from flash_modules.backends.comfy.wan.train.alignment import LearningWan  # noqa: E402
from flash_modules.backends.comfy.wan.train.low_rank import add_low_rank  # noqa: E402
from flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall, draw_layers  # noqa: E402
from flash_modules.flash.training.action_training import count_cost  # noqa: E402
from flash_modules.flash.training.needs import peak_memory  # noqa: E402
from flash_modules.flash.training.settings import CHECKPOINTING, Checkpointing  # noqa: E402

from .cards import CARDS, SHARE  # noqa: E402
from .steps import Stopwatch  # noqa: E402

TRUE = {"in_dim": 48, "out_dim": 48, "dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30}
"""Wan2.2 TI2V-5B."""
SMALL = {"in_dim": 48, "out_dim": 48, "dim": 128, "ffn_dim": 160, "num_heads": 1, "num_layers": 2}
TEXT = (1, 512, 4096)
RANK = 16
ALIGNED, PLAIN = AlignmentConfig(exclude_first=True), AlignmentConfig(tau=100.0, p=0.0)


@dataclass(frozen=True)
class Video:
    """Pictures of a clip."""

    frames: int
    width: int
    height: int

    @property
    def latents(self) -> torch.Size:
        return torch.Size(((self.frames - 1) // 4 + 1, 48, self.height // 16, self.width // 16))

    def __str__(self) -> str:
        return f"{self.frames} x {self.width}x{self.height}"


VIDEOS = (Video(49, 832, 480), Video(49, 512, 288), Video(33, 256, 256), Video(81, 832, 480))
TINY = (Video(5, 64, 64),)


class Learner:
    """The transformer with a LoRA, and a step of learning a pair."""

    def __init__(
        self, net: WanModel, device: torch.device, dtype: torch.dtype, config: AlignmentConfig
    ) -> None:
        self.device, self.dtype = device, dtype
        self.weights = add_low_rank(net, RANK, text=False, seed=0)
        self.model = LearningWan(net, config)
        for weight in self.weights.values():
            weight.data = weight.data.to(device)

    @property
    def num_bytes(self) -> int:
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        found: Tensor = self.model(latents_BFCHW.to(self.dtype), timestep_B, text, call)
        return found.to(latents_BFCHW.dtype)

    def count(self, video: Video) -> tuple[float, float]:
        """TFLOP and GiB of a step, by the product's own count."""
        text = torch.zeros(TEXT, device=self.device)
        cost = count_cost(
            self.predict,
            self.weights.values(),
            video.latents,
            text,
            num_layers=len(self.model.layers),
            twins=True,
            device=self.device,
        )
        memory = peak_memory(self.num_bytes, self.weights.values(), cost.peak_bytes)
        return cost.flops / 1e12, memory / 2**30

    def step(self, video: Video, optimizer: torch.optim.Optimizer, twins: bool) -> None:
        """Prediction of a pair, or of one clip, backward pass, AdamW."""
        videos = 2 if twins else 1
        latents = torch.randn(videos, *video.latents, device=self.device)
        text = torch.randn(TEXT, device=self.device).expand(videos, -1, -1)
        swaps_L = draw_layers(len(self.model.layers), ALIGNED, torch.Generator().manual_seed(0))
        call = VideoCall(num_pairs=1, swaps_L=swaps_L) if twins else None
        timestep_B = torch.full((videos,), 800.0, device=self.device)
        self.predict(latents, timestep_B, text, call)[:, 1:].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def hollow(settings: dict[str, int], dtype: torch.dtype) -> WanModel:
    """A transformer whose weights take no memory: each is one zero, repeated."""
    with torch.device("meta"):
        net = WanModel(model_type="t2v", text_dim=TEXT[-1], operations=comfy.ops.manual_cast, **settings)
    for module in net.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                zeros = torch.zeros((), dtype=dtype).expand(tensor.shape)
                module._parameters[name] = nn.Parameter(zeros, requires_grad=False)
    return net.eval()


def random_net(settings: dict[str, int], device: torch.device, dtype: torch.dtype) -> WanModel:
    """A transformer of random weights."""
    net = hollow(settings, dtype)
    for name, weight in net.named_parameters():
        drawn = torch.randn(weight.shape, device=device, dtype=dtype)
        weight.data = drawn if weight.ndim == 1 or "modulation" in name else drawn / weight[0].numel() ** 0.5
    return net


def counted(settings: dict[str, int], videos: Sequence[Video]) -> Iterator[str]:
    """The counted table, in Markdown."""
    yield f"| video | checkpointing | TFLOP | GiB, bf16 | GiB, fp8 | {' | '.join(CARDS)} |"
    yield f"|{' --- |' * (5 + len(CARDS))}"
    cpu = torch.device("cpu")
    learner = Learner(hollow(settings, torch.bfloat16), cpu, torch.bfloat16, ALIGNED)
    half = learner.num_bytes / 2 / 2**30
    for video in videos:
        for checkpointing in CHECKPOINTING:
            learner.model.set_checkpointing(checkpointing)
            tflop, memory = learner.count(video)
            seconds = " | ".join(f"{tflop / (speed * SHARE):.1f} s" for speed in CARDS.values())
            gib = f"{memory:.1f} | {memory - half:.1f}"
            yield f"| {video} | {checkpointing} | {tflop:.0f} | {gib} | {seconds} |"


def measured(settings: dict[str, int], videos: Sequence[Video], rounds: int) -> Iterator[dict[str, object]]:
    """Steps on the GPU: of pairs with alignment, of pairs without, and of one clip."""
    device = comfy.model_management.get_torch_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    learner = Learner(random_net(settings, device, dtype), device, dtype, ALIGNED)
    optimizer = torch.optim.AdamW(learner.weights.values(), lr=1e-4)
    kinds = {
        "a clip and its twin": (ALIGNED, True),
        "without alignment": (PLAIN, True),
        "one clip alone": (PLAIN, False),
    }
    for video in videos:
        for checkpointing in CHECKPOINTING:
            for kind, (config, twins) in kinds.items():
                learner.model.config = config
                row = {"row": f"{kind}, checkpointing {checkpointing}", "video": str(video)}
                row["dtype"] = str(dtype).removeprefix("torch.")
                yield {**row, **_timed(learner, video, optimizer, checkpointing, twins, rounds)}


def _timed(
    learner: Learner,
    video: Video,
    optimizer: torch.optim.Optimizer,
    checkpointing: Checkpointing,
    twins: bool,
    rounds: int,
) -> dict[str, object]:
    learner.model.set_checkpointing(checkpointing)
    on_cuda = learner.device.type == "cuda"
    try:
        learner.step(video, optimizer, twins)  # a warm-up
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        spent = []
        for _ in range(rounds):
            watch = Stopwatch()
            learner.step(video, optimizer, twins)
            spent.append(watch.stop().seconds)
    except torch.OutOfMemoryError:
        optimizer.zero_grad()
        torch.cuda.empty_cache()
        return {"error": "out of memory"}
    peak = {"peak_bytes": torch.cuda.max_memory_allocated()} if on_cuda else {}
    return {"seconds": statistics.median(spent), **peak}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows_wan", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="take steps, on the GPU if there is one")
    parser.add_argument("--dry", action="store_true", help="try it with small shapes")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps (default %(default)s)")
    options = parser.parse_args()
    settings, videos = (SMALL, TINY) if options.dry else (TRUE, VIDEOS)
    comfy.model_management.in_training = True
    if options.measure:
        for row in measured(settings, videos, options.rounds):
            print(json.dumps(row), flush=True)
    else:
        for line in counted(settings, videos):
            print(line, flush=True)


if __name__ == "__main__":
    main()
