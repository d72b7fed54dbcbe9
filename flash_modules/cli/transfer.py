"""`python -m flash_modules transfer`: a picture performs the action of one clip."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..backends.diffusers.cogvideox import (
    BaseFiles,
    add_transfer,
    bytes_of,
    check_prompts,
    decode_video,
    encode_picture,
    encode_prompt,
    find_base,
    forward_bytes,
    guided_velocity,
    keep_blocks_on_cpu,
    load_text_encoder,
    load_transformer,
    load_vae,
    read_tokenizer,
)
from ..files.video_files import check_video_path, fit_picture, frames_skipped, read_picture, write_video
from ..files.whole import check_place
from ..flexiact.action_file import read_transfer_action
from ..flexiact.performance import Performance
from ..flexiact.ref_adapter_file import STRENGTH, read_ref_adapter
from ..flexiact.reweighting import RELEASED, EarlyBoost
from ..flexiact.sampling import TransferConfig, draw_start, draw_step_noise, sample_latents
from .device import DTYPES, find_device, free_memory
from .metadata import add_metadata_argument, origin
from .run import find_dtype


def add_transfer_command(parser: argparse.ArgumentParser) -> None:
    """Arguments of `transfer`."""
    parser.description = (
        "Let your picture perform an action that was learned once from one clip (FlexiAct). Nothing is "
        "downloaded."
    )
    parser.set_defaults(run=transfer, when_full="use --offload blocks, or close what else uses it")
    _add_models(parser.add_argument_group("models"))
    _add_video(parser.add_argument_group("video"))
    _add_run(parser.add_argument_group("run"))


def _add_models(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--base", type=Path, required=True, help="CogVideoX-5b-I2V: a folder in diffusers' layout"
    )
    group.add_argument(
        "--action",
        type=Path,
        required=True,
        action="append",
        help="action file; several are performed at once",
    )
    group.add_argument(
        "--strength", type=float, default=1.0, help="of the action: 0 = off, 1 = as learned (default)"
    )
    group.add_argument("--ref-adapter", type=Path, help="RefAdapter file, which keeps the picture's look")
    group.add_argument(
        "--ref-strength", type=float, default=STRENGTH, help="of the RefAdapter: 0 = off, default %(default)s"
    )
    group.add_argument(
        "--early-boost",
        type=float,
        default=EarlyBoost.strength,
        help="how much harder early steps look at the action (default %(default)s, the paper's)",
    )
    group.add_argument(
        "--boost-limits",
        type=int,
        nargs=2,
        metavar=("FULL", "NONE"),
        default=(EarlyBoost.full, EarlyBoost.none),
        help="timesteps from which up all of it, and from which down nothing is added (default 800 700)",
    )
    group.add_argument(
        "--released", action="store_true", help="as the released code does it: without the early boost"
    )


def _add_video(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", type=Path, required=True, help="the picture, which is frame 0")
    group.add_argument(
        "--prompt", required=True, help="what is to be seen; like the clip's, but of your picture"
    )
    group.add_argument("--negative", default="", help="what is not to be seen")
    group.add_argument(
        "--fps", type=int, default=8, help="frames per second (default %(default)s, as trained)"
    )
    group.add_argument(
        "--trim-first-frame", action="store_true", help="leave out frame 0, from which the motion jumps"
    )
    group.add_argument("--out", type=Path, required=True, help="the video's file name, for example out.mp4")
    add_metadata_argument(group)


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--steps", type=int, default=TransferConfig.steps, help="default %(default)s")
    group.add_argument(
        "--cfg", type=float, default=TransferConfig.cfg, help="weight of the prompt (default %(default)s)"
    )
    group.add_argument(
        "--seed", type=int, default=0, help="another seed, another video (default %(default)s)"
    )
    group.add_argument(
        "--offload",
        choices=("auto", "blocks", "none"),
        default="auto",
        help="blocks: each is on the GPU only while it computes; auto (default): so if memory is short",
    )
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--dtype", choices=["auto", *DTYPES], default="auto", help="auto (default) is bf16 on CUDA, else fp32"
    )


def transfer(args: argparse.Namespace) -> None:
    """Write the video that the arguments describe; all of them are checked before a model is read."""
    config = TransferConfig(steps=args.steps, cfg=args.cfg)
    device = find_device(args.device)
    dtype = find_dtype(args.dtype, device)
    _check_numbers(args)
    boost = _boost(args)
    check_place(args.out)
    check_video_path(args.out)
    if (step := frames_skipped(args.out, args.fps)) > 1:
        _say(f"Viewers show at most 50 frames of a {args.out.suffix} per second: of {step} one is written.")
    files = find_base(args.base)
    check_prompts(files, [args.prompt, args.negative])
    image_1HWC = fitted_picture(args.image, files)
    actions = [read_transfer_action(path) for path in args.action]
    performances = [Performance(action=action, strength=args.strength, boost=boost) for action in actions]
    adapter = read_ref_adapter(args.ref_adapter) if args.ref_adapter else None
    _say("\n".join([*(action.summary for action in actions), *([adapter.summary] if adapter else [])]))

    prompt, negative = encode_prompts(files, [args.prompt, args.negative], device, dtype)
    vae = load_vae(files, dtype)
    picture_1CHW = encode_picture(vae.to(device), image_1HWC).float()
    vae.to("cpu")
    transformer = load_transformer(files, dtype)
    add_transfer(transformer, performances, adapter, args.ref_strength)
    if must_offload(args.offload, forward_bytes(transformer), device):
        _say("Blocks of the transformer wait in the computer's memory and come to the GPU one by one.")
        keep_blocks_on_cpu(transformer, device)
    else:
        transformer.to(device)
    with tqdm(total=args.steps, desc="Performing", unit="step") as bar:
        latents_FCHW = sample_latents(
            guided_velocity(transformer, picture_1CHW, prompt, negative, config.cfg),
            draw_start(*files.shape.latents, seed=args.seed).to(device),
            draw_step_noise(*files.shape.latents, seed=args.seed),
            config.steps,
            on_step=bar.update,
        )
    transformer.to("cpu")
    _write(args, decode_video(vae.to(device), latents_FCHW), files.shape.frames)


def _write(args: argparse.Namespace, frames: Iterator[Tensor], total: int) -> None:
    first = int(args.trim_first_frame)
    shown = tqdm(islice(frames, first, None), total=total - first, desc="Decoding", unit="frame")
    actions = [("action", path) for path in args.action]
    write_video(args.out, shown, args.fps, origin(args, [*actions, ("picture", args.image)]))
    _say(f"Wrote {args.out}")


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise ValueError for numbers that nothing further on checks, and for settings without their file."""
    if args.fps < 1:
        raise ValueError(f"--fps must be 1 or more, but it is {args.fps}.")
    if not 0 <= args.seed < 2**64 - 1:
        raise ValueError(f"--seed must lie between 0 and 2^64 - 2, but it is {args.seed}.")
    if not math.isfinite(args.ref_strength):
        raise ValueError(f"--ref-strength must be a number, but it is {args.ref_strength}.")
    if args.ref_adapter is None and args.ref_strength != STRENGTH:
        raise ValueError("--ref-strength says how much of a --ref-adapter: give one, or leave it out.")


