"""`python -m flash_modules study`: a page for raters who do not know which video is whose."""

import argparse
import json
import math
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

from ..evaluation.study import check_key_place, make_study, read_key
from ..evaluation.votes import count_answers, read_answers, table
from ..files.whole import check_place, write_text
from .clips import check_seed
from .evaluate import add_material_arguments, read_material


def add_study(parser: argparse.ArgumentParser) -> None:
    """Arguments of `study`."""
    parser.description = (
        "Make a folder for raters: index.html asks, for each picture, which method's video is best, in drawn "
        "order and without names, with a control question beside each. It opens without a server, and any "
        "static host can carry it to many raters. They save their answers as JSON and send them back; "
        "study --count counts them."
    )
    parser.set_defaults(run=study)
    add_material_arguments(parser, required=False)
    parser.add_argument(
        "--out",
        type=Path,
        help="the folder for the raters, a new one; with --count a JSON file, if wanted",
    )
    parser.add_argument(
        "--key",
        type=Path,
        help="file that tells which video is whose; it must lie outside of the raters' folder "
        "(default: the folder's name with -key.json)",
    )
    parser.add_argument("--seed", type=int, help="draws the order (default: a new one, kept in the key)")
    parser.add_argument(
        "--count",
        type=Path,
        nargs="+",
        metavar="ANSWERS",
        help="count these answers, files or folders of them, with --key",
    )


def study(args: argparse.Namespace) -> None:
    """Make a study, or count one."""
    if args.count:
        _count(args)
    else:
        _make(args)


def _make(args: argparse.Namespace) -> None:
    if not args.videos or args.out is None:
        raise ValueError("A study needs --videos of two methods or more, and --out for the raters' folder.")
    seed = secrets.randbits(63) if args.seed is None else args.seed
    check_seed(seed)
    check_place(args.out)
    if args.out.exists() or not args.out.name:
        raise ValueError(f"{args.out} is there already: give a new folder's name.")
    key_path = args.key or args.out.with_name(f"{args.out.name}-key.json")
    check_key_place(args.out, key_path)
    key = make_study(args.out, key_path, read_material(args), seed)
    count = len(key.pairs)
    _say(f"Wrote {args.out} for the raters ({count} questions, each with a control), and {key_path} for you.")


def _count(args: argparse.Namespace) -> None:
    if args.key is None:
        raise ValueError("Answers are counted with the study's key: give it with --key.")
    key = read_key(args.key)
    paths = [path for place in args.count for path in _files(place)]
    if not paths:
        raise ValueError(f"There are no answers in {args.count[0]}: put the raters' JSON files there.")
    count = count_answers(key, [read_answers(path, key) for path in paths])
    print("\n".join(table(count)))
    if args.out:
        content = asdict(count) | {"agreement": None if math.isnan(count.agreement) else count.agreement}
        write_text(args.out, json.dumps(content, indent=2) + "\n")
        _say(f"Wrote {args.out}")


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("*.json")) if place.is_dir() else [place]


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
