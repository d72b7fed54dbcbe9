"""The command line: animate a picture, learn an action, transfer one, judge videos; without ComfyUI."""

import argparse
import io
import sys
from collections.abc import Sequence

import torch

from .animate import add_animate
from .card import add_card
from .clips import add_preview
from .convert import add_convert
from .evaluate import add_evaluate
from .stopped import place, stamp, what_is_left
from .study import add_study
from .train import add_train
from .train_decoder import add_train_decoder
from .train_ref_adapter import add_train_ref_adapter
from .train_transfer import add_train_transfer
from .transfer import add_transfer_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the result is the exit code. What the user can mend is said in one sentence."""
    _replace_what_cannot_be_shown()
    parsed = _parser().parse_args(arguments)
    before = stamp(place(parsed))
    try:
        parsed.run(parsed)
    except UnicodeError:
        raise  # a ValueError, but never what the user gave: readers of files say so themselves
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except torch.cuda.OutOfMemoryError:
        print(f"error: the GPU's memory is full: {parsed.when_full}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. {what_is_left(parsed, before)}", file=sys.stderr)
        return 130
    return 0


def _replace_what_cannot_be_shown() -> None:
    """Windows' consoles and pipes may know less than UTF-8, and names of files may be no text at all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flash_modules",
        description="Animate a picture, and learn actions from clips, without ComfyUI.",
    )
    parser.set_defaults(
        when_full="use a smaller --size or fewer --frames, or for training --checkpointing all"
    )
    commands = parser.add_subparsers(title="commands", required=True)
    add_animate(commands.add_parser("animate", help="make a video that starts with your picture"))
    add_transfer_command(
        commands.add_parser("transfer", help="let your picture perform the action of one clip")
    )
    add_train_transfer(commands.add_parser("train-transfer", help="learn an action from one clip"))
    add_train_ref_adapter(
        commands.add_parser("train-ref-adapter", help="learn from clips what keeps a picture's look")
    )
    add_convert(commands.add_parser("convert", help="write released files of FlexiAct as safetensors"))
    add_preview(commands.add_parser("preview", help="look at the clips of an action before training"))
    add_train(commands.add_parser("train", help="learn an action from clips"))
    add_train_decoder(commands.add_parser("train-decoder", help="learn to keep a picture's details"))
    add_evaluate(
        commands.add_parser("evaluate", help="score videos against pictures, prompts and true clips")
    )
    add_study(commands.add_parser("study", help="let people choose the best video, blindly"))
    add_card(commands.add_parser("card", help="show what an action, a decoder or a LoRA says of itself"))
    return parser
