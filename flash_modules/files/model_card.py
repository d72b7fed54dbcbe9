"""The card that a model file carries in its header: from what it was learned and how, limits, licence."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from .json_file import parse_json
from .tensor_file import read_tensors

CARD = "flash.card"
"""The header's entry with intended use, limits and measures, as JSON."""
LICENCE = "modelspec.license"
NOT_STATED = "not stated"
NOT_FOR = (
    "Not for showing people doing what they did not do, nor for passing generated videos off as recordings."
)
"""What no file that this pack writes is intended for."""

_HEAD = {
    "modelspec.title": "Title",
    "modelspec.author": "Author",
    "modelspec.description": "Description",
    "modelspec.date": "Date",
    "flash.kind": "Kind",
    "modelspec.architecture": "Architecture",
    "flash.base": "Learned on",
    "ss_sd_model_name": "Learned on",
    "flash.motion_module": "Motion module",
    "flash.vae": "For the VAE",
    "flash.prompts": "Prompts",
    "flash.prompt": "Prompt",
}
_DATA = ("flash.data", "flash.clip_sha256")
_NOT_SETTINGS = {*_HEAD, *_DATA, CARD, LICENCE, "flash.format", "modelspec.thumbnail"}
_LONGEST = 400
"""Letters of an entry that are shown."""
_HASHES = 3


def card_entry(*, intended_use: str, limits: Sequence[str]) -> dict[str, str]:
    """The header's entry that a training writes; `with_measures` adds to it."""
    return {CARD: json.dumps({"intended_use": intended_use, "limits": list(limits), "measures": []})}


def model_spec(architecture: str, title: str) -> dict[str, str]:
    """The header's entries without which it is none of the SAI Model Spec 1.0."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/comfyui-flash/ComfyUI-FLASH",
        "modelspec.title": title,
    }


def with_measures(metadata: Mapping[str, str], report: Mapping[str, Any]) -> dict[str, str]:
    """The header with a report of `evaluate` among its card's measures: its scores and its command.

    Folders are left out of the command. Raises ValueError for a report that is none.
    """
    methods, command = report.get("methods"), report.get("command")
    if not isinstance(methods, dict) or not isinstance(command, str):
        raise ValueError("The report holds no scores: give the .json file that `evaluate` wrote.")
    scores = {name: method.get("scores", {}) for name, method in methods.items() if isinstance(method, dict)}
    card = _card(metadata)
    measures = [*_list(card, "measures"), {"command": _without_folders(command), "scores": scores}]
    return {**metadata, CARD: json.dumps({**card, "measures": measures})}


def model_card(path: Path) -> str:
    """The card of a safetensors file, in lines. What its header does not tell is said to be not stated.

    A header is what a stranger wrote: its texts are cut, and have no signs that a terminal obeys. Raises
    ValueError if the file cannot be read.
    """
    _, metadata = read_tensors(path)
    return "\n".join(_lines(path.name, metadata))


def _lines(name: str, metadata: Mapping[str, str]) -> Iterator[str]:
    card = _card(metadata)
    yield f"# {plain(name)}"
    for entry, label in _HEAD.items():
        if metadata.get(entry):
            yield f"{label}: {_shown(metadata[entry])}"
    yield f"Learned from: {_data(metadata)}"
    yield f"Licence: {plain(metadata.get(LICENCE) or metadata.get('flash.licence') or '') or _NO_LICENCE}"
    yield f"Intended use: {plain(str(card.get('intended_use') or NOT_STATED))}"
    yield "Limits:"
    yield from (f"- {plain(str(limit))}" for limit in _list(card, "limits") or [NOT_STATED])
    yield "Measures:"
    yield from _measures(_list(card, "measures"))
    yield "Settings:"
    settings = [
        entry for entry in sorted(metadata) if entry.startswith("flash.") and entry not in _NOT_SETTINGS
    ]
    shown = [f"- {plain(entry.removeprefix('flash.'))}: {_shown(metadata[entry])}" for entry in settings]
    yield from shown or [f"- {NOT_STATED}"]


_NO_LICENCE = f"{NOT_STATED}; the base model's and the clips' hold"


def _data(metadata: Mapping[str, str]) -> str:
    """How many clips, and the beginnings of their hashes."""
    try:
        data = parse_json(metadata.get("flash.data", "{}"))
    except ValueError:
        data = {}
    hashes = [str(text) for text in _list(data, "sha256")]
    if clip := metadata.get("flash.clip_sha256"):
        hashes = [clip]
    if not hashes:
        return NOT_STATED
    shown = ", ".join(plain(text)[:16] for text in hashes[:_HASHES])
    more = f" and {len(hashes) - _HASHES} more" if len(hashes) > _HASHES else ""
    return f"{len(hashes)} clip{'s' if len(hashes) > 1 else ''} (SHA-256 {shown}{more})"


def _measures(measures: Sequence[Any]) -> Iterator[str]:
    if not measures:
        yield "- none in the file"
    for measure in measures:
        if not isinstance(measure, dict):
            continue
        yield f"- {plain(str(measure.get('command', NOT_STATED)))}"
        scores = measure.get("scores")
        for method, found in scores.items() if isinstance(scores, dict) else ():
            for key, score in found.items() if isinstance(found, dict) else ():
                if isinstance(score, dict):
                    told = f"{score.get('value')} ± {score.get('spread')}, n = {score.get('videos')}"
                    yield f"  {plain(str(method))}, {plain(str(key))}: {plain(told)}"


def _card(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the card's entry holds; nothing where there is none or it is damaged."""
    try:
        return parse_json(metadata.get(CARD, "{}"))
    except ValueError:
        return {}


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    return found if isinstance(found, list) else []


def _shown(text: str) -> str:
    """An entry of the header for people: JSON's signs stay, but a name alone is a name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return plain(text)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        version = f", {value['version']}" if value.get("version") else ""
        return plain(f"{value['name']}{version} (SHA-256 {str(value.get('sha256', NOT_STATED))[:16]})")
    if isinstance(value, list):
        return plain("; ".join(map(str, value)))
    return plain(str(value) if not isinstance(value, dict) else json.dumps(value, ensure_ascii=False))


def plain(text: str, letters: int = _LONGEST) -> str:
    """A text on one line, cut, without signs that are not seen or that terminals obey."""
    cut = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * letters]).split())
    return cut if len(cut) <= letters else f"{cut[: letters - 3]}..."


def _without_folders(command: str) -> str:
    """A command whose files and folders have lost the folders before them."""
    try:
        words = shlex.split(command)
    except ValueError:
        return NOT_STATED
    return shlex.join(_last_part(word) for word in words)


def _last_part(word: str) -> str:
    name, sign, path = word.replace("\\", "/").rpartition("=")
    return f"{name}{sign}{PurePath(path).name}" if "/" in path else word
