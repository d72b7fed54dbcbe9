"""The U-Net of the small base: trained on pictures, on pairs of frames, then with motion modules on clips.

All noise is that of flash_modules.noise_schedule, all timesteps are equally likely, the target is the
velocity. A small model that predicts noise draws colours at random: where noise is nearly all, the picture is
what is left of it divided by a small signal, and the model's error with it. People and things are small:
their errors count several times.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from transformers import CLIPTextModel

from flash_modules.animatediff.motion_module import MotionModel
from flash_modules.animatediff.noise_schedule import NUM_TIMESTEPS, Prediction
from flash_modules.backends.diffusers.sd15 import AnimatedUNet, add_cross_frame_attention
from flash_modules.backends.diffusers.sd15.call import Present
from flash_modules.backends.diffusers.sd15.cross_frame import read_first_frame
from flash_modules.backends.diffusers.sd15.motion import predict_frames
from flash_modules.flash.first_frame import replace_first_frame
from flash_modules.flash.motion_alignment import VideoCall
from flash_modules.flash.sampling import Predict

from .latents import Batch, Dataset
from .models import new_motion, new_text_encoder, new_unet
from .schedule import ddim_scheduler
from .training import Limit, Recipe, averaged_weights, generator, train


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Settings of the three stages."""

    pictures: int = 16
    """Pictures of a step."""
    pairs: int = 8
    """Pairs of frames of a step."""
    clips: int = 2
    """Clips of a step."""
    picture_steps: float = 0.06
    """Share of steps on pictures in the stage `clips`, so that the U-Net still works without motion."""
    pair_steps: float = 0.2
    """Share of steps on pairs in the stage `clips`."""
    plain_steps: float = 0.1
    """Share of steps as AnimateDiff trains: all frames with noise, plain attention."""
    caption_drop: float = 0.1
    figures: float = 3.0
    """Weight of the error of people and things, where places have 1: they are small, and what moves.

    In the last quarter of the stage `clips` it falls to 1, because it costs places.
    """

    def figures_at(self, over: float) -> float:
        """Weight of people and things when so much of the stage `clips` is over."""
        return 1 + (self.figures - 1) * min(1.0, 4 * (1 - over))

    def times(self, factor: int) -> "DiffusionConfig":
        """The same with so many times as large batches."""
        counts = {name: factor * getattr(self, name) for name in ("pictures", "pairs", "clips")}
        return replace(self, **counts)


PREDICTION: Prediction = "v_prediction"

_MAX_SNR = 5.0
"""Gamma of min-SNR, as its authors chose it."""
_MIN_WEIGHT = 0.25
"""Of pictures that nothing is seen of: they decide colours and places."""

_SCHEDULE = ddim_scheduler(PREDICTION)

PICTURES = Recipe(lr=6e-4, parts=("unet", "text_encoder"))
PAIRS = Recipe(lr=6e-4, parts=("unet",))
CLIPS = Recipe(lr=6e-4, parts=("motion", "unet"))


def train_pictures(
    out: Path, data: Dataset, limit: Limit, *, seed: int, config: DiffusionConfig | None = None
) -> None:
    """Train U-Net and text encoder from scratch on single frames, into out/pictures."""
    config = config or DiffusionConfig()
    unet = new_unet(seed).to(data.device).train()
    text_encoder = new_text_encoder(data.tokenizer, seed).to(data.device).train()

    def loss_of_step(step: int, over: float) -> Tensor:
        draws = generator(seed, "pictures", step, data.device)
        batch = data.draw_pictures(config.pictures, draws, config.caption_drop)
        text_embeds = text_encoder(batch.tokens_BM).last_hidden_state
        return picture_loss(unet, batch, config.figures, text_embeds, draws)

    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    train(out / "pictures", model, loss_of_step, PICTURES, limit)


