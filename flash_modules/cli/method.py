"""Arguments of the method of training, and the method that they describe."""

import argparse
from dataclasses import replace
from typing import Any

from ..files.json_file import read_json
from ..flash.augment import AugmentConfig
from ..flash.motion_alignment import AlignmentConfig
from ..flash.training.action_training import ActionTrainingConfig
from ..flash.training.method import TRAINABLE, VARIANTS, MethodConfig
from ..flash.training.method_settings import as_begun
from ..flash.training.noise_law import TimestepConfig
from ..training.run_folder import SETTINGS
from .run import add_size_arguments


def add_method_arguments(group: Any) -> None:
    """Arguments of the method."""
    method, alignment = MethodConfig(), AlignmentConfig()
    add_size_arguments(group)
    group.add_argument(
        "--variant",
        type=int,
        choices=VARIANTS,
        default=5,
        help="of the paper's Table 2 (default 5, all of it)",
    )
    group.add_argument("--tau", type=float, help=f"percentile of motion channels (default {alignment.tau:g})")
    group.add_argument("--p", type=float, help=f"part of aligned attentions (default {alignment.p:g})")
    group.add_argument(
        "--align-at",
        choices=("attention", "module"),
        default="attention" if alignment.after_attention else "module",
        help="motion is aligned after each temporal attention, or each motion module (default %(default)s)",
    )
    group.add_argument(
        "--align-frames",
        choices=("all", "later"),
        help="frames whose motion is aligned: all (default), as in the paper, or without the clean first one",
    )
    group.add_argument(
        "--align-channels",
        choices=("moving", "beyond-still"),
        default="beyond-still" if alignment.relative_to_still else "moving",
        help="moving: those that change most over time, as in the paper; beyond-still: those that "
        "change more than with a still clip of the same noise (default %(default)s)",
    )
    group.add_argument(
        "--first-frame-keys", action="store_true", help="align the correspondence with the first frame alone"
    )
    group.add_argument(
        "--detach", action="store_true", help="no gradient flows from the twin into what it takes"
    )
    group.add_argument(
        "--noise",
        choices=("own", "shared"),
        default="shared" if method.shared_noise else "own",
        help="of the twin: its own, or the clip's (default %(default)s)",
    )
    group.add_argument(
        "--alpha",
        type=float,
        default=method.timesteps.alpha,
        help="how much more often noisy timesteps are drawn; 0 = all alike (default %(default)s)",
    )
    group.add_argument(
        "--text-drop",
        type=float,
        default=ActionTrainingConfig.text_drop,
        help="chance of the empty prompt in place of a clip's (default %(default)s)",
    )
    group.add_argument("--trainable", choices=TRAINABLE, default=method.trainable, help="default %(default)s")


def chosen_method(args: argparse.Namespace, size: int) -> MethodConfig:
    """As the arguments say it; what they leave to a default is as the run has it, if it was begun."""
    method = VARIANTS[args.variant]
    given = {name: value for name in ("tau", "p") if (value := getattr(args, name)) is not None}
    alignment = replace(
        method.alignment,
        **given,
        after_attention=args.align_at == "attention",
        exclude_first=args.align_frames == "later",
        relative_to_still=args.align_channels == "beyond-still",
        first_frame_only=args.first_frame_keys,
        detach_source=args.detach,
    )
    method = replace(
        method,
        alignment=alignment,
        augment=AugmentConfig(size=size),
        timesteps=TimestepConfig(alpha=args.alpha),
        shared_noise=args.noise == "shared",
        trainable=args.trainable,
    )
    begun = args.runs / args.out / SETTINGS
    if not begun.is_file():
        return method
    return as_begun(method, read_json(begun).get("method"), keep_frames=args.align_frames is not None)
