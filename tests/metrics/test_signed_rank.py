"""p of the signed-rank test: all choices of signs written out, SciPy where no ranks are equal, and equal ones."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from pipeline.metrics.signed_rank import MOST_EXACT, signed_rank_p


def share_of_all_signs(differences) -> float:
    """The share of all choices of signs whose sum of signed mid-ranks lies as far from 0, or further."""
    ranks = rankdata(np.abs(differences))
    signs = np.array(list(product((1, -1), repeat=len(ranks))))
    return float(np.mean(np.abs(signs @ ranks) >= abs(np.sign(differences) @ ranks) - 1e-9))


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.1] * 5, 2 / 32),
        ([1] * 4, 2 / 16),
        ([1, 1, 1, 1, 2], 2 / 32),
        ([0.5], 1),
        ([0.1, -0.1], 1),
        ([1, 1, -1], 1),  # ranks 2, 2, 2: every sum, 0, 2, 4 or 6, lies as far from the middle as 4
    ],
)
def test_few_equal_differences_by_hand(differences, expected):
    assert signed_rank_p(np.array(differences, float)) == pytest.approx(expected)


def test_equal_ranks_count_all_signs():
    rng = np.random.default_rng(0)
    for size in range(1, 11):
        for _ in range(5):
            differences = rng.integers(1, 5, size) * rng.choice([-1.0, 1.0, 1.0], size)
            assert signed_rank_p(differences) == pytest.approx(share_of_all_signs(differences))


@pytest.mark.parametrize("size", [1, 2, 7, 50, MOST_EXACT])
def test_without_equal_ranks_it_is_scipys(size):
    differences = np.random.default_rng(size).normal(0.1, 1, size)
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


def test_beyond_the_exact_numbers_equal_ranks_still_count():
    rng = np.random.default_rng(0)
    differences = rng.integers(1, 6, MOST_EXACT + 1) * rng.choice([-1.0, 1.0, 1.0], MOST_EXACT + 1) / 10
    exact = signed_rank_p(differences[:-1])
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences, method="approx", correction=True).pvalue)
    assert signed_rank_p(differences) == pytest.approx(exact, rel=0.5)


@pytest.mark.parametrize("size", [6, 300])
def test_differences_that_differ_by_rounding_are_equal(size):
    tenths = np.resize([0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3, 0.1 - 0.2, 0.7 - 0.6, 0.8 - 0.7], size)
    assert len(np.unique(np.abs(tenths))) > 1
    assert signed_rank_p(tenths, 1e-9) == signed_rank_p(np.sign(tenths))
    assert signed_rank_p(tenths, 1e-9) != signed_rank_p(tenths)


def test_nothing_but_ties():
    assert math.isnan(signed_rank_p(np.array([])))