def train_pairs(
    out: Path, data: Dataset, limit: Limit, *, seed: int, config: DiffusionConfig | None = None
) -> None:
    """Train the U-Net to give a frame the look of another one that is clean, from out/pictures to out/pairs.

    Cross-frame attention learns so where what moved got its colours from. Clips of 8 frames teach it too, but
    a step of the same number of frames holds a quarter of the looks and timesteps, and costs twice the time.
    """
    config = config or DiffusionConfig()
    unet, text_encoder = read_unet(out / "pictures").to(data.device).train(), read_text_encoder(out, data)

    def loss_of_step(step: int, over: float) -> Tensor:
        draws = generator(seed, "pairs", step, data.device)
        batch = data.draw_pairs(config.pairs, draws, config.caption_drop)
        text_embeds = text_encoder(batch.tokens_BM).last_hidden_state
        with pairs(unet) as predict:
            return first_frame_loss(predict, batch, config.figures, text_embeds, draws)

    train(out / "pairs", nn.ModuleDict({"unet": unet}), loss_of_step, PAIRS, limit)


def picture_loss(
    unet: UNet2DConditionModel, batch: Batch, figures: float, text_embeds: Tensor, draws: torch.Generator
) -> Tensor:
    """The error of the U-Net's velocity on single pictures; `figures` is the weight of people and things."""
    latents_BCHW = batch.latents
    noise_BCHW, timestep_B = _draw_noise(latents_BCHW, draws)
    noisy_BCHW = _SCHEDULE.add_noise(latents_BCHW, noise_BCHW, timestep_B)
    (v_BCHW,) = unet(noisy_BCHW, timestep_B, text_embeds, return_dict=False)
    target_BCHW = _SCHEDULE.get_velocity(latents_BCHW, noise_BCHW, timestep_B)
    return velocity_error(v_BCHW, target_BCHW, timestep_B, _weights(batch, figures))


