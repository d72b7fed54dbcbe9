import random
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import pytest

from actors.judge.measures import Scores
from actors.studies import agreement
from actors.studies.agreement import OURS, Judged, agreement_table, interval, measure, spearman


def test_rank_correlation_is_that_of_a_known_table() -> None:
    """Spearman's formula without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    values, others = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(values, others) == pytest.approx(1 - 6 * 194 / (10 * 99))


def test_rank_correlation_takes_order_alone_and_shares_ranks_of_ties() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2, 2], [5, 5, 9, 9]) == pytest.approx(1.0)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_the_interval_holds_the_value_and_narrows_with_the_number() -> None:
    draw = random.Random(1)
    widths = []
    for count in (10, 80):
        values = [draw.random() for _ in range(count)]
        others = [value + draw.random() for value in values]
        low, high = interval([[pair] for pair in zip(values, others, strict=True)])
        assert low < spearman(values, others) < high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_videos_of_a_picture_count_as_one() -> None:
    """Twice the same video of each picture tells no more than once."""
    draw = random.Random(2)
    pairs = [(value, value + draw.random()) for value in (draw.random() for _ in range(12))]
    once = interval([[pair] for pair in pairs])
    assert interval([[pair, pair] for pair in pairs]) == pytest.approx(once, abs=0.02)
    low, high = interval([[pair] for pair in pairs * 2])
    assert high - low < 0.85 * (once[1] - once[0])


def test_what_is_before_learning_is_made_for_the_first_variant_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def videos(lesson: object, folder: Path, args: Namespace, *, before: bool) -> list[Judged]:
        made.append((folder.name, before))
        return []

    monkeypatch.setattr(agreement, "_videos", videos)
    monkeypatch.setattr(agreement, "agreement_table", lambda judged: [])
    measure(Namespace(actions=["arm wave", "soccer shoot"], variants=[2, 5], steps=3, seed=0, out=tmp_path))
    assert [before for _, before in made] == [True, False, True, False]
    assert made[0][0] == "arm-wave-2-3-0"


def test_the_table_tells_how_many_videos_and_pictures() -> None:
    draw = random.Random(3)
    judged = [_judged(f"picture {i // 3}", draw.random()) for i in range(12)]
    head, _, first, *_ = agreement_table(judged)
    assert head.startswith("| 12 videos of 4 pictures | joint error ↓ |")
    assert first.split(" | ")[1].startswith("+1.00 (")


def _judged(picture: str, value: float) -> Judged:
    ours = dict.fromkeys((one.key for one in OURS), value)
    names = [field.name for field in fields(Scores)]
    return Judged(picture=picture, ours=ours, theirs=Scores(**dict.fromkeys(names, value)))
