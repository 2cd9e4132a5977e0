"""A case beside its peers: values, mirror images and copies that stand out of a dataset.

All comparisons are robust: the median and the median absolute deviation stand for what is usual, so that the odd cases
do not set the scale by which they are judged. With fewer than `LEAST_PEERS` cases nothing is usual yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import comb

import numpy as np

from pipeline.data.fingerprint import MINIATURE_SIDE, CaseFingerprint

LEAST_PEERS = 6
LIMIT = 5.0
"""From this many robust standard deviations on a value is odd: of 1000 normal ones none is expected."""

LEAST_GAIN = 0.05
LEAST_LIKENESS = 0.6
"""Mirrored, a suspect must resemble its peers at least so well (correlation), and better by the gain than as it is."""

_LEAST_CHANCE = 0.001
"""What chance alone would do less often than this is taken to have a reason."""
_SAME_PLACE = 0.04
"""Centres that deviate by less than this share of the volume along every axis: the hippocampus' two parts have 0.03."""


def odd_ones(values: Sequence[float], floor: float) -> np.ndarray:
    """Which of the values (N,) lie far from the median; none where there are too few to tell.

    Args:
        floor: least standard deviation that is assumed: what differs by less than `LIMIT` times this is never odd, even
            where all the others are equal.

    >>> odd_ones([1.0, 1.0, 1.0, 1.0, 1.0, 1.2], floor=0.02).tolist()
    [False, False, False, False, False, True]
    """
    found = np.asarray(values, dtype=np.float64)
    if found.size < LEAST_PEERS:
        return np.zeros(found.size, bool)
    distance = np.abs(found - np.median(found))
    return distance > LIMIT * max(1.4826 * float(np.median(distance)), floor)


def mirrored(miniatures: Mapping[str, bytes]) -> dict[str, int]:
    """Cases whose picture resembles the others' only after a flip: id -> axis (0 left-right, 1 front-back, 2 up-down).

    Each is compared with the mean of all others, as it is and flipped along each axis. It is named where the flip makes
    it clearly more alike and the others are not so. Wrong headers and mirrored voxels look the same here.

    Args:
        miniatures: id -> `ChannelFingerprint.miniature`, of one channel.
    """
    ids = [name for name, small in miniatures.items() if len(small) == MINIATURE_SIDE**3]
    if len(ids) < LEAST_PEERS:
        return {}
    stack = np.array([np.frombuffer(miniatures[name], np.uint8) for name in ids], dtype=np.float64)
    stack -= stack.mean(axis=1, keepdims=True)
    stack /= np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-12)
    others = stack.sum(axis=0) - stack
    others -= others.mean(axis=1, keepdims=True)
    others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-12)
    alike = (stack * others).sum(axis=1)
    cubes = stack.reshape(-1, *(MINIATURE_SIDE,) * 3)
    flipped = np.array(
        [(np.flip(cubes, axis + 1).reshape(stack.shape) * others).sum(axis=1) for axis in range(3)]
    )  # (3, N)
    result: dict[str, int] = {}
    for axis in range(3):
        gain = flipped[axis] - alike
        odd = odd_ones(gain.tolist(), floor=LEAST_GAIN / LIMIT) & (gain > LEAST_GAIN)
        odd &= (flipped[axis] > LEAST_LIKENESS) & (flipped[axis] == flipped.max(axis=0))
        result |= {ids[index]: axis for index in np.flatnonzero(odd)}
    return result


def on_the_other_side(centres: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Cases whose label lies where the others' would lie mirrored: id -> axis, as `mirrored`.

    A lesion may lie on either side, and of a few lesions most lie on one. So a side counts as usual only of what lies
    in the same place in all cases, as an organ does, or where chance would hardly have put so many there: from 15
    cases with one on the other side on.

    Args:
        centres: id -> centre in the volume's box, 0 to 1 per axis, of one class.
    """
    ids = list(centres)
    if len(ids) < LEAST_PEERS:
        return {}
    places = np.array([centres[name] for name in ids]) - 0.5
    middle = np.median(places, axis=0)
    scales = 1.4826 * np.median(np.abs(places - middle), axis=0)
    an_organ = float(scales.max()) < _SAME_PLACE
    result: dict[str, int] = {}
    for axis in range(places.shape[1]):
        along, usual, scale = places[:, axis], float(middle[axis]), max(float(scales[axis]), 0.01)
        across = along * usual < 0
        if not an_organ and _by_chance(int(across.sum()), len(ids)) > _LEAST_CHANCE:
            continue
        odd = odd_ones(along.tolist(), floor=0.01) & across & (np.abs(-along - usual) < 3 * scale)
        result |= {ids[index]: axis for index in np.flatnonzero(odd)}
    return result


def _by_chance(fewer: int, number: int) -> float:
    """How probable it is that of a number of coins so few or fewer show the one side, or the other (sign test)."""
    return min(1.0, 2 * sum(comb(number, k) for k in range(fewer + 1)) / 2**number)


def copies(cases: Sequence[CaseFingerprint]) -> list[tuple[str, tuple[str, ...]]]:
    """(channel, ids) of the cases that hold the very same voxels, in whatever order.

    They are equal in number, extremes, mean and standard deviation to nine digits (whose last ones depend on the order
    of summation); the sides may be exchanged.
    """
    same: dict[tuple, list[str]] = defaultdict(list)
    for case in cases:
        for name, channel in case.channels.items():
            every, sides = channel.all_voxels, tuple(sorted(channel.grid.shape))
            key = (name, sides, every.minimum, every.maximum, f"{every.mean:.9g}", f"{every.std:.9g}")
            same[key].append(case.case_id)
    return [(key[0], tuple(ids)) for key, ids in same.items() if len(ids) > 1]
