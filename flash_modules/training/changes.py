"""What differs between the settings of a run then and now, in words."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MAX_NAMED, _MAX_LENGTH = 20, 60
_FIELDS_OF_A_KIND = 3
_HASH = re.compile(r"[0-9a-f]{64}")


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A phrase for each field that differs, with both values: `method: alignment: tau: 90 then, 50 now`."""
    found = list(_differences((), then, now))
    yield from found[:_MAX_NAMED]
    if len(found) > _MAX_NAMED:
        yield f"and {len(found) - _MAX_NAMED} more"


def same_kind(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both are settings of one kind of training: another one has fields of its own on both sides.

    A newer version may have some more, or some less.
    """
    sides = then.keys() - now.keys(), now.keys() - then.keys()
    return min(map(len, sides)) < _FIELDS_OF_A_KIND


def _differences(names: tuple[str, ...], then: Any, now: Any) -> Iterator[str]:
    if then == now:
        return
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted(then.keys() | now.keys()):
            yield from _differences((*names, name), then.get(name), now.get(name))
    elif _are_lists_of_fields(then, now):
        for i, (before, after) in enumerate(zip(then, now, strict=True), 1):
            yield from _differences((*names, str(i)), before, after)
    else:
        before, after = _both(then, now)
        yield f"{': '.join(names)}: {before} then, {after} now"


def _are_lists_of_fields(then: Any, now: Any) -> bool:
    both = isinstance(then, list) and isinstance(now, list) and len(then) == len(now)
    return both and all(isinstance(one, dict) for one in [*then, *now])


def _both(then: Any, now: Any) -> tuple[str, str]:
    """Both values, short, and with what differs in sight."""
    if isinstance(then, str) and isinstance(now, str) and _HASH.fullmatch(then) and _HASH.fullmatch(now):
        return f"{then[:8]}... (SHA-256)", f"{now[:8]}... (SHA-256)"
    texts = json.dumps(then), json.dumps(now)
    if max(map(len, texts)) <= _MAX_LENGTH:
        return texts
    if isinstance(then, list) and isinstance(now, list) and len(then) != len(now):
        return f"{len(then)} entries{_only(then, now)}", f"{len(now)} entries{_only(now, then)}"
    start = next((i for i, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    return _cut(texts[0], max(0, start - 10)), _cut(texts[1], max(0, start - 10))


def _only(these: Sequence[Any], others: Sequence[Any]) -> str:
    """Which entries only these have, by words that a person knows."""
    own = [one for one in these if one not in others]
    words = [one.get("caption") or one.get("action") if isinstance(one, dict) else one for one in own[:3]]
    named = ", ".join(str(word)[:40] for word in words if word)
    return f" (only there: {named})" if named else ""


def _cut(text: str, start: int) -> str:
    end = start + _MAX_LENGTH
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