def _boost(args: argparse.Namespace) -> EarlyBoost:
    full, none = args.boost_limits
    boost = EarlyBoost(strength=args.early_boost, full=full, none=none)
    if args.released and boost != EarlyBoost():
        raise ValueError("--released has no early boost: leave out --early-boost and --boost-limits, or it.")
    return RELEASED if args.released else boost


def fitted_picture(path: Path, files: BaseFiles) -> Tensor:
    """The picture at the size of the video; what was done to it is said."""
    picture, size = read_picture(path), (files.shape.width, files.shape.height)
    if size != picture.size:
        before, after = (f"{width} x {height}" for width, height in (picture.size, size))
        _say(f"The picture is {before}; its centre was taken and resized to {after}.")
    return fit_picture(picture, size)


def encode_prompts(
    files: BaseFiles, prompts: list[str], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Text embeddings (1, M, C); the text encoder, which is as large as the transformer, goes again."""
    encode = prompt_encoder(files, device, dtype)
    return [encode(prompt).to(device) for prompt in prompts]


def prompt_encoder(files: BaseFiles, device: torch.device, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """A text encoder, on the device if it fits there: what it gives are text embeddings (1, M, C)."""
    encoder = load_text_encoder(files, dtype)
    tokenizer = read_tokenizer(files.tokenizer, encoder.config.vocab_size)
    if bytes_of(encoder) < free_memory(device):
        encoder.to(device)
    return lambda prompt: encode_prompt(encoder, tokenizer, prompt, files.max_text)


def must_offload(choice: str, needed: int, device: torch.device) -> bool:
    """Whether blocks wait on the CPU: by the user's choice, or because so many bytes are not free."""
    return choice == "blocks" or (choice == "auto" and device.type != "cpu" and needed > free_memory(device))


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
