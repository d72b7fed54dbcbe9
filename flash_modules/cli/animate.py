"""`python -m flash_modules animate`: a picture moves."""

import argparse
import math
import re
import sys
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..animatediff.motion_file import read_motion
from ..backends.diffusers.sd15 import (
    BaseFiles,
    add_action,
    decode_frames,
    decode_frames_with_details,
    encode_picture,
    encode_prompt,
    find_base,
    load_base,
    make_detail_decoder,
)
from ..files.footage import Size
from ..files.video_files import (
    SUFFIXES,
    check_size,
    check_video_path,
    fit_picture,
    frames_skipped,
    read_picture,
    video_size,
    write_video,
)
from ..files.whole import check_place
from ..flash.action_file import read_action
from ..flash.adain import AdaINConfig
from ..flash.decoder_file import read_detail_decoder
from ..flash.first_frame import PROMISE
from ..flash.sampling import SamplerConfig, sample_video
from .device import DTYPES, find_device
from .metadata import add_metadata_argument, origin


def add_animate(parser: argparse.ArgumentParser) -> None:
    """Arguments of `animate`."""
    parser.description = "Make a video that starts with your picture. Nothing is downloaded."
    parser.set_defaults(run=animate)
    models = parser.add_argument_group("models")
    models.add_argument(
        "--base",
        type=Path,
        required=True,
        help="Stable Diffusion 1.5: a folder in diffusers' layout, or a checkpoint file",
    )
    models.add_argument(
        "--tokenizer", type=Path, help="folder with vocab.json and merges.txt, for a checkpoint file"
    )
    models.add_argument(
        "--motion", type=Path, help="AnimateDiff motion module; a standalone action brings its own"
    )
    models.add_argument(
        "--action", type=Path, help="action file; without one the motion is AnimateDiff's own"
    )
    models.add_argument(
        "--strength", type=float, default=1.0, help="of the action: 0 = off, 1 = as trained (default)"
    )
    models.add_argument("--decoder", type=Path, help="detail decoder file, made for the base's VAE")
    models.add_argument(
        "--details",
        type=float,
        default=1.0,
        help="how much of the detail decoder: 0 = off, 1 = all (default)",
    )
    models.add_argument(
        "--keep-first-frame",
        action="store_true",
        help=f"{PROMISE} with this switch (the step to frame 1 may then be seen)",
    )
    video = parser.add_argument_group("video")
    video.add_argument("--image", type=Path, required=True, help="the picture, the first frame")
    video.add_argument("--prompt", required=True, help="what is to be seen; plain words, no (word:1.2)")
    video.add_argument("--negative", default="", help="what is not to be seen")
    video.add_argument("--frames", type=int, default=SamplerConfig.num_frames, help="default %(default)s")
    video.add_argument(
        "--size",
        type=_size,
        help="WxH, 512x512 for example (default: the picture's, at most 512x512 in area)",
    )
    video.add_argument("--fps", type=int, default=8, help="frames per second (default %(default)s)")
    video.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"the video's file name, which ends in {', '.join(SUFFIXES)}; without one, a folder of PNGs",
    )
    add_metadata_argument(video)
    run = parser.add_argument_group("run")
    run.add_argument("--steps", type=int, default=SamplerConfig.steps, help="default %(default)s")
    run.add_argument(
        "--cfg", type=float, default=SamplerConfig.cfg, help="weight of the prompt (default %(default)s)"
    )
    run.add_argument("--seed", type=int, default=0, help="another seed, another video (default %(default)s)")
    run.add_argument(
        "--adain",
        type=float,
        default=AdaINConfig.strength,
        help="against drift of colours, 0 to 1 (default 1)",
    )
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    run.add_argument(
        "--dtype",
        choices=["auto", *DTYPES],
        default="auto",
        help="auto (default) is fp16 on CUDA, else fp32",
    )


def _size(text: str) -> Size:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: write it as 512x512, width first.")
    return int(found[1]), int(found[2])


