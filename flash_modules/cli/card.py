"""`python -m flash_modules card`: what a file of an action, a decoder or a LoRA says of itself."""

import argparse
import sys
from pathlib import Path

from ..files.json_file import read_json
from ..files.model_card import LICENCE, model_card, with_measures
from ..files.tensor_file import read_tensors, write_tensors
from ..files.whole import check_place


def add_card(parser: argparse.ArgumentParser) -> None:
    """Arguments of `card`."""
    parser.description = (
        "Show a file's card: what it was learned from, how, measures, intended use, limits, licence. With "
        "--out a copy is written whose card has a report's scores or a licence too; the file stays as it is."
    )
    parser.set_defaults(run=card)
    parser.add_argument("file", type=Path, help="a .safetensors file")
    parser.add_argument("--measures", type=Path, help="a .json report of `evaluate` to add, with its command")
    parser.add_argument("--licence", help="the copy's licence, 'CC BY 4.0' for example")
    parser.add_argument("--out", type=Path, help="the copy's file name; it ends in .safetensors")


def card(args: argparse.Namespace) -> None:
    """Print the card, of the copy if one is written."""
    if args.out is None:
        if args.measures or args.licence:
            raise ValueError("--measures and --licence go into a copy of the file: give its name with --out.")
        print(model_card(args.file))
        return
    _check_out(args.out, args.file)
    tensors, metadata = read_tensors(args.file)
    if args.measures:
        metadata = with_measures(metadata, read_json(args.measures))
    if args.licence:
        metadata = {**metadata, LICENCE: args.licence}
    write_tensors(args.out, tensors, metadata)
    print(model_card(args.out))
    print(f"Wrote {args.out}", file=sys.stderr)


def _check_out(out: Path, file: Path) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"{out.name} is no name for the copy: let it end in .safetensors.")
    check_place(out)
    if out.exists() and file.exists() and out.samefile(file):
        raise ValueError(f"{out} is the file itself, which stays as it is: give another name.")
