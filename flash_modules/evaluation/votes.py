"""Answers of a blind study, counted: shares with intervals, failed controls, agreement."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.json_file import read_json
from .study import Key

_Z = 1.959964
"""Of the normal distribution's middle 95 %."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one rater chose, by the questions' marks."""

    rater: str
    choices: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often a method was chosen."""

    method: str
    votes: int
    share: float
    low: float
    high: float
    """The 95 % interval (Wilson 1927), which takes answers as independent."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """The result of a study."""

    shares: Sequence[Share]
    """The most chosen first."""
    valid: int
    invalid: int
    """Answers whose control question was failed or left open."""
    raters: int
    agreement: float
    """Krippendorff's alpha (nominal) of the valid answers: 1 = all agree, 0 = chance.

    NaN: there is nothing to compare.
    """


def read_answers(path: Path, key: Key) -> Answers:
    """A rater's file. Raises ValueError if it is none, or of another study."""
    content = read_json(path)
    rater, answers = content.get("rater"), content.get("answers")
    if not isinstance(rater, str) or not isinstance(answers, dict):
        raise ValueError(f"{path} holds no answers of a study: give the files that raters saved.")
    if content.get("study") != key.study:
        raise ValueError(f"{path} answers another study than the key's: give its own key, or leave it out.")
    if not all(type(choice) is int for choice in answers.values()):
        raise ValueError(f"{path} is damaged: an answer in it is no number of a video. Leave it out.")
    return Answers(rater=rater, choices=answers)


def count_answers(key: Key, answers: Sequence[Answers]) -> Count:
    """Count the choices of all raters; an answer is valid if its pair's control was answered rightly.

    Raises ValueError if a rater comes twice, or if a choice names no candidate.
    """
    twice = [rater for rater, count in Counter(one.rater for one in answers).items() if count > 1]
    if twice:
        raise ValueError(f"The rater {twice[0]} comes twice: give each rater's file once.")
    by_question: dict[str, list[str]] = {pair.question: [] for pair in key.pairs}
    invalid = 0
    for pair in key.pairs:
        for one in answers:
            choice = one.choices.get(pair.question)
            if choice is None:
                continue
            if not 0 <= choice < len(pair.methods):
                raise ValueError(f"The rater {one.rater} chose a video that is not there: leave it out.")
            if one.choices.get(pair.control) == pair.right:
                by_question[pair.question].append(pair.methods[choice])
            else:
                invalid += 1
    votes = Counter(method for chosen in by_question.values() for method in chosen)
    methods = sorted({method for pair in key.pairs for method in pair.methods})
    valid = votes.total()
    shares = [_share(method, votes[method], valid) for method in methods]
    return Count(
        shares=sorted(shares, key=lambda share: -share.votes),
        valid=valid,
        invalid=invalid,
        raters=len(answers),
        agreement=krippendorff_alpha(list(by_question.values())),
    )


def table(count: Count) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| method | share | 95 % | votes |"
    yield "| --- | --- | --- | --- |"
    for share in count.shares:
        yield f"| {share.method} | {share.share:.1%} | {share.low:.1%} to {share.high:.1%} | {share.votes} |"
    yield (
        f"{count.valid} valid answers of {count.raters} raters; {count.invalid} invalid ones, whose "
        f"control was failed. Agreement of raters (Krippendorff's alpha): {count.agreement:.2f}."
    )


def wilson_interval(votes: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); 0 to 1 where there are no votes at all."""
    if not total:
        return 0.0, 1.0
    share, spread = votes / total, _Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def krippendorff_alpha(choices: Sequence[Sequence[str]]) -> float:
    """Agreement of raters on names, with any number of answers to a question; those with one do not count.

    Krippendorff 2011: 1 - (n - 1) D_o / D_e over pairs of answers. NaN where nothing can be compared or all
    answers are one name.
    """
    compared = [Counter(chosen) for chosen in choices if len(chosen) > 1]
    totals = sum(compared, Counter())
    n = totals.total()
    differing = sum((c.total() ** 2 - sum(v * v for v in c.values())) / (c.total() - 1) for c in compared)
    by_chance = n * n - sum(v * v for v in totals.values())
    return 1 - (n - 1) * differing / by_chance if by_chance else math.nan


def _share(method: str, votes: int, total: int) -> Share:
    low, high = wilson_interval(votes, total)
    return Share(method=method, votes=votes, share=votes / total if total else 0.0, low=low, high=high)