def velocity_error(v: Tensor, target: Tensor, timestep_B: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Mean squared error, each picture or clip weighted with (min(SNR, 5) + 1/4) / (SNR + 1).

    So clean pictures, whose error is that of the velocity divided by SNR + 1, count min(SNR, 5) + 1/4:
    min-SNR (arXiv:2303.09556, 3.4) and a floor. `weights` are those of latent pixels.
    """
    error_B = ((v - target).square() * weights).flatten(1).mean(dim=1)
    snr_B: Tensor = compute_snr(_SCHEDULE, timestep_B)
    return (error_B * (snr_B.clamp(max=_MAX_SNR) + _MIN_WEIGHT) / (snr_B + 1)).mean()


def _weights(batch: Batch, figures: float) -> Tensor:
    """1 where there is no figure, for all channels."""
    return (1 + (figures - 1) * batch.figures).unsqueeze(-3)


def _draw_noise(latents: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    device = latents.device
    timestep_B = torch.randint(NUM_TIMESTEPS, (len(latents),), generator=draws, device=device)
    return torch.randn(latents.shape, generator=draws, device=device), timestep_B


@contextmanager
def pairs(unet: UNet2DConditionModel) -> Iterator[Predict]:
    """The U-Net on pairs of frames, the second of which sees the first; it is what it was afterwards."""
    undo = read_first_frame(unet, Present(VideoCall(num_frames=2)))
    try:
        yield partial(predict_frames, unet)
    finally:
        undo()


@contextmanager
def plain_clips(unet: UNet2DConditionModel, motion: MotionModel) -> Iterator[Predict]:
    """The U-Net with motion modules and plain attention, AnimateDiff; it is what it was afterwards."""
    model = AnimatedUNet(unet, motion)
    try:
        yield model.predict
    finally:
        model.remove()


@contextmanager
def cross_frame_clips(unet: UNet2DConditionModel, motion: MotionModel) -> Iterator[Predict]:
    """The U-Net with motion modules and cross-frame attention, FLASH; it is what it was afterwards."""
    model = add_cross_frame_attention(AnimatedUNet(unet, motion))
    try:
        yield model.predict
    finally:
        model.remove()


def train_clips(
    out: Path, data: Dataset, limit: Limit, *, seed: int, config: DiffusionConfig | None = None
) -> None:
    """Train motion modules and U-Net together on clips, from out/pairs into out/clips."""
    config = config or DiffusionConfig()
    text_encoder = read_text_encoder(out, data)
    unet = read_unet(out / "pairs").to(data.device).train()
    motion = new_motion(seed).to(data.device)
    ways = (
        (data.draw_pictures, config.pictures, lambda: nullcontext(unet), picture_loss),
        (data.draw_pairs, config.pairs, lambda: pairs(unet), first_frame_loss),
        (data.draw_clips, config.clips, lambda: plain_clips(unet, motion), plain_loss),
        (data.draw_clips, config.clips, lambda: cross_frame_clips(unet, motion), first_frame_loss),
    )
    shares = [config.picture_steps, config.pair_steps, config.plain_steps]
    shares.append(1 - sum(shares))

    def loss_of_step(step: int, over: float) -> Tensor:
        draws = generator(seed, "clips", step, data.device)
        ((draw, count, made_for_it, loss_of),) = random.Random(f"{seed} way {step}").choices(ways, shares)
        batch = draw(count, draws, config.caption_drop)
        text_embeds = text_encoder(batch.tokens_BM).last_hidden_state
        with made_for_it() as model:
            return loss_of(model, batch, config.figures_at(over), text_embeds, draws)

    train(out / "clips", nn.ModuleDict({"unet": unet, "motion": motion}), loss_of_step, CLIPS, limit)


def read_unet(folder: Path) -> UNet2DConditionModel:
    """The U-Net as a stage left it."""
    unet = new_unet(0)
    unet.load_state_dict(averaged_weights(folder, "unet"))
    return unet


def read_text_encoder(out: Path, data: Dataset) -> CLIPTextModel:
    """The text encoder as the stage `pictures` left it, to be used as it is."""
    text_encoder = new_text_encoder(data.tokenizer, 0)
    text_encoder.load_state_dict(averaged_weights(out / "pictures", "text_encoder"))
    return text_encoder.to(data.device).requires_grad_(False)


def plain_loss(
    predict: Predict, batch: Batch, figures: float, text_embeds: Tensor, draws: torch.Generator
) -> Tensor:
    """The error of the velocity of all frames: AnimateDiff's training (arXiv:2307.04725, Eq. 4)."""
    latents_BFCHW = batch.latents
    noise_BFCHW, timestep_B = _draw_noise(latents_BFCHW, draws)
    noisy_BFCHW = _SCHEDULE.add_noise(latents_BFCHW, noise_BFCHW, timestep_B)
    v_BFCHW = predict(noisy_BFCHW, timestep_B, text_embeds)
    target_BFCHW = _SCHEDULE.get_velocity(latents_BFCHW, noise_BFCHW, timestep_B)
    return velocity_error(v_BFCHW, target_BFCHW, timestep_B, _weights(batch, figures))


def first_frame_loss(
    predict: Predict, batch: Batch, figures: float, text_embeds: Tensor, draws: torch.Generator
) -> Tensor:
    """The error of the velocity of all frames but the first, which is clean as in FLASH's sampling."""
    latents_BFCHW = batch.latents
    noise_BFCHW, timestep_B = _draw_noise(latents_BFCHW, draws)
    noisy_BFCHW = _SCHEDULE.add_noise(latents_BFCHW, noise_BFCHW, timestep_B)
    shown_BFCHW = replace_first_frame(noisy_BFCHW, latents_BFCHW[:, :1])
    v_BFCHW = predict(shown_BFCHW, timestep_B, text_embeds)
    target_BFCHW = _SCHEDULE.get_velocity(latents_BFCHW, noise_BFCHW, timestep_B)
    weights_BF1HW = _weights(batch, figures)
    return velocity_error(v_BFCHW[:, 1:], target_BFCHW[:, 1:], timestep_B, weights_BF1HW[:, 1:])
