import math
from pathlib import Path

import pytest

from flash_pack.flash_modules.evaluation.study import Key, Pair
from flash_pack.flash_modules.evaluation.votes import (
    Answers,
    count_answers,
    krippendorff_alpha,
    read_answers,
    table,
    wilson_interval,
)

KEY = Key(
    study="s",
    seed=1,
    pairs=[
        Pair(question="q1", name="a", methods=["ours", "theirs"], control="c1", right=1),
        Pair(question="q2", name="b", methods=["theirs", "ours"], control="c2", right=0),
    ],
)


def test_wilsons_interval_solves_its_equation() -> None:
    for votes, total in ((3, 9), (244, 366), (0, 5), (5, 5)):
        for bound in wilson_interval(votes, total):
            distance = abs(votes / total - bound)
            assert distance == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / total), abs=1e-9)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_alpha_is_that_of_krippendorffs_published_example() -> None:
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, C: nominal data, four observers."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    units = [[c for c in column if c != "."] for column in zip(*(row.split() for row in rows), strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_1_for_one_mind_and_none_where_there_is_nothing_to_compare() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b", "b"]]) == 1.0
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) < 0
    assert math.isnan(krippendorff_alpha([["a"], ["b"]]))


def test_answers_with_a_failed_or_open_control_do_not_count() -> None:
    answers = [
        Answers(rater="r1", choices={"q1": 0, "c1": 1, "q2": 1, "c2": 0}),
        Answers(rater="r2", choices={"q1": 1, "c1": 0, "q2": 1, "c2": 0}),  # the first control failed
        Answers(rater="r3", choices={"q1": 1, "q2": 0, "c2": 0}),  # the first control left open
        Answers(rater="r4", choices={"c1": 1}),
    ]
    count = count_answers(KEY, answers)
    assert [(share.method, share.votes) for share in count.shares] == [("ours", 3), ("theirs", 1)]
    assert (count.valid, count.invalid, count.raters) == (4, 2, 4)
    assert count.shares[0].share == 0.75
    assert (count.shares[0].low, count.shares[0].high) == wilson_interval(3, 4)
    assert count.agreement == krippendorff_alpha([["ours"], ["ours", "ours", "theirs"]])
    lines = list(table(count))
    assert lines[2].startswith("| ours | 75.0% | ")
    assert "4 valid answers of 4 raters; 2 invalid ones" in lines[-1]


def test_nobodys_answers_are_no_shares() -> None:
    count = count_answers(KEY, [])
    assert [share.share for share in count.shares] == [0.0, 0.0]


def test_answers_that_cannot_be_counted_are_refused(tmp_path: Path) -> None:
    one = Answers(rater="r1", choices={"q1": 7, "c1": 1})
    with pytest.raises(ValueError, match="The rater r1 chose a video that is not there"):
        count_answers(KEY, [one])
    with pytest.raises(ValueError, match="The rater r1 comes twice"):
        count_answers(KEY, [one, one])
    path = tmp_path / "answers.json"
    for text, wanted in (
        ('{"rater": "r"}', "holds no answers of a study"),
        ('{"rater": "r", "study": "other", "answers": {}}', "answers another study than the key's"),
        ('{"rater": "r", "study": "s", "answers": {"q1": "x"}}', "an answer in it is no number"),
        ("[", "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=wanted):
            read_answers(path, KEY)
