"""The compiled loop behind `pipeline.transforms.resampling`: where a voxel of the patch looks, and what stands there.

Importing this needs numba. Each function makes some rows of a patch, rows being its lines along the last axis, counted
through the first two: the caller gives them to threads, and no voxel depends on how. A block of rows at a time,
coordinates are written to a buffer (control points along the row are few, voxels many and contiguous), then looked up
and thrown away: nothing as large as the patch is ever in memory but the patch.

`patch_map` arrays, alike for all functions, in voxels of the volume:

- ``affine`` (3, 4) float64: where the patch's voxel (0, 0, 0) looks without displacement in column 3, and how that
  changes per voxel along each of its axes;
- ``control`` (3, n0, n1, n2) float32: control vectors; of size 0 where nothing is displaced;
- ``weights0`` (P0, n0), ``weights1`` (P1, n1), ``weights2`` (n2, P2) float32: of each control point per axis;
- ``support`` (n2, 2): first and last + 1 voxel of the row that a control point of the last axis moves.

And of the volume: ``flat``, its memory as one axis; ``grid``, int64: channels, stride between channels, the strides of
the three axes, their sizes, and the voxel at which each axis's border table begins; ``table0``, ``table1``, ``table2``
int64: where in memory a voxel of an axis stands that may lie beyond the volume (empty where none does).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

logger = logging.getLogger(__name__)

_BLOCK = 256  # voxels per block, at least: with buffers that stay in the processor's fastest cache


def _compiled(function: Callable) -> Any:
    """Machine code that is kept on disk (beside this file, or in the user's cache folder where that can't be written).

    Multiplication and addition may be fused, nothing else is rearranged: a voxel comes out the same in every thread.
    """
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:  # numba's "no locator available": neither folder can be written
        logger.warning("Compiled code can't be kept for the next time, set NUMBA_CACHE_DIR to a folder: %s", error)
        return njit(**options)(function)


@_compiled
def _locate(
    first, count, size1, size2, affine, control, weights0, weights1, weights2, support, slab, slab_of, row, where
):
    """Coordinates (3, count * size2) of ``count`` rows from ``first``, into ``where``.

    ``slab`` holds the control vectors summed over the first axis at index ``slab_of``; returns its new index.
    """
    for r in range(count):
        i, j, begin = (first + r) // size1, (first + r) % size1, r * size2
        if control.size:
            if i != slab_of:
                slab_of = i
                slab[:] = 0
                for n in range(control.shape[1]):
                    if weights0[i, n] != 0:
                        for a in range(3):
                            for m in range(control.shape[2]):
                                for k in range(control.shape[3]):
                                    slab[a, m, k] += weights0[i, n] * control[a, n, m, k]
            row[:] = 0
            for m in range(control.shape[2]):
                if weights1[j, m] != 0:
                    for a in range(3):
                        for k in range(control.shape[3]):
                            row[a, k] += weights1[j, m] * slab[a, m, k]
        for a in range(3):
            line = where[a, begin : begin + size2]
            start = np.float32(affine[a, 3] + i * affine[a, 0] + j * affine[a, 1])
            step = np.float32(affine[a, 2])
            for k in range(size2):
                line[k] = start + np.float32(k) * step
            if control.size:
                for n in range(control.shape[3]):
                    # Slices, since an index that might be negative would keep the loop from being vectorised.
                    part = line[support[n, 0] : support[n, 1]]
                    weight = weights2[n, support[n, 0] : support[n, 1]]
                    for k in range(part.size):
                        part[k] += row[a, n] * weight[k]
    return slab_of


@_compiled
def _is_inside(where, count, grid):
    """Whether none of the first ``count`` coordinates lies beyond the volume."""
    outside = 0
    for a in range(3):
        line, last = where[a, :count], np.float32(grid[5 + a] - 1)
        for v in range(line.size):
            outside += not (line[v] >= 0 and line[v] <= last)
    return outside == 0


@_compiled
def _neighbours(where, count, grid, table0, table1, table2, at):
    """Per axis the two voxels between which each coordinate lies, as places in memory, into ``at`` (6, voxels); in
    ``where`` the distance from the first remains. An axis of one voxel has a stride of 0."""
    inside = _is_inside(where, count, grid)
    for a in range(3):
        line, below, above = where[a, :count], at[2 * a, :count], at[2 * a + 1, :count]
        stride, last, begin = np.int32(grid[2 + a]), np.int32(max(grid[5 + a] - 2, 0)), np.int32(grid[8 + a])
        if inside:
            for v in range(line.size):
                index = min(np.int32(line[v]), last)
                below[v], above[v] = index * stride, index * stride + stride
                line[v] -= np.float32(index)
        else:
            table = table0 if a == 0 else (table1 if a == 1 else table2)
            for v in range(line.size):
                index = math.floor(line[v])
                below[v], above[v] = table[index - begin], table[index - begin + 1]
                line[v] -= np.float32(index)


@_compiled
def linear(
    flat, grid, table0, table1, table2, affine, control, weights0, weights1, weights2, support,
    size1, size2, patch, first, last,
):  # fmt: skip
    """All channels, linearly interpolated, into rows ``first`` to ``last`` of ``patch`` (C, voxels) float32."""
    rows = max(1, _BLOCK // size2)
    where, at = np.empty((3, rows * size2), np.float32), np.empty((6, rows * size2), np.int32)
    slab, row = np.empty(control.shape[:1] + control.shape[2:], np.float32), np.empty((3, control.shape[3]), np.float32)
    slab_of, thick = -1, grid[5] > 1
    for begin in range(first, last, rows):
        count = min(rows, last - begin)
        slab_of = _locate(
            begin,
            count,
            size1,
            size2,
            affine,
            control,
            weights0,
            weights1,
            weights2,
            support,
            slab,
            slab_of,
            row,
            where,
        )
        _neighbours(where, count * size2, grid, table0, table1, table2, at)
        for v in range(count * size2):
            x, y, z = where[0, v], where[1, v], where[2, v]
            # 64 bits from here on; unsigned as an index, since a signed one is tested for counting from the end.
            x0, x1, y0, y1, z0, z1 = at[0, v], at[1, v], at[2, v], at[3, v], np.int64(at[4, v]), np.int64(at[5, v])
            x0y0, x0y1, x1y0, x1y1 = np.int64(x0) + y0, np.int64(x0) + y1, np.int64(x1) + y0, np.int64(x1) + y1
            for c in range(grid[0]):
                channel = c * grid[1]
                p = flat[np.uint64(channel + x0y0 + z0)]
                p += z * (flat[np.uint64(channel + x0y0 + z1)] - p)
                q = flat[np.uint64(channel + x0y1 + z0)]
                q += z * (flat[np.uint64(channel + x0y1 + z1)] - q)
                p += y * (q - p)
                if thick:
                    q = flat[np.uint64(channel + x1y0 + z0)]
                    q += z * (flat[np.uint64(channel + x1y0 + z1)] - q)
                    r = flat[np.uint64(channel + x1y1 + z0)]
                    r += z * (flat[np.uint64(channel + x1y1 + z1)] - r)
                    q += y * (r - q)
                    p += x * (q - p)
                patch[c, begin * size2 + v] = p


@_compiled
def nearest(
    flat, grid, table0, table1, table2, affine, control, weights0, weights1, weights2, support,
    size1, size2, patch, first, last,
):  # fmt: skip
    """All channels, the nearest voxel (halfway, the next), into rows ``first`` to ``last`` of ``patch`` (C, voxels)."""
    rows = max(1, _BLOCK // size2)
    where, at = np.empty((3, rows * size2), np.float32), np.empty((6, rows * size2), np.int32)
    slab, row = np.empty(control.shape[:1] + control.shape[2:], np.float32), np.empty((3, control.shape[3]), np.float32)
    slab_of = -1
    for begin in range(first, last, rows):
        count = min(rows, last - begin)
        slab_of = _locate(
            begin,
            count,
            size1,
            size2,
            affine,
            control,
            weights0,
            weights1,
            weights2,
            support,
            slab,
            slab_of,
            row,
            where,
        )
        _neighbours(where, count * size2, grid, table0, table1, table2, at)
        for v in range(count * size2):
            place = np.int64(at[0, v] if where[0, v] < 0.5 else at[1, v])
            place += at[2, v] if where[1, v] < 0.5 else at[3, v]
            place += at[4, v] if where[2, v] < 0.5 else at[5, v]
            for c in range(grid[0]):
                patch[c, begin * size2 + v] = flat[np.uint64(c * grid[1] + place)]


@_compiled
def majority(
    flat, grid, table0, table1, table2, affine, control, weights0, weights1, weights2, support,
    size1, size2, patch, first, last,
):  # fmt: skip
    """Of the eight voxels around, the value with the largest sum of linear weights (of equal sums, the first corner's):
    the argmax of the linearly interpolated masks of all values. Into rows ``first`` to ``last`` of ``patch``."""
    rows = max(1, _BLOCK // size2)
    where, at = np.empty((3, rows * size2), np.float32), np.empty((6, rows * size2), np.int32)
    slab, row = np.empty(control.shape[:1] + control.shape[2:], np.float32), np.empty((3, control.shape[3]), np.float32)
    weight, values, one = np.empty(8, np.float32), np.empty(8, flat.dtype), np.float32(1)
    slab_of = -1
    for begin in range(first, last, rows):
        count = min(rows, last - begin)
        slab_of = _locate(
            begin,
            count,
            size1,
            size2,
            affine,
            control,
            weights0,
            weights1,
            weights2,
            support,
            slab,
            slab_of,
            row,
            where,
        )
        _neighbours(where, count * size2, grid, table0, table1, table2, at)
        for v in range(count * size2):
            x0, x1, y0, y1, z0, z1 = at[0, v], at[1, v], at[2, v], at[3, v], np.int64(at[4, v]), np.int64(at[5, v])
            x0y0, x0y1, x1y0, x1y1 = np.int64(x0) + y0, np.int64(x0) + y1, np.int64(x1) + y0, np.int64(x1) + y1
            for c in range(grid[0]):
                channel = c * grid[1]
                e0, e1 = flat[np.uint64(channel + x0y0 + z0)], flat[np.uint64(channel + x0y0 + z1)]
                e2, e3 = flat[np.uint64(channel + x0y1 + z0)], flat[np.uint64(channel + x0y1 + z1)]
                e4, e5 = flat[np.uint64(channel + x1y0 + z0)], flat[np.uint64(channel + x1y0 + z1)]
                e6, e7 = flat[np.uint64(channel + x1y1 + z0)], flat[np.uint64(channel + x1y1 + z1)]
                best = e0
                if (e0 ^ e1) | (e0 ^ e2) | (e0 ^ e3) | (e0 ^ e4) | (e0 ^ e5) | (e0 ^ e6) | (e0 ^ e7):
                    x, y, z = where[0, v], where[1, v], where[2, v]
                    values[:4] = (e0, e1, e2, e3)
                    values[4:] = (e4, e5, e6, e7)
                    weight[0], weight[1] = (one - x) * (one - y) * (one - z), (one - x) * (one - y) * z
                    weight[2], weight[3] = (one - x) * y * (one - z), (one - x) * y * z
                    weight[4], weight[5] = x * (one - y) * (one - z), x * (one - y) * z
                    weight[6], weight[7] = x * y * (one - z), x * y * z
                    largest = np.float32(-1)
                    for corner in range(8):
                        total = np.float32(0)
                        for other in range(8):
                            if values[other] == values[corner]:
                                total += weight[other]
                        if total > largest:
                            best, largest = values[corner], total
                patch[c, begin * size2 + v] = best


def is_kept() -> bool:
    """Whether compiled code lies on disk for this machine's kind (numba finds out for certain when it loads it)."""
    path = linear.stats.cache_path
    return path is not None and any(Path(path).glob("compiled_loop.linear-*.nbc"))


def was_compiled() -> bool:
    """Whether this process has compiled any of it, rather than found it on the disk."""
    return any(function.stats.cache_misses for function in (linear, nearest, majority))
