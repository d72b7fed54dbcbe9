"""Training of the reader, and how well it reads clips that it has not seen.

Axes in names of tensors: L looks, 2 motions of each, F frames.
"""

import argparse
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from flash_modules.backends.diffusers.sd15 import load_vae
from flash_modules.files.tensor_file import write_tensors

from ..base.small_base import FOLDER
from ..world.actions import ACTIONS, EXTRA_MOTIONS
from ..world.clips import Clip, clip_video, make_clip
from ..world.looks import Dress, Look, draw_look
from ..world.motion import draw_motion
from ..world.skeleton import JOINTS
from .movements import FILE, read_movements, write_movements
from .reader import (
    CELL,
    MAP,
    MIRRORED,
    PELVIS,
    SIZE,
    WEIGHTS,
    Reader,
    actor_is_right,
    joint_distance,
    load_reader,
    read_joints,
    read_looks,
)


@dataclass(frozen=True)
class _Family:
    """Two looks and two made of their parts: neither the place nor the clothes alone give one away."""

    frames_L2FHWC: np.ndarray
    joints_L2FPJ2: np.ndarray
    """Of two people; one alone counts twice."""


def _family(draw: np.random.Generator) -> _Family:
    first, second = (draw_look(int(draw.integers(2**31)), held_out=bool(draw.integers(2))) for _ in range(2))
    looks = [first, second, *_relatives(first, second)]
    clips = [[_any_clip(look, draw) for _ in range(2)] for look in looks]
    return _Family(
        np.stack([[clip.frames_FHW3 for clip in pair] for pair in clips]),
        np.stack([[clip.joints_FPJ2[:, [0, -1]] for clip in pair] for pair in clips]),
    )


def _relatives(first: Look, second: Look) -> list[Look]:
    """The first actor in the place of the second, and in its clothes."""
    place = {
        name: getattr(second, name) for name in ("scene", "scene_seed", "light", "light_from", "vignette")
    }
    clothes = {
        field.name: getattr(second.actor, field.name)
        for field in fields(Dress)
        if field.name not in ("skin", "hair")
    }
    return [replace(first, **place), replace(first, actor=replace(first.actor, **clothes))]


def _any_clip(look: Look, draw: np.random.Generator) -> Clip:
    action = str(draw.choice(ACTIONS + EXTRA_MOTIONS))
    return make_clip(draw_motion(action, int(draw.integers(2**31))), look, num_frames=8, size=SIZE)


def _batch(families: list[_Family], draw: np.random.Generator, num: int = 4) -> tuple[Tensor, Tensor]:
    """One frame of each look and motion of some families, the two frames of a look side by side."""
    frames, joints = [], []
    for i in draw.choice(len(families), size=num, replace=False):
        family = families[i]
        num_looks, num_motions, num_frames = family.frames_L2FHWC.shape[:3]
        for look, motion in np.ndindex(num_looks, num_motions):
            f = draw.integers(num_frames)
            frames.append(family.frames_L2FHWC[look, motion, f])
            joints.append(family.joints_L2FPJ2[look, motion, f])
    frames_BCHW = rearrange(torch.from_numpy(np.stack(frames)).float() / 255, "b h w c -> b c h w")
    return frames_BCHW, torch.from_numpy(np.stack(joints)).float()


def _moved(frames_BCHW: Tensor, joints_BPJ2: Tensor) -> tuple[Tensor, Tensor]:
    """Frames and joints (B, P, J, 2) mirrored, turned, scaled, shifted and bent a little."""
    b = len(frames_BCHW)
    angle_B, scale_B = _uniform(b, -0.2, 0.2), _uniform(b, 0.8, 1.25)
    flip_B = torch.where(torch.rand(b) < 0.5, -1.0, 1.0)
    turn_B22 = torch.stack([angle_B.cos(), -angle_B.sin(), angle_B.sin(), angle_B.cos()], -1).view(b, 2, 2)
    turn_B22 = turn_B22 * torch.stack([flip_B, torch.ones(b)], -1)[:, :, None] / scale_B[:, None, None]
    shift_B12 = _uniform((b, 1, 2), -0.15, 0.15)
    bend_B2HW = nnf.interpolate(_uniform((b, 2, 5, 5), -0.04, 0.04), size=(SIZE, SIZE), mode="bicubic")
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    grid_HW2 = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    straight_BN2 = grid_HW2.flatten(0, 1) @ turn_B22.mT + shift_B12
    from_BHW2 = straight_BN2.view(b, SIZE, SIZE, 2) + rearrange(bend_B2HW, "b c h w -> b h w c")
    moved_BCHW = nnf.grid_sample(frames_BCHW, from_BHW2, padding_mode="border", align_corners=False)
    joints_BN2 = rearrange(joints_BPJ2, "b p j xy -> b (p j) xy")
    places_BN2 = (joints_BN2 / SIZE * 2 - 1 - shift_B12) @ torch.linalg.inv(turn_B22).mT
    bend_BCN1 = nnf.grid_sample(bend_B2HW, places_BN2[:, :, None], align_corners=False)
    places_BN2 = places_BN2 - rearrange(bend_BCN1, "b c n 1 -> b n c") @ torch.linalg.inv(turn_B22).mT
    places_BPJ2 = rearrange(places_BN2, "b (p j) xy -> b p j xy", j=len(JOINTS))
    places_BPJ2 = torch.where(flip_B[:, None, None, None] < 0, places_BPJ2[:, :, MIRRORED], places_BPJ2)
    return moved_BCHW, (places_BPJ2 + 1) / 2 * SIZE


