"""Paired comparisons: by hand, against all sign changes, and what is refused."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.metrics import Row, compare_rows, measure_case


def rows_of(dice, name="lesion", class_id=1, **fields):
    """Rows whose Dice is what is said."""
    mask = np.ones((2, 2, 2), dtype=int)
    [result] = measure_case(mask, mask, (1, 1, 1), {1: name})
    return [
        Row(f"case-{i:02d}", 20.0, replace(result, class_id=class_id, dice=value, **fields))
        for i, value in enumerate(dice)
    ]


def signed_rank_p(differences) -> float:
    """The share of all choices of signs whose rank sum lies as far from the middle, or further."""
    ranks = np.abs(differences).argsort().argsort() + 1.0
    half = ranks.sum() / 2
    own = abs(ranks[np.asarray(differences) > 0].sum() - half)
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=len(ranks))
    ]
    return float(np.mean([abs(total - half) >= own - 1e-9 for total in sums]))


def test_differences_by_hand():
    first, second = [0.5, 0.6, 0.7, 0.8, 0.2], [0.61, 0.58, 0.74, 0.8, 0.3]
    [dice] = compare_rows(rows_of(first), rows_of(second), ["dice"]).comparisons
    assert (dice.n, dice.undefined, dice.wins, dice.losses, dice.ties) == (5, 0, 3, 1, 1)
    assert (dice.mean_first, dice.mean_second) == (pytest.approx(0.56), pytest.approx(0.606))
    assert dice.difference == pytest.approx(0.046)
    assert dice.low < 0.046 < dice.high
    assert dice.p == pytest.approx(signed_rank_p([0.11, -0.02, 0.04, 0.1]))


def test_p_equals_all_sign_changes():
    rng = np.random.default_rng(0)
    for size in range(1, 12):
        first, second = rng.random((2, size))
        [found] = compare_rows(rows_of(first), rows_of(second), ["dice"]).comparisons
        assert found.p == pytest.approx(signed_rank_p(second - first))


def test_equal_ranks_and_nothing_but_ties():
    first = np.linspace(0.1, 0.5, 20)
    [shifted] = compare_rows(rows_of(first), rows_of(first + 0.25), ["dice"]).comparisons
    assert (shifted.wins, shifted.losses) == (20, 0)
    assert shifted.p == pytest.approx(2 / 2**20)  # though the 20 differences of 0.25 differ by rounding
    [same] = compare_rows(rows_of(first), rows_of(first), ["dice"]).comparisons
    assert (same.ties, same.difference, same.low, same.high) == (20, 0, 0, 0)
    assert math.isnan(same.p)


def test_a_miss_costs_the_diagonal_and_less_is_better_for_distances():
    nan = float("nan")
    measures = ["hausdorff_95_mm", "hausdorff_95_mm_penalised"]
    first, second = rows_of([0.8] * 2, hausdorff_95_mm=2.0), rows_of([0.8] * 2, hausdorff_95_mm=1.0)
    second[1] = replace(second[1], result=replace(second[1].result, hausdorff_95_mm=nan, status="missed"))
    plain, penalised = compare_rows(first, second, measures).comparisons
    assert (plain.n, plain.undefined, plain.wins, plain.losses) == (1, 1, 1, 0)
    assert (penalised.n, penalised.wins, penalised.losses) == (2, 1, 1)
    assert penalised.mean_second == pytest.approx((1 + 20) / 2)
    outcomes = [case.outcome for case in compare_rows(first, second, measures).cases]
    assert outcomes == ["win", "undefined", "win", "loss"]


def test_classes_and_their_mean_and_cases_of_one_result_alone():
    first = rows_of([0.4, 0.6]) + rows_of([0.8, 0.8], "penumbra", 2)
    second = rows_of([0.5, 0.7, 0.9]) + rows_of([0.9, 0.6, 0.9], "penumbra", 2)
    found = compare_rows(first, second, ["dice"])
    assert (found.only_first, found.only_second) == ((), ("case-02",))
    by_class = {line.class_name: line for line in found.comparisons}
    assert list(by_class) == ["lesion", "penumbra", "mean"]
    assert by_class["mean"].difference == pytest.approx((0.1 - 0.05) / 2)
    assert (by_class["mean"].wins, by_class["mean"].losses) == (1, 1)


def test_what_is_refused():
    rows = rows_of([0.5])
    with pytest.raises(ConfigError, match=r"volume_difference_ml, of which neither"):
        compare_rows(rows, rows, ["volume_difference_ml"])
    with pytest.raises(ConfigError, match="the measure DICE"):
        compare_rows(rows, rows, ["DICE"])
    with pytest.raises(DataError, match=r"the classes lesion and of penumbra; .*--bundle RUN"):
        compare_rows(rows, rows_of([0.5], "penumbra"))
    both = rows_of([0.5, 0.6]) + rows_of([0.5, 0.6], "penumbra", 2)
    with pytest.raises(DataError, match=r"case case-01: found no row of class penumbra of the second result"):
        compare_rows(both, both[:-1])
    with pytest.raises(DataError, match=r"case case-00: found class lesion twice of the first result"):
        compare_rows([*both, both[0]], both)
    with pytest.raises(DataError, match="without a case in common"):
        compare_rows(rows, [replace(rows[0], case_id="other")])
