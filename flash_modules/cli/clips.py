"""The command line of training: look at clips before anything is learned from them."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..backends.diffusers.sd15.load.captions import length_note, token_counter
from ..files.video_files import write_picture
from ..files.whole import check_place
from ..flash.augment import AugmentConfig
from ..flash.training.exam import draw_aside
from ..flash.training.preview import preview_clips
from ..training.clips import Clip, Clips, find_clips
from ..training.sampling import SamplingConfig
from ..training.twins import with_twins


def add_preview(parser: argparse.ArgumentParser) -> None:
    """Arguments of `preview`."""
    parser.description = (
        "List each clip with what is taken of it, or why it is skipped, and draw original and augmented "
        "frames. Nothing is trained or downloaded."
    )
    parser.set_defaults(run=preview)
    add_twins_argument(add_clip_arguments(parser))
    parser.add_argument(
        "--size",
        type=int,
        default=AugmentConfig.size,
        help="pixels of the square that is trained on (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other frames and colours (default %(default)s)"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        help="folder with vocab.json and merges.txt, to count the captions' tokens: 75 are read (without it "
        "the least number is said)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the picture's file name; it ends in .png")


def add_clip_arguments(parser: argparse.ArgumentParser) -> Any:
    """A group of arguments that say which clips there are and how frames are taken from them."""
    clips = parser.add_argument_group("clips")
    add_folder_arguments(clips)
    _add_sampling(clips)
    return clips


def add_twins_argument(clips: Any) -> None:
    """The argument that says where twins from elsewhere are."""
    clips.add_argument(
        "--twins",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="the same motions in other looks, frame by frame, in files with the names of the clips; give it "
        "again for each further folder of clips (default: the clips, blurred and recoloured)",
    )


def add_folder_arguments(clips: Any) -> None:
    """Arguments that say which clips there are."""
    clips.add_argument(
        "--clips",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="videos (mp4, mov, mkv, webm, avi, mpeg, ts, flv, wmv, gif, moving webp and png) or folders of "
        "pictures, of one action; give it again for another",
    )
    clips.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="what is seen, where a clip has no .txt beside it; once for all folders, or once for each "
        "(default: the folder's name)",
    )


def _add_sampling(clips: Any) -> None:
    clips.add_argument(
        "--frames", type=int, default=SamplingConfig.num_frames, help="taken of a clip (default %(default)s)"
    )
    clips.add_argument(
        "--sampling",
        choices=["stride", "whole"],
        default="stride",
        help="stride (default) begins anywhere and takes every 4th frame; whole goes from end to end",
    )
    clips.add_argument(
        "--stride",
        type=int,
        default=SamplingConfig.stride,
        help="another stride; at other than 24 to 30 frames per second it is made to last as long",
    )


def sampling_config(args: argparse.Namespace) -> SamplingConfig:
    """The sampling that the arguments describe."""
    return SamplingConfig(num_frames=args.frames, stride=args.stride if args.sampling == "stride" else None)


def look_for_clips(args: argparse.Namespace, *, silent: bool = False) -> Clips:
    """The clips that the arguments name; a bar counts them while they are decoded."""
    with tqdm(desc="Reading clips", unit="clip", leave=False, disable=silent) as bar:
        return find_clips(args.clips, args.prompt, on_clip=bar.update)


def look_for_pairs(args: argparse.Namespace, *, silent: bool = False) -> Clips:
    """As `look_for_clips`, each clip with its twin from elsewhere if the arguments name folders of them."""
    if args.twins and len(args.twins) != len(args.clips):
        raise ValueError(
            f"There are {len(args.twins)} folders of twins for {len(args.clips)} of clips: give --twins as "
            "often as --clips, in the same order."
        )
    clips = look_for_clips(args, silent=silent)
    if not args.twins:
        return clips
    with tqdm(desc="Reading twins", unit="clip", leave=False, disable=silent) as bar:
        found = find_clips(args.twins, on_clip=bar.update)
    return replace(clips, used=with_twins(clips.used, [*_of_same_names(clips, found)]))


def _of_same_names(clips: Clips, twins: Clips) -> Iterator[Clip]:
    """The twins of the clips, which are in folders in the same order."""
    actions, theirs = (list(dict.fromkeys(one.action for one in some.used)) for some in (clips, twins))
    known = {(twin.action, twin.path.stem): twin for twin in twins.used}
    reasons = {one.path.stem: one.reason for one in twins.skipped}
    for clip in clips.used:
        place = theirs[actions.index(clip.action)], clip.path.stem
        if place not in known:
            reason = reasons.get(clip.path.stem, "there is no file of its name")
            raise ValueError(
                f"{clip.path.name} has no twin in the folder '{place[0]}' ({reason}): put one there, or take "
                "the clip away."
            )
        yield known[place]


def captions(clips: Clips) -> Iterator[tuple[str, str]]:
    """The clips' captions, with the file, or the words of a prompt, that each is known by."""
    for clip in clips.used:
        name = clip.caption_file and f"{clip.caption_file.parent.name}/{clip.caption_file.name}"
        yield name or f"the prompt '{clip.caption[:40]}'", clip.caption


def preview(args: argparse.Namespace) -> None:
    """Write the contact sheet and say what was found; all arguments are checked before a clip is read."""
    sampling, augment = sampling_config(args), AugmentConfig(size=args.size)
    check_seed(args.seed)
    _check_sheet_path(args.out)
    count = token_counter(args.tokenizer) if args.tokenizer else None
    clips = look_for_pairs(args)
    sheet = preview_clips(
        clips,
        sampling,
        augment,
        seed=args.seed,
        on_line=_say,
        aside=draw_aside(clips.used, args.seed),
        caption_note=partial(length_note, count=count),
    )
    write_picture(args.out, sheet)
    _say(f"Wrote {args.out}")


def check_seed(seed: int) -> None:
    """Raise ValueError unless the number can be a seed."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed must lie between 0 and 2^64 - 1, but it is {seed}.")


def _check_sheet_path(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path.name} is no name for the picture: let it end in .png.")
    check_place(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it.")


def _say(line: str) -> None:
    print(line, flush=True)
