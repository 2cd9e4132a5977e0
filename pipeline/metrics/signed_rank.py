"""The Wilcoxon signed-rank test where magnitudes are equal and cases are few, as the Dice of whole voxels often are.

F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945; exact with mid-ranks by the
shift algorithm of Streitberg & Roehmel, "Exact distributions for permutation and rank tests", 1986.
"""

from __future__ import annotations

import math

import numpy as np

MOST_EXACT = 200
"""Differences up to which p is exact: some tens of milliseconds. Beyond, the normal approximation is as good."""


def signed_rank_p(differences: np.ndarray, tolerance: float = 0.0) -> float:
    """The two-sided p: how often random signs lead as far from no difference, or further.

    Differences of equal magnitude share the mean of their ranks. Up to `MOST_EXACT` differences all 2**n choices of
    signs count; beyond that it is the normal approximation, corrected for equal ranks and for continuity.

    Args:
        differences: (n,), none of them 0.
        tolerance: magnitudes that lie no further apart in order are equal: 0.3 - 0.2 and 0.2 - 0.1 differ by rounding.

    Returns:
        0 to 1; NaN where there are no differences.

    >>> signed_rank_p(np.array([0.1, 0.1, 0.1, 0.1, 0.1]))  # all signs up, or all down: 2 of 32
    0.0625
    """
    if not len(differences):
        return math.nan
    magnitudes = np.abs(differences)
    order = np.argsort(magnitudes)
    group = np.empty(len(order), int)
    group[order] = np.cumsum(np.diff(magnitudes[order], prepend=-np.inf) > tolerance) - 1
    if len(differences) > MOST_EXACT:
        from scipy.stats import wilcoxon  # takes longer to import than all else here

        return float(wilcoxon(np.sign(differences) * (group + 1), method="approx", correction=True).pvalue)
    sizes = np.bincount(group)
    last = np.cumsum(sizes)  # a group's ranks are last - size + 1 to last, and twice their mean is a whole number
    doubled_ranks = (2 * last - sizes + 1)[group]
    up = int(doubled_ranks[differences > 0].sum())
    return min(1.0, 2 * float(_sums_of_random_signs(doubled_ranks)[: min(up, int(doubled_ranks.sum()) - up) + 1].sum()))


def _sums_of_random_signs(ranks: np.ndarray) -> np.ndarray:
    """How probable each sum is, 0 to the sum of all, when each of the whole-numbered ranks counts by a coin's toss."""
    probability = np.zeros(int(ranks.sum()) + 1)
    probability[0] = 1
    for rank in ranks.tolist():
        shifted = probability[:-rank] / 2
        probability /= 2
        probability[rank:] += shifted
    return probability
