"""A tokenizer in CLIP's form whose vocabulary is that of the captions."""

import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from torch import Tensor, tensor
from transformers import CLIPTokenizer

from .models import PROMPT_TOKENS

_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def make_tokenizer(folder: Path, words: Iterable[str]) -> CLIPTokenizer:
    """Write and read a tokenizer to which each of these words is one token; others are spelled."""
    merges = _merges(words)
    letters = sorted(ByteLevel.alphabet())
    pieces = [letter + end for end, letter in product(("", _WORD_END), letters)]
    pieces += [*("".join(pair) for pair in merges), _START, _END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": _START,
        "eos_token": _END,
        "pad_token": _END,
        "unk_token": _END,
        "model_max_length": PROMPT_TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return read_tokenizer(folder)


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte pair merges, the most frequent first, until every word is one piece."""
    # CLIP takes letters, single digits and signs apart before it merges
    known = {part for word in words for part in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", word.lower())}
    bpe = Tokenizer(BPE(end_of_word_suffix=_WORD_END))
    bpe.pre_tokenizer = WhitespaceSplit()
    bpe.train_from_iterator(
        [" ".join(sorted(known))],
        BpeTrainer(vocab_size=10**6, min_frequency=0, end_of_word_suffix=_WORD_END, show_progress=False),
    )
    return [(first, second) for first, second in json.loads(bpe.to_str())["model"]["merges"]]


def tokens_of(tokenizer: CLIPTokenizer, prompt: str) -> Tensor:
    """Token numbers (M) of a prompt, filled up with the last one, as the product does it."""
    tokens = tokenizer(prompt).input_ids
    if len(tokens) > PROMPT_TOKENS:
        raise ValueError(f'A caption has {len(tokens)} tokens, more than {PROMPT_TOKENS}: "{prompt}".')
    return tensor(tokens + tokens[-1:] * (PROMPT_TOKENS - len(tokens)))
