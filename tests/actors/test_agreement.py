import random

import pytest

from actors.studies.agreement import interval, spearman


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
        low, high = interval(values, others)
        assert low < spearman(values, others) < high
        widths.append(high - low)
    assert widths[1] < widths[0]