def _left_person(joints_BPJ2: Tensor) -> Tensor:
    person_B = joints_BPJ2[:, :, PELVIS, 0].argmin(dim=1)
    return joints_BPJ2[torch.arange(len(joints_BPJ2)), person_B]


def _worn(frames_BCHW: Tensor) -> Tensor:
    """Frames with the faults of generated ones: soft, noisy, blotched, and of slightly other colours."""
    b = len(frames_BCHW)
    soft = [_softened(part, float(_uniform((), 1.0, 3.5))) for part in frames_BCHW.chunk(4)]
    colour_B311 = _uniform((b, 3, 1, 1), 0.9, 1.1) * _uniform((b, 1, 1, 1), 0.85, 1.15)
    noise_BCHW = torch.randn(b, 3, SIZE, SIZE) * _uniform((b, 1, 1, 1), 0.0, 0.06)
    for cells in (4, 32):
        blotches = torch.randn(b, 3, cells, cells) * _uniform((b, 1, 1, 1), 0.0, 0.05)
        noise_BCHW += nnf.interpolate(blotches, size=(SIZE, SIZE), mode="bilinear")
    mixed_BCHW = (torch.cat(soft) - 0.5) * colour_B311 + 0.5 + _uniform((b, 3, 1, 1), -0.05, 0.05)
    return (mixed_BCHW + noise_BCHW).clamp(0, 1)


@torch.inference_mode()
def _rebuilt(vae: AutoencoderKL, frames_BCHW: Tensor) -> Tensor:
    """Frames as a VAE makes them from latents that are a little wrong: blurred, with colours of elsewhere."""
    latents_BCHW = vae.encode(2 * frames_BCHW - 1).latent_dist.mean
    wrong_B111 = latents_BCHW.std() * _uniform((len(frames_BCHW), 1, 1, 1), 0.0, 0.4)
    latents_BCHW = latents_BCHW + wrong_B111 * torch.randn(latents_BCHW.shape)
    decoded_BCHW: Tensor = vae.decode(latents_BCHW).sample
    return (decoded_BCHW / 2 + 0.5).clamp(0, 1)


def _softened(frames_BCHW: Tensor, factor: float) -> Tensor:
    small = nnf.interpolate(frames_BCHW, size=round(SIZE / factor), mode="bilinear", antialias=True)
    return nnf.interpolate(small, size=SIZE, mode="bicubic")


