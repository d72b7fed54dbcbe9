"""What a GPU computes, against the CPU: small nets of random weights, the largest parts of the product."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flash_modules.attention import attend
from flash_modules.backends.diffusers.sd15 import add_cross_frame_attention
from flash_modules.backends.diffusers.sd15.detail import decode_with_details
from flash_modules.backends.diffusers.sd15.train.alignment import AlignedUNet, add_alignment
from flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_modules.flash.adain import AdaINConfig
from flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall
from flash_modules.flash.sampling import SamplerConfig, sample_video
from flash_modules.flash.training.action_training import CHECKPOINTING

from .bench_details import Vae
from .measure import FAILURES, TEXT_WIDTH, Load, release
from .rows_diffusers import Models

CPU = Load(device="cpu", dtype=torch.float32, num_frames=4, pixels=64, widths=(64, 128, 256, 256))
DRY = replace(CPU, num_frames=3, widths=(32, 64))
VAE_WIDTHS = (32, 64, 64, 64)
TOKENS = 7
ALIGNED = {
    "alignment and exchange": AlignmentConfig(),
    "alignment of motion features alone": AlignmentConfig(p=0.0),
    "exchange of q and k alone, in all layers": AlignmentConfig(tau=100.0, p=1.0),
}
ATTENTION_ROWS = 9000
"""Rows times heads are more than CUDA has blocks on an axis."""
TAME = 0.5
"""Random decoders as strong as the VAE warp so far that rounding alone is another picture."""

Found = Iterator[tuple[str, float]]
"""A row's name, and the relative difference that was found."""


def records(dry: bool) -> Iterator[dict[str, Any]]:
    """A record of each difference; of a check that fails, why."""
    load, device = (DRY, "cuda" if torch.cuda.is_available() else "cpu") if dry else (CPU, "cuda")
    yield {"planned": list(CHECKS)}
    for name, check in CHECKS.items():
        try:
            for what, found in check(load, device):
                yield {"row": f"{name}: {what}", "difference": found}
        except FAILURES as error:
            yield {"row": name, "error": f"{type(error).__name__}: {error}"}
        release()


def difference(found: Tensor, wanted: Tensor) -> float:
    """Relative, in the Euclidean norm; not a number if anything is."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    return float((found - wanted).norm() / wanted.norm())


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Convolutions in fp32 itself; torch's default on CUDA is TF32, whose products have 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def compare(module: nn.Module, device: str, compute: Callable[[str], Tensor]) -> Found:
    """What `compute` gives with the module on the device in each dtype, against fp32 on the CPU."""
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wanted = compute("cpu")
    with exact_fp32():
        module.to(device)
        yield "fp32", difference(compute(device), wanted)
    yield "fp32, convolutions as torch has them by default", difference(compute(device), wanted)
    for dtype in (torch.bfloat16, torch.float16):
        module.to(dtype).load_state_dict(weights)
        yield str(dtype).removeprefix("torch."), difference(compute(device), wanted)


def video(load: Load, videos: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and text."""
    generator = torch.Generator().manual_seed(7)
    latents_BFCHW = torch.randn(videos, load.num_frames, 4, load.size, load.size, generator=generator)
    text_BMC = torch.randn(videos, TOKENS, TEXT_WIDTH, generator=generator)
    return latents_BFCHW, torch.tensor([500] * videos), text_BMC


def attention(load: Load, device: str) -> Found:
    """Over time: many rows, few tokens."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(ATTENTION_ROWS, load.num_frames, 64, generator=generator) for _ in range(3))
    wanted = attend(q, k, v, 8)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = attend(q.to(device, dtype), k.to(device, dtype), v.to(device, dtype), 8)
        yield str(dtype).removeprefix("torch."), difference(found, wanted)


@torch.no_grad()
def prediction(load: Load, device: str) -> Found:
    model, inputs = add_cross_frame_attention(Models(load).animated()), video(load, 2)
    yield from compare(model, device, lambda place: model.predict(*(x.to(place) for x in inputs)))


def aligned(load: Load, config: AlignmentConfig) -> tuple[AlignedUNet, VideoCall]:
    model = add_alignment(add_cross_frame_attention(Models(load).animated()), config)
    swaps_L = torch.arange(len(model.layers)) % 2 < 2 * config.p
    return model, VideoCall(num_pairs=1, swaps_L=swaps_L)


@torch.no_grad()
def alignment(load: Load, device: str) -> Found:
    inputs = video(load, 2)
    for name, config in ALIGNED.items():
        model, call = aligned(load, config)

        def compute(place: str, model: AlignedUNet = model, call: VideoCall = call) -> Tensor:
            return model(*(x.to(place) for x in inputs), call)

        for dtype, found in compare(model, device, compute):
            yield f"{name}, {dtype}", found


def gradients(load: Load, device: str) -> Found:
    """Of the weights that learn, all together."""
    (model, call), inputs = aligned(load, AlignmentConfig()), video(load, 2)
    weights = list(select_trainable(model.model).values())

    def compute(place: str) -> Tensor:
        model.to(place)
        model(*(x.to(place) for x in inputs), call).square().mean().backward()
        found = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
        for weight in weights:
            weight.grad = None
        return found

    wanted = compute("cpu")
    with exact_fp32():
        kept = compute(device)
        yield "fp32, nothing computed again", difference(kept, wanted)
        for checkpointing in CHECKPOINTING[1:]:
            model.set_checkpointing(checkpointing)
            yield f"checkpointing {checkpointing} against none", difference(compute(device), kept)


@torch.no_grad()
def details(load: Load, device: str) -> Found:
    vae = Vae(replace(load, widths=VAE_WIDTHS))
    decoder = vae.decoder()
    for weight in decoder.parameters():
        weight.data.mul_(TAME)
    generator = torch.Generator().manual_seed(5)
    latents_FCHW = torch.randn(vae.latents_FCHW.shape, generator=generator)
    vae.picture_1HWC = torch.rand(vae.picture_1HWC.shape, generator=generator)

    def compute(place: str) -> Tensor:
        return decode_with_details(vae.vae, decoder, latents_FCHW.to(place), vae.references())

    yield from compare(nn.ModuleList([vae.vae, decoder]), device, compute)


def sampler(load: Load, device: str) -> Found:
    """Three steps with guidance, and frame 0 of the video in fp16."""
    model = add_cross_frame_attention(Models(load).animated())
    text_1MC, negative_1MC = video(load, 2)[2].split(1)
    reference_1CHW = video(load, 1)[0][:, 0]
    config = SamplerConfig(num_frames=load.num_frames, steps=3)

    def compute(place: str) -> Tensor:
        return sample_video(
            model.predict,
            reference_1CHW.to(place),
            text_1MC.to(place),
            negative_1MC.to(place),
            prediction="epsilon",
            seed=1,
            config=config,
            style=AdaINConfig(),
        )

    yield from compare(model, device, compute)
    yield "frame 0 against the picture, float16", difference(compute(device)[:1], reference_1CHW)


CHECKS: Mapping[str, Callable[[Load, str], Found]] = {
    "attention kernel": attention,
    "U-Net with motion and cross-frame attention": prediction,
    "U-Net that learns from a pair": alignment,
    "gradients of a pair": gradients,
    "decoding with details": details,
    "sampler, 3 steps": sampler,
}
