"""`python -m flash_modules evaluate`: are the videos good? The paper's measures and others, as a page."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..evaluation.evaluate import TRUE_CLIPS, Material, evaluate
from ..evaluation.judges.load import load_judges
from ..evaluation.report import Facts, RunFacts, summary, write_report
from ..files.json_file import read_json
from ..files.pictures import frame_paths
from ..files.video_files import read_picture
from ..files.whole import check_place
from ..training.captions import read_caption
from ..training.clips import Clip, find_clips
from ..training.exam import COLUMNS as MARKS
from ..training.exam import FILE as EXAM
from ..training.losses import LOSS, read_table
from ..training.run_folder import SETTINGS
from .device import find_device

_CURVES = {"loss.csv": LOSS, EXAM: MARKS}
"""Tables of a run, and their columns."""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    parser.description = (
        "Score generated videos against pictures, prompts and true clips of the same names (a.mp4, a.png, "
        "a.txt), and write a page with the table and the videos side by side, and CSV and JSON beside it. "
        "Judges whose weights are not there are named, and the other scores go on. Nothing is downloaded."
    )
    parser.set_defaults(run=evaluate_videos)
    add_material_arguments(parser, required=True)
    parser.add_argument(
        "--training",
        type=Path,
        help="the clips it was learned from, for the leak and for the floor of distances",
    )
    parser.add_argument("--judges", type=Path, help="folder with the judges' weights")
    parser.add_argument(
        "--run-folder",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a run of `train`, whose losses, exam and settings the page shows; may be given again",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--out", type=Path, required=True, help="the page's file name; it ends in .html")


def add_material_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Arguments that say which videos there are, and what belongs to them by their names."""
    parser.add_argument(
        "--videos",
        required=required,
        default=[],
        action="append",
        metavar="[NAME=]FOLDER",
        help="generated videos of one method or checkpoint; give it again for another row of the table",
    )
    parser.add_argument(
        "--pictures", type=Path, help="the pictures they begin with (default: frame 0 of each video)"
    )
    parser.add_argument(
        "--prompt", help="what is to be seen, where no .txt lies beside a video, its picture or its true clip"
    )
    parser.add_argument("--truth", type=Path, help="true clips; a video is held against the one of its name")


def evaluate_videos(args: argparse.Namespace) -> None:
    """Write the report; all arguments are checked before a network is read."""
    _check_out(args.out)
    device = find_device(args.device)
    runs = [run_facts(folder) for folder in args.run_folder]
    material = read_material(args)
    if args.training:
        material = replace(material, training=list(_films(args.training).values()))
    if not material.prompts:
        _say("There is no prompt (--prompt, or a .txt beside each video): Text Alignment is left out.")
    judges = load_judges(args.judges, device)
    total = sum(map(len, material.methods.values())) + len(material.truths)
    with tqdm(total=total, desc="Scoring", unit="video") as bar:
        evaluation = evaluate(material, judges, bar.update)
    for note in evaluation.notes:
        _say(note)
    command = shlex.join(["python", "-m", "flash_modules", *sys.argv[1:]])
    facts = Facts(command=command, judges=judges.files, runs=runs)
    written = write_report(args.out, evaluation, material, facts)
    print(summary(evaluation))
    _say(f"Wrote {', '.join(map(str, written))}")


def _check_out(path: Path) -> None:
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path.name} is no name for the page: let it end in .html.")
    check_place(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it.")


def read_material(args: argparse.Namespace) -> Material:
    """All that the arguments name, looked through; what is left out is said."""
    methods = named_folders(args.videos)
    films = {name: _films(folder) for name, folder in methods.items()}
    truths = _films(args.truth) if args.truth else {}
    names = {video for found in films.values() for video in found}
    pictures = _pictures(args.pictures, names) if args.pictures else {}
    texts = [
        _texts(clip for found in films.values() for clip in found.values()),
        _texts(truths.values()),
        _picture_texts(args.pictures) if args.pictures else {},
    ]
    prompts = dict.fromkeys(names | truths.keys(), args.prompt) if args.prompt else {}
    for found in texts:
        prompts |= found
    return Material(methods=films, pictures=pictures, prompts=prompts, truths=truths)


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folders by their methods' names; a folder's own name where none is given."""
    found: list[tuple[str, Path]] = []
    for text in texts:
        name, sign, folder = text.partition("=")
        path = Path(folder) if sign and not Path(text).is_dir() else Path(text)
        found.append((name if sign and path != Path(text) else path.resolve().name, path))
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice or TRUE_CLIPS in dict(found):
        raise ValueError(
            f"Two rows of the table would be called '{(twice or [TRUE_CLIPS])[0]}': give names, "
            "as --videos NAME=FOLDER."
        )
    return dict(found)


def _films(folder: Path) -> dict[str, Clip]:
    """Videos of a folder by their names without endings; those that cannot be used are said."""
    with tqdm(desc=f"Reading {folder.name}", unit="video", leave=False) as bar:
        clips = find_clips([folder], on_clip=bar.update)
    for skipped in clips.skipped:
        _say(f"{skipped.path} is left out: {skipped.reason}.")
    found: dict[str, Clip] = {}
    for clip in clips.used:
        if clip.path.stem in found:
            raise ValueError(
                f"{folder} has two videos called {clip.path.stem}: rename one, as they are matched by name."
            )
        found[clip.path.stem] = clip
    return found


def _pictures(folder: Path, names: Iterable[str]) -> dict[str, Image.Image]:
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give the one with the pictures.")
    paths = {path.stem: path for path in frame_paths(folder)}
    without = sorted(set(names) - paths.keys())
    if without:
        _say(
            f"{len(without)} videos have no picture in {folder.name} ({', '.join(without[:3])}): "
            "their frame 0 stands in."
        )
    return {name: read_picture(paths[name]) for name in names if name in paths}


def _texts(clips: Iterable[Clip]) -> dict[str, str]:
    return {clip.path.stem: clip.caption for clip in clips if clip.caption_file}


def _picture_texts(folder: Path) -> dict[str, str]:
    found = {path.stem: read_caption(path) for path in frame_paths(folder)}
    return {name: text for name, text in found.items() if text}


def run_facts(folder: Path) -> RunFacts:
    """What the page tells of a run. Raises ValueError if the folder is no run's."""
    if not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} is no run of `train` (it has no {SETTINGS}): give its folder.")
    curves: dict[str, list[float]] = {}
    for file, columns in _CURVES.items():
        curves |= _curves(folder / file, columns)
    return RunFacts(name=folder.resolve().name, curves=curves, settings=read_json(folder / SETTINGS))


def _curves(path: Path, columns: Sequence[str]) -> dict[str, list[float]]:
    """Columns of a table, none where there is no file. Raises ValueError, naming it, if it is another."""
    rows = [values for _, values in read_table(path, columns)]
    return {column: [values[i] for values in rows] for i, column in enumerate(columns) if rows}


def _say(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)
