"""T5's tokenizer from a file, without the sentencepiece library."""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

from ...fill import telling

_END = "</s>"


def read_tokenizer(folder: Path, num_words: int) -> Tokenizer:
    """T5's tokenizer, from spiece.model or tokenizer.json, for a text encoder that knows so many words.

    Raises ValueError if there is none, it is damaged, or of another model.
    """
    file = next(
        (folder / name for name in ("spiece.model", "tokenizer.json") if (folder / name).is_file()), None
    )
    if file is None:
        raise ValueError(
            f"There is no tokenizer in {folder}: the folder must hold spiece.model or tokenizer.json."
        )
    with telling(f"The tokenizer {file} cannot be read: download it again"):
        tokenizer = _unigram(file) if file.suffix == ".model" else Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        end = tokenizer.token_to_id(_END)
        if tokenizer.encode("a").ids[-1:] != [end]:
            raise ValueError("a prompt does not end as it should")
    known = tokenizer.get_vocab_size()
    if known > num_words:
        raise ValueError(
            f"The tokenizer in {folder} has {known} tokens and the text encoder {num_words}: it belongs to "
            "another model."
        )
    return tokenizer


def _unigram(file: Path) -> Tokenizer:
    """The tokenizer of a SentencePiece file: T5 splits at spaces, marks them, and ends with </s>."""
    content = sentencepiece.ModelProto()
    content.ParseFromString(file.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in content.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=content.trainer_spec.unk_id, byte_fallback=False))
    if content.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = normalizers.Precompiled(content.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, tokenizer.token_to_id(_END))]
    )
    return tokenizer
