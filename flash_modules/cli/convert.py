"""`python -m flash_modules convert`: the released files of FlexiAct as safetensors."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..files.digest import files_sha256
from ..files.whole import check_place
from ..flexiact.action_file import is_transfer_action, read_transfer_action, write_transfer_action
from ..flexiact.ref_adapter_file import read_ref_adapter, write_ref_adapter


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Arguments of `convert`."""
    parser.description = (
        "Write a released action (.pt) as an action file, or the released RefAdapter as a LoRA, which "
        "ComfyUI's own loader takes, too. Nothing in the file is run."
    )
    parser.set_defaults(run=convert)
    parser.add_argument("file", type=Path, help="a released file, for example crouch.pt")
    parser.add_argument("--out", type=Path, required=True, help="file to write, which ends in .safetensors")
    parser.add_argument("--licence", default="", help="of the file, to be written into it")
    action = parser.add_argument_group("of an action, to be written into it")
    action.add_argument("--prompt", default="", help="the caption of its clip")
    action.add_argument("--steps", type=int, help="how many steps it was trained")
    action.add_argument("--clip", type=Path, help="the clip that it was learned from: its hash is written")


def convert(args: argparse.Namespace) -> None:
    """Write what the file holds in our format."""
    if args.out.suffix != ".safetensors":
        raise ValueError(f"{args.out.name} must end in .safetensors: that is what is written.")
    check_place(args.out)
    if args.steps is not None and args.steps < 0:
        raise ValueError(f"--steps must be 0 or more, but it is {args.steps}.")
    if args.clip is not None and not args.clip.is_file():
        raise ValueError(f"There is no clip {args.clip}: give its file, or leave --clip out.")
    if is_transfer_action(args.file):
        action = read_transfer_action(args.file)
        action = replace(
            action,
            prompt=args.prompt or action.prompt,
            steps=action.steps if args.steps is None else args.steps,
            clip_sha256=files_sha256([args.clip]) if args.clip else action.clip_sha256,
            licence=args.licence or action.licence,
        )
        write_transfer_action(args.out, action)
        summary = action.summary
    else:
        adapter = read_ref_adapter(args.file)
        write_ref_adapter(args.out, replace(adapter, licence=args.licence or adapter.licence))
        summary = adapter.summary
    print(f"{summary}\nWrote {args.out}", file=sys.stderr)