def _uniform(shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
    return torch.empty(shape).uniform_(low, high)


def joint_loss(logits_BJHW: Tensor, joints_BJ2: Tensor) -> Tensor:
    """Cross entropy to a bell of one cell around each joint; joints outside of the picture do not count."""
    axis = (torch.arange(MAP) + 0.5) * CELL
    apart_BJ2M = (axis - joints_BJ2[..., None]) / CELL
    bell_BJ2M = torch.exp(-0.5 * apart_BJ2M.square())
    wanted_BJHW = bell_BJ2M[:, :, 1, :, None] * bell_BJ2M[:, :, 0, None, :]
    inside_BJ = ((joints_BJ2 > 0) & (joints_BJ2 < SIZE)).all(dim=-1)
    wanted_BJN = wanted_BJHW.flatten(2) / (wanted_BJHW.sum((2, 3))[..., None] + 1e-9)
    loss_BJ = -(wanted_BJN * logits_BJHW.flatten(2).log_softmax(dim=-1)).sum(dim=-1)
    return (loss_BJ * inside_BJ).sum() / inside_BJ.sum()


def look_loss(look_BE: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE (arXiv:1807.03748) both ways: frames 2 i and 2 i + 1 share a look, all others differ."""
    one_LE, other_LE = rearrange(look_BE, "(l two) e -> two l e", two=2)
    logits_LL = one_LE @ other_LE.T / temperature
    same_L = torch.arange(len(logits_LL))
    return (nnf.cross_entropy(logits_LL, same_L) + nnf.cross_entropy(logits_LL.T, same_L)) / 2


def train(out: Path, *, minutes: float, seed: int = 0, resume: bool = False) -> Reader:
    """Train for that time and write the weights in fp16, also once a minute on the way.

    `resume` starts from the weights in `out`, with other clips.
    """
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    reader = load_reader(out).requires_grad_(True) if resume else Reader()
    vae = load_vae(FOLDER)
    out.parent.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=1e-2)
    families = [_family(draw) for _ in range(8)]
    start = saved = time.monotonic()
    step = 0
    while (part := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = (
            3e-3 * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * math.cos(part * math.pi / 2) ** 2)
        )
        if step % 8 == 7:
            families.append(_family(draw))
        frames_BCHW, joints_BPJ2 = _moved(*_batch(families, draw))
        few_BCHW, most_BCHW = torch.tensor_split(frames_BCHW, [len(frames_BCHW) // 4])
        logits_BJHW, look_BE = reader(torch.cat([_rebuilt(vae, few_BCHW), _worn(most_BCHW)]))
        losses = joint_loss(logits_BJHW, _left_person(joints_BPJ2)), look_loss(look_BE)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{part:4.0%}  step {step}  joints {losses[0]:.3f}  look {losses[1]:.3f}", flush=True)
        if time.monotonic() - saved > 60:
            _write(reader, out, step, seed)
            saved = time.monotonic()
        step += 1
    _write(reader, out, step, seed)
    return load_reader(out)


def _write(reader: Reader, out: Path, step: int, seed: int) -> None:
    tensors = {name: tensor.half() for name, tensor in reader.state_dict().items()}
    write_tensors(out, tensors, {"script": "python -m actors reader", "steps": str(step), "seed": str(seed)})


@torch.inference_mode()
def check(reader: Reader, *, clips_each: int = 4, seed: int = 10**6) -> str:
    """The reader's own errors on fresh clips, as a Markdown table: pixels at 128, cosines of looks."""
    draw = np.random.default_rng(seed)
    rows = ["| motion | joints, px | soft frames, px | same look | other look |", "|---|---|---|---|---|"]
    for action in ACTIONS + EXTRA_MOTIONS:
        found = [_check_clip(reader, action, draw) for _ in range(clips_each)]
        rows.append(
            f"| {action} | "
            + " | ".join(f"{_mean(column):.2f}" for column in zip(*found, strict=True))
            + " |"
        )
    return "\n".join(rows)


def _check_clip(reader: Reader, action: str, draw: np.random.Generator) -> tuple[float, float, float, float]:
    motion, other_motion = (draw_motion(name, int(draw.integers(2**31))) for name in (action, "gesturing"))
    look, other_look = (
        draw_look(int(draw.integers(2**31)), held_out=bool(draw.integers(2))) for _ in range(2)
    )
    clip, same, other = (
        make_clip(m, k, num_frames=8, size=SIZE)
        for m, k in ((motion, look), (other_motion, look), (motion, other_look))
    )
    right = actor_is_right(clip)
    video_FHWC, true_FJ2 = clip_video(clip), torch.from_numpy(clip.joints_FPJ2[:, 0])
    soft_FHWC = rearrange(_softened(rearrange(video_FHWC, "f h w c -> f c h w"), 2.5), "f c h w -> f h w c")
    look_E, same_E, other_E = (
        nnf.normalize(read_looks(reader, clip_video(c)).mean(dim=0), dim=0) for c in (clip, same, other)
    )
    return (
        joint_distance(read_joints(reader, video_FHWC, right_person=right), true_FJ2),
        joint_distance(read_joints(reader, soft_FHWC.clamp(0, 1), right_person=right), true_FJ2),
        (look_E @ same_E).item(),
        (look_E @ other_E).item(),
    )


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `reader`."""
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="of training; 0 only checks (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the weights' file (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")


def _run(args: argparse.Namespace) -> None:
    if args.minutes:
        reader = train(args.out, minutes=args.minutes, seed=args.seed, resume=args.resume)
        write_movements(read_movements(reader), args.out.with_name(FILE.name))
    print(check(load_reader(args.out)))
