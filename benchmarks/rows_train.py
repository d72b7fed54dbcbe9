"""The rows of training: a step on a pair of clips, ours and the naive form."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple, cast

import diffusers
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flash_modules.backends.diffusers.sd15 import add_cross_frame_attention, encode_picture
from flash_modules.backends.diffusers.sd15.train.alignment import AlignedUNet, add_alignment
from flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_modules.flash.motion_alignment import VideoCall
from flash_modules.flash.training.action_loss import ActionLoss
from flash_modules.flash.training.action_training import Checkpointing
from flash_modules.flash.training.latent_pool import LatentPool
from flash_modules.flash.training.loss import Predict
from flash_modules.flash.training.method import VARIANTS, MethodConfig
from flash_modules.flash.training.noise_law import DiffusionNoise
from flash_modules.training.loop import LoopConfig

from .measure import TEXT_WIDTH, Load, randomise, serve
from .rows_diffusers import Models
from .steps import Rows, Spent, Step, Stopwatch, timed

PRODUCT = "matrix product"
"""A row that is no training: the device's own rate, taken in turn with the others."""


@dataclass(frozen=True, kw_only=True)
class TrainLoad(Load):
    """Sizes of a step; its two videos are a clip and its twin."""

    vae_widths: tuple[int, ...] = (128, 256, 512, 512)
    product_width: int = 2048
    """Rows and columns of the matrices of PRODUCT."""


CPU = TrainLoad(
    device="cpu", dtype=torch.float32, num_frames=8, pixels=128,
    widths=(64, 128, 256, 256), vae_widths=(32, 64, 128, 128),
)  # fmt: skip
CUDA = TrainLoad(device="cuda", dtype=torch.bfloat16, num_frames=16, pixels=512, product_width=8192)
SMALL = TrainLoad(
    device="cpu", dtype=torch.float32, num_frames=4, pixels=64,
    widths=(32, 64, 128, 128), vae_widths=(32, 32, 64, 64), text_tokens=7, product_width=512,
)  # fmt: skip
ALIGNED, NOT_ALIGNED = VARIANTS[5], VARIANTS[2]
LOADS = {"cpu": CPU, "cuda": CUDA, "small": SMALL}


class Pool(NamedTuple):
    """What ActionLoss wants of a LatentPool: one clip, and a function that gives its latents."""

    clips: tuple[SimpleNamespace, ...]
    entry: Callable[[int, int], Tensor]


class Training:
    """What all rows share: one set of weights, and the optimizer of those that learn."""

    def __init__(self, load: TrainLoad) -> None:
        self.load, self.models = load, Models(load)
        animated = self.models.animated()
        self.weights = list(select_trainable(animated).values())
        for weight in self.weights:
            weight.data = weight.data.float()
        self.shared = animated.state_dict(keep_vars=True)
        config = LoopConfig()
        self.max_norm = config.max_norm
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def ours(self, method: MethodConfig, checkpointing: Checkpointing = "none") -> ActionLoss:
        """Both clips in one forward pass, their latents at hand."""
        model = self._model(method, checkpointing)
        latents_VFCHW = torch.randn(2, self.load.num_frames, 4, self.load.size, self.load.size)
        return self._loss(method, model, model, lambda clip, number: latents_VFCHW)

    def naive(self) -> ActionLoss:
        """Both clips pass the VAE in every step, and each the U-Net by itself; so nothing is aligned."""
        model = self._model(NOT_ALIGNED, checkpointing="none")
        vae = self._vae()
        video_FHWC = torch.rand(self.load.num_frames, self.load.pixels, self.load.pixels, 3)

        def encode(clip: int, number: int) -> Tensor:
            return torch.stack([encode_picture(vae, video_FHWC) for _ in ("original", "twin")])

        def one_by_one(
            latents_BFCHW: Tensor, timestep_B: Tensor, text: Tensor, call: VideoCall | None
        ) -> Tensor:
            videos = zip(latents_BFCHW.split(1), timestep_B.split(1), text.split(1), strict=True)
            return torch.cat([model(*video) for video in videos])

        return self._loss(NOT_ALIGNED, model, one_by_one, encode)

    def step(self, loss: ActionLoss) -> Step:
        """As `training.loop` does it; infinite seconds if memory is short."""
        numbers = itertools.count()

        def step() -> Spent:
            watch = Stopwatch()
            try:
                self._learn(loss(next(numbers)))
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad()
                return Spent(seconds=math.inf, cpu_seconds=math.inf)
            return watch.stop()

        return step

    def _learn(self, loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, self.max_norm)
        assert math.isfinite(loss.item())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _model(self, method: MethodConfig, checkpointing: Checkpointing) -> AlignedUNet:
        animated = self.models.animated()
        animated.load_state_dict(self.shared, assign=True)
        select_trainable(animated, method.trainable)
        return add_alignment(
            add_cross_frame_attention(animated), method.alignment, checkpointing=checkpointing
        )

    def _vae(self) -> AutoencoderKL:
        levels = len(self.load.vae_widths)
        with torch.device("meta"):
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                block_out_channels=self.load.vae_widths,
                layers_per_block=2,
            )
        return randomise(vae.to(self.load.dtype).to_empty(device=self.load.device), seed=5)

    def _loss(
        self, method: MethodConfig, model: AlignedUNet, predict: Predict, entry: Callable[[int, int], Tensor]
    ) -> ActionLoss:
        text_1MC = torch.randn(1, self.load.text_tokens, TEXT_WIDTH)
        clip = SimpleNamespace(action="", caption="")
        return ActionLoss(
            predict=self._cast(predict),
            law=DiffusionNoise("epsilon"),
            num_layers=len(model.layers),
            pool=cast(LatentPool, Pool((clip,), entry)),
            text_embeds={"": text_1MC},
            method=method,
            text_drop=0.0,
            seed=0,
            device=torch.device(self.load.device),
        )

    def _cast(self, predict: Predict) -> Predict:
        if self.load.dtype == torch.float32:
            return predict
        return torch.autocast(self.load.device, self.load.dtype)(predict)


def losses(training: Training) -> Mapping[str, Callable[[], ActionLoss]]:
    """Builders of what the rows learn from. A name's part before the comma says what is computed."""
    return {
        "ours": lambda: training.ours(ALIGNED),
        "ours, checkpointing motion": lambda: training.ours(ALIGNED, checkpointing="motion"),
        "ours, checkpointing all": lambda: training.ours(ALIGNED, checkpointing="all"),
        "ours without alignment": lambda: training.ours(NOT_ALIGNED),
        "naive": training.naive,
    }


def rows(load: TrainLoad) -> Rows:
    training = Training(load)
    steps = {name: lambda build=build: training.step(build()) for name, build in losses(training).items()}
    return {**steps, PRODUCT: lambda: _product(load)}


def _product(load: TrainLoad) -> Step:
    a, b = (torch.randn(load.product_width, load.product_width).to(load.device, load.dtype) for _ in range(2))
    products = 10
    all_products = timed(lambda: [a @ b for _ in range(products)])
    return lambda: all_products() / products


def count_flops(load: TrainLoad) -> dict[str, int]:
    """Forward and backward of each row, on tensors that have shapes alone; a multiply and an add are two."""
    with torch.device("meta"):
        training = Training(replace(load, device="meta", dtype=torch.float32))
    return {name: _flops(build()) for name, build in losses(training).items()}


def _flops(loss: ActionLoss) -> int:
    with FlopCounterMode(display=False) as counter:
        loss(0).backward()
    return counter.get_total_flops()


if __name__ == "__main__":
    serve(f"diffusers {diffusers.__version__}", rows, LOADS)
