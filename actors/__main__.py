"""`python -m actors`: clips, contact sheets, and the models that are trained on them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from flash_modules.files.video_files import SUFFIXES

from .base import pretrain
from .judge import reader_training
from .studies import (
    ablation,
    agreement,
    channels,
    demo,
    details,
    exam,
    one_clip,
    page,
    redrawn,
    thumbnails,
    transfer,
    wan_transfer,
)
from .studies.learning import write_clip
from .world.actions import ACTIONS, EXTRA_MOTIONS
from .world.clips import make_clip, make_cut_clip
from .world.looks import draw_look
from .world.motion import draw_motion


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the result is the exit code."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped: the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m actors", description="Drawn people who perform actions, as clips with their truth."
    )
    commands = parser.add_subparsers(title="commands", required=True)
    clips = commands.add_parser("clips", help="write clips of an action into a folder")
    clips.set_defaults(run=write_clips)
    clips.add_argument("--action", required=True, metavar="NAME", help=", ".join((*ACTIONS, *EXTRA_MOTIONS)))
    clips.add_argument("--out", type=Path, required=True, help="the folder; it is made where it is missing")
    clips.add_argument("--num", type=_positive, default=8, help="number of clips (default %(default)s)")
    clips.add_argument(
        "--frames", type=_positive, default=8, help="of a clip, 8 a second (default %(default)s)"
    )
    clips.add_argument("--size", type=_positive, default=128, help="pixels on a side (default %(default)s)")
    clips.add_argument("--seed", type=int, default=0, help="another seed, other clips (default %(default)s)")
    clips.add_argument(
        "--suffix", choices=SUFFIXES, default=".mp4", help="kind of file (default %(default)s)"
    )
    clips.add_argument(
        "--held-out-looks", action="store_true", help="only looks the small base has never seen"
    )
    clips.add_argument("--close", action="store_true", help="film from nearby")
    clips.add_argument(
        "--cut", action="store_true", help="in frame 0 the person is elsewhere: to try detail decoders"
    )
    clips.add_argument(
        "--truth", action="store_true", help="also joints, flow and masks, as .npz beside each"
    )
    sheet = commands.add_parser("sheet", help="draw a contact sheet of every action")
    sheet.set_defaults(run=write_sheet)
    sheet.add_argument("--out", type=Path, required=True, help="the picture's file name")
    sheet.add_argument(
        "--looks", type=_positive, default=1, help="rows for each action (default %(default)s)"
    )
    sheet.add_argument("--seed", type=int, default=0, help="default %(default)s")
    base = commands.add_parser("pretrain", help="make the small base, from rendering clips to its files")
    pretrain.add_arguments(base)
    reader_training.add_arguments(commands.add_parser("reader", help="train the reader of joints and looks"))
    page.add_arguments(commands.add_parser("page", help="show and measure what the small base knows"))
    demo.add_arguments(commands.add_parser("demo", help="learn an action, animate pictures, show it"))
    ablation.add_arguments(
        commands.add_parser("ablate", help="learn held-out actions by variants of the method")
    )
    transfer.add_arguments(
        commands.add_parser("transfer", help="measure what a motion learned in one look carries over")
    )
    wan_transfer.add_arguments(
        commands.add_parser("wan-transfer", help="the same of LoRAs that the small Wan learns")
    )
    wan_transfer.add_base_arguments(commands.add_parser("wan-base", help="make the small Wan"))
    channels.add_arguments(
        commands.add_parser("channels", help="measure whether aligned channels move or answer to noise")
    )
    agreement.add_arguments(
        commands.add_parser("agreement", help="measure which scores of `evaluate` agree with the judge")
    )
    details.add_arguments(commands.add_parser("details", help="measure what a detail decoder brings back"))
    exam.add_arguments(commands.add_parser("exam", help="whether a run's exam knows when to stop"))
    one_clip.add_arguments(
        commands.add_parser("one-clip", help="measure what tokens learned from one clip carry over")
    )
    redrawn.add_arguments(commands.add_parser("redrawn", help="measure true videos, drawn again"))
    thumbnails.add_arguments(
        commands.add_parser("thumbnails", help="draw the cards of ComfyUI's templates into workflows/")
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def write_clips(args: argparse.Namespace) -> None:
    """Write clips, each with its caption in a .txt beside it."""
    args.out.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(args.num), desc=args.action, unit="clip"):
        seed = args.seed * 1000 + i
        motion = draw_motion(args.action, seed, args.close)
        look = draw_look(seed, args.held_out_looks)
        make = make_cut_clip if args.cut else make_clip
        clip = make(motion, look, num_frames=args.frames, size=args.size)
        path = args.out / f"{args.action.replace(' ', '-')}-{i:03d}{args.suffix}"
        write_clip(path, clip)
        if args.truth:
            np.savez_compressed(
                path.with_suffix(".npz"), joints=clip.joints_FPJ2, flow=clip.flow_FHW2, masks=clip.masks_FHW
            )


def write_sheet(args: argparse.Namespace) -> None:
    """Draw every action, a row of frames for each look; the last look of each is a held-out one."""
    rows = []
    for i, action in enumerate(tqdm((*ACTIONS, *EXTRA_MOTIONS), unit="action")):
        for j in range(args.looks):
            seed = args.seed * 1000 + 20 * i + j
            look = draw_look(seed, held_out=args.looks > 1 and j == args.looks - 1)
            rows.append(np.concatenate(make_clip(draw_motion(action, seed), look).frames_FHW3, axis=1))
    Image.fromarray(np.concatenate(rows)).save(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