def animate(args: argparse.Namespace) -> None:
    """Write the video that the arguments describe; all of them are checked before a model is read."""
    config = SamplerConfig(num_frames=args.frames, steps=args.steps, cfg=args.cfg)
    style = AdaINConfig(strength=args.adain)
    device, dtype = find_device(args.device), DTYPES.get(args.dtype)
    _check_numbers(args)
    check_place(args.out)
    check_video_path(args.out)
    if (step := frames_skipped(args.out, args.fps)) > 1:
        _say(
            f"Viewers show at most 50 frames of a {args.out.suffix} per second: of {step} one is written, and"
            " the video lasts as long."
        )
    files = find_base(args.base, args.tokenizer)
    image_1HWC = _first_frame(args.image, args.size, files)
    motion = read_motion(args.motion) if args.motion else None
    action = read_action(args.action) if args.action else None
    details = read_detail_decoder(args.decoder) if args.decoder else None
    _say("\n".join(part.summary for part in (motion, action, details) if part))

    made_from = origin(args, [("motion", args.motion), ("action", args.action), ("picture", args.image)])
    base = load_base(files)
    if base.note:
        _say(f"{args.base.name}: {base.note}")
    prompt, negative = encode_prompt(base, args.prompt), encode_prompt(base, args.negative)
    vae = base.vae.to(device)  # in fp32: some VAEs give black pictures in fp16
    detail_decoder = make_detail_decoder(vae, details) if details else None
    reference_1CHW = encode_picture(vae, image_1HWC)
    model = add_action(base.unet, motion, action, args.strength)
    model.to(device, dtype or (torch.float16 if device.type == "cuda" else torch.float32))
    with tqdm(total=args.steps, desc="Animating", unit="step") as bar:
        latents_FCHW = sample_video(
            model.predict,
            reference_1CHW,
            prompt,
            negative,
            prediction=base.prediction,
            seed=args.seed,
            config=config,
            style=style,
            on_step=bar.update,
        )
    kept_1HWC = image_1HWC[: 1 if args.keep_first_frame else 0]
    latents_FCHW = latents_FCHW[len(kept_1HWC) :]
    decoded = (
        decode_frames_with_details(vae, detail_decoder, latents_FCHW, image_1HWC, args.details)
        if detail_decoder
        else decode_frames(vae, latents_FCHW)
    )
    frames = chain(kept_1HWC, decoded)
    write_video(args.out, tqdm(frames, total=args.frames, desc="Decoding", unit="frame"), args.fps, made_from)
    _say(f"Wrote {args.out}")


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise ValueError for numbers that nothing further on checks, and for settings without their file."""
    if args.fps < 1:
        raise ValueError(f"--fps must be 1 or more, but it is {args.fps}.")
    if not 0 <= args.seed < 2**64:
        raise ValueError(f"--seed must lie between 0 and 2^64 - 1, but it is {args.seed}.")
    for name in ("strength", "details"):
        if not math.isfinite(getattr(args, name)):
            raise ValueError(f"--{name} must be a number, but it is {getattr(args, name)}.")
    if args.motion is None and args.action is None:
        raise ValueError(
            "There is nothing to animate with: give --motion, or a standalone action with --action."
        )
    if args.action is None and args.strength != 1.0:
        raise ValueError("--strength is the strength of an action: give one with --action, or leave it out.")
    if args.decoder is None and args.details != 1.0:
        raise ValueError("--details says how much of a --decoder: give one, or leave it out.")


def _first_frame(path: Path, size: Size | None, files: BaseFiles) -> Tensor:
    """The picture at the size of the video; what was done to it is said."""
    picture = read_picture(path)
    multiple = math.lcm(2, files.vae_factor)  # videos need even sizes
    size = size or video_size(picture.size, multiple)
    check_size(size, multiple)
    if size != picture.size:
        before, after = (f"{width} x {height}" for width, height in (picture.size, size))
        _say(f"The picture is {before}; its centre was taken and resized to {after}.")
    return fit_picture(picture, size)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
