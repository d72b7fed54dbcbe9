"""What `train-transfer` learns from, and which pictures perform on the way."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..backends.diffusers.cogvideox import BaseFiles, load_vae
from ..backends.diffusers.cogvideox.train import encode_moments
from ..files.video_files import write_picture
from ..files.whole import check_place
from ..flexiact.ref_adapter_file import read_ref_adapter
from ..flexiact.training.encoded import encode_views
from ..flexiact.training.lesson import LESSON, Lesson, kept_lesson, read_lesson
from ..flexiact.training.sheet import draw_sheet, taken_line
from ..flexiact.training.source import Source, one_clip, table_of_crops
from ..flexiact.training.tables import PictureRow, read_pictures
from ..flexiact.training.views import ViewConfig
from ..training.run_folder import RunFolder
from .processes import AcceleratedProcesses
from .run import Say
from .transfer import encode_prompts, fitted_picture
from .transfer_samples import Sample


def add_clip_arguments(group: Any) -> None:
    """Arguments that say what is learned from."""
    view = ViewConfig()
    group.add_argument("--clip", type=Path, help="the clip: a video, or a folder of pictures")
    group.add_argument("--prompt", help="what is seen in it, in at most 226 tokens")
    group.add_argument(
        "--start", type=float, default=view.start, help="seconds of the clip, where the action begins"
    )
    group.add_argument("--end", type=float, help="seconds, where it ends (default: the clip's end)")
    group.add_argument(
        "--crop-csv",
        type=Path,
        help="in place of all these: a crop.csv of the released data, whose videos are cropped already",
    )
    group.add_argument(
        "--sheet", type=Path, metavar="PNG", help="draw what is taken of the clip, and train nothing"
    )


def add_sample_arguments(group: Any) -> None:
    """Arguments of pictures that perform on the way."""
    group.add_argument("--image", type=Path, help="a picture of yours that performs on the way")
    group.add_argument("--sample-prompt", help="its prompt (default: the clip's)")
    group.add_argument(
        "--val-csv",
        type=Path,
        help="in place of both: a val_image.csv of the released data, whose pictures all perform",
    )
    group.add_argument("--ref-adapter", type=Path, help="RefAdapter file, which keeps its look")
    group.add_argument("--sample-steps", type=int, default=250, help="between two (default %(default)s)")


def check_lesson_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for arguments that do not go together."""
    if args.crop_csv is None and (args.clip is None or args.prompt is None):
        raise ValueError("There is nothing to learn from: give --clip with its --prompt, or --crop-csv.")
    if args.crop_csv and (args.clip or args.prompt or args.start or args.end):
        raise ValueError("--crop-csv names videos, frames and captions: leave out --clip, --prompt and cuts.")
    if args.val_csv and (args.image or args.sample_prompt):
        raise ValueError(
            "--val-csv names pictures and prompts: leave out --image and --sample-prompt, or it."
        )
    if not (args.image or args.val_csv) and (args.ref_adapter or args.sample_prompt):
        raise ValueError("--ref-adapter and --sample-prompt are for samples: give their --image, too.")
    if args.sheet:
        if args.sheet.suffix.lower() != ".png":
            raise ValueError(f"{args.sheet.name} is no name for the picture: let it end in .png.")
        check_place(args.sheet)


def find_source(args: argparse.Namespace, files: BaseFiles) -> Source:
    """What the arguments name, at the base's size."""
    shape = files.shape
    view = ViewConfig(
        frames=shape.frames, height=shape.height, width=shape.width, start=args.start, end=args.end
    )
    if args.crop_csv:
        return table_of_crops(args.crop_csv, view)
    return one_clip(args.clip, args.prompt, view)


def find_samples(args: argparse.Namespace, files: BaseFiles, caption: str) -> list[Sample]:
    """What performs on the way; `caption` is the clip's."""
    adapter = read_ref_adapter(args.ref_adapter) if args.ref_adapter else None
    if args.val_csv:
        rows = read_pictures(args.val_csv)
        names = [f"sample-{number:02d}-{_plain(row.path.stem)}" for number, row in enumerate(rows, start=1)]
    else:
        rows = [PictureRow(path=args.image, caption=args.sample_prompt or caption)] if args.image else []
        names = ["sample"] * len(rows)
    return [
        Sample(
            name=name,
            image_1HWC=fitted_picture(row.path, files),
            prompt=row.caption,
            adapter=adapter,
            seed=args.seed,
            every=args.sample_steps,
        )
        for name, row in zip(names, rows, strict=True)
    ]


def write_sheet(args: argparse.Namespace, source: Source, say: Say) -> None:
    """Draw what is taken, and say it."""
    for part in source.parts:
        say(taken_line(part))
    write_picture(args.sheet, draw_sheet(source))
    say(f"Wrote {args.sheet}")


def lesson_of(
    run: RunFolder,
    processes: AcceleratedProcesses,
    files: BaseFiles,
    source: Source,
    dtype: torch.dtype,
) -> Lesson:
    """The run's lesson; one process makes it, and the others wait."""
    if processes.is_first:
        kept_lesson(run.path / LESSON, partial(_make_lesson, files, source, processes.device, dtype))
    processes.any(False)
    return read_lesson(run.path / LESSON)


def _make_lesson(files: BaseFiles, source: Source, device: torch.device, dtype: torch.dtype) -> Lesson:
    """Captions and views, encoded; text encoder and VAE go again."""
    *texts, empty_embeds = encode_prompts(files, [*source.captions, ""], device, dtype)
    vae = load_vae(files, dtype).to(device)
    with tqdm(total=len(source.caption_of), desc="Encoding the clip", unit="view") as bar:
        encoded = encode_views(source.videos(), partial(encode_moments, vae), bar.update)
    return Lesson(
        views=encoded,
        caption=source.captions[0],
        text_embeds=torch.cat(texts).float().cpu(),
        empty_embeds=empty_embeds.float().cpu(),
        clip_sha256=source.sha256,
        caption_of=source.caption_of,
    )


def _plain(name: str) -> str:
    """A file's name of letters and digits."""
    return re.sub(r"[^\w-]+", "-", name)[:40]
