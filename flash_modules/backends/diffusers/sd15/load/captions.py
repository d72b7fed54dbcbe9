"""Whether captions fit into what Stable Diffusion 1.5 reads of a prompt."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from transformers import CLIPTokenizer

from .base import Base

LONGEST = 75
"""Tokens of a prompt that Stable Diffusion 1.5 reads."""

Count = Callable[[str], int]


def token_counter(folder: Path) -> Count:
    """Counts the tokens of a text, by the tokenizer in a folder."""
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise ValueError(
            f"There is no tokenizer in {folder}: the folder must hold vocab.json and merges.txt."
        )
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: _count(tokenizer, text)


def length_note(caption: str, count: Count | None) -> str | None:
    """What is to be said of a caption's length; without a tokenizer the least number of its tokens."""
    if count:
        tokens, least = count(caption), ""
    else:
        tokens, least = least_tokens(caption), "at least "
    if tokens > LONGEST:
        return f"its caption has {least}{tokens} tokens, and Stable Diffusion 1.5 reads {LONGEST}: shorten it"
    if not count and _likely_tokens(caption) > LONGEST:
        return f"its caption may have over {LONGEST} tokens: give --tokenizer to have them counted"
    return None


def check_captions(base: Base, captions: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError that names all captions which are too long for the base, as pairs (name, caption)."""
    longest = base.text_encoder.config.max_position_embeddings - 2
    counted = {name: _count(base.tokenizer, caption) for name, caption in captions}
    long = [f"  {name}: {count}" for name, count in counted.items() if count > longest]
    if long:
        raise ValueError(
            "\n".join([f"Captions have more than the {longest} tokens that the base reads. Shorten:", *long])
        )


def _count(tokenizer: CLIPTokenizer, text: str) -> int:
    """Tokens without the marks of beginning and end; a folder's name may hold bytes that are no text."""
    return len(tokenizer(text.encode(errors="replace").decode()).input_ids) - 2


def least_tokens(text: str) -> int:
    """How many tokens a text has at least: CLIP's tokenizer makes one or more of each of these pieces."""
    return len(_pieces(text))


def _likely_tokens(text: str) -> int:
    """A guess: long words are two tokens or more, and other scripts than Latin one for every two bytes."""
    return sum(
        math.ceil(len(one.encode(errors="replace")) / (8 if one.isascii() else 2)) for one in _pieces(text)
    )


def _pieces(text: str) -> list[str]:
    """Words, single digits, and runs of other signs: CLIP's tokenizer cuts a text so before all else."""
    return re.findall(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+", text.lower())
