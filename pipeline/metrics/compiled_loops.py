"""The compiled loops behind `measure_case`: where classes lie, their surfaces' distances, their components.

Importing this needs numba. All arrays are C-contiguous with three axes, a section having a first axis of one voxel;
masks are uint8, 0 or 1. Each function works on some planes of the first axis without the interpreter's lock, so that
the caller can give shares to threads; no value depends on how they are shared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

logger = logging.getLogger(__name__)

FAR = 255
"""In rows of distances: this many voxels or more, or nothing in the row."""


def _compiled(function: Callable) -> Any:
    """Machine code that is kept on disk (beside this file, or in the user's cache folder where that can't be written).

    Nothing is rearranged: results are those of the arithmetic as it is written.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:  # numba's "no locator available": neither folder can be written
        logger.warning("Compiled code can't be kept for the next time, set NUMBA_CACHE_DIR to a folder: %s", error)
        return njit(**options)(function)


@_compiled
def class_boxes(label_map, ids, first, last, box):
    """Widens ``box`` (K, 3, 2), first and last + 1 voxel of each class of ``ids``, by planes ``first`` to ``last``."""
    size = label_map.shape[2]
    for i in range(first, last):
        for j in range(label_map.shape[1]):
            row = label_map[i, j]
            before, slot, k = label_map.dtype.type(0), -1, 0
            while k < size:
                if k + 64 <= size:  # background, 64 voxels at a time
                    block = row[k : k + 64]
                    found = label_map.dtype.type(0)
                    for v in range(64):
                        found |= block[v]
                    if found == 0:
                        k += 64
                        continue
                end = min(k + 64, size)
                for v in range(k, end):
                    value = row[v]
                    if value != before:
                        before, slot = value, -1
                        for c in range(ids.size):
                            if value != 0 and ids[c] == value:
                                slot = c
                    if slot >= 0:
                        box[slot, 0, 0], box[slot, 0, 1] = min(box[slot, 0, 0], i), max(box[slot, 0, 1], i + 1)
                        box[slot, 1, 0], box[slot, 1, 1] = min(box[slot, 1, 0], j), max(box[slot, 1, 1], j + 1)
                        box[slot, 2, 0], box[slot, 2, 1] = min(box[slot, 2, 0], v), max(box[slot, 2, 1], v + 1)
                k = end


@_compiled
def row_distances(mask, is_section, first, last, along):
    """Voxels to the nearest surface voxel of the same row, into ``along`` (uint8): 0 on the surface, up to `FAR`."""
    planes, rows, size = mask.shape
    for i in range(first, last):
        for j in range(rows):
            own, out = mask[i, j], along[i, j]
            inside = 0
            for k in range(size):
                inside += own[k]
            out[:] = FAR
            if inside == 0:
                continue
            at_border = j == 0 or j == rows - 1 or (not is_section and (i == 0 or i == planes - 1))
            below, above = mask[i, max(j - 1, 0)], mask[i, min(j + 1, rows - 1)]
            before, behind = mask[max(i - 1, 0), j], mask[min(i + 1, planes - 1), j]
            since = FAR
            for k in range(size):
                since = min(since + 1, FAR)
                if own[k]:
                    enclosed = not at_border and k > 0 and k < size - 1 and own[k - 1] and own[k + 1]
                    if not (enclosed and below[k] and above[k] and before[k] and behind[k]):
                        since = 0
                out[k] = since
            since = FAR
            for k in range(size - 1, -1, -1):
                since = 0 if out[k] == 0 else min(since + 1, FAR)
                if since < out[k]:
                    out[k] = since


@_compiled
def count_surface(own, other, first, last, counts):
    """Into ``counts`` (planes, 2): surface voxels of ``own`` that the other surface shares, and those it does not."""
    for i in range(first, last):
        shared, apart = 0, 0
        for j in range(own.shape[1]):
            mine, theirs = own[i, j], other[i, j]
            for k in range(mine.size):
                shared += mine[k] == 0 and theirs[k] == 0
                apart += mine[k] == 0 and theirs[k] != 0
        counts[i, 0], counts[i, 1] = shared, apart


@_compiled
def nearest(own, other, lines, lines_mm2, beyond_mm2, step_mm, first, last, begins, squares, places):
    """Squared distances, mm2, of the surface voxels of ``own`` that the other surface does not share.

    A nearest voxel is looked for row by row, the nearest rows first: within a row its distance is known. The search
    ends where the next row is further away than what is found.

    Args:
        own, other: what `row_distances` makes.
        lines: (N, 2) int32, steps to another row along the first two axes, the nearest first.
        lines_mm2: (N,) their squared length; ``beyond_mm2`` is that of the first row which is not among them.
        step_mm: distance between voxels of a row.
        begins: (planes,) where each plane's results begin in ``squares`` (float64) and ``places`` (int64, in the
            flattened array).

    Where the nearest voxel is so far that it could not be found for certain, the square is -1.
    """
    planes, rows, size = own.shape
    limit = min(beyond_mm2, (FAR * step_mm) ** 2)
    for i in range(first, last):
        at = begins[i]
        for j in range(rows):
            for k in range(size):
                if own[i, j, k] != 0 or other[i, j, k] == 0:
                    continue
                best = np.inf
                for n in range(lines_mm2.size):
                    if lines_mm2[n] >= best:
                        break
                    a, b = i + lines[n, 0], j + lines[n, 1]
                    if a < 0 or b < 0 or a >= planes or b >= rows:
                        continue
                    along = other[a, b, k]
                    if along != FAR:
                        best = min(best, lines_mm2[n] + (along * step_mm) ** 2)
                squares[at] = best if best <= limit else -1.0
                places[at] = (i * rows + j) * size + k
                at += 1


@_compiled
def _root(parents, run):
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@_compiled
def components(mask, other, runs, row_ends, parents):
    """The 26-connected components of a mask, by its runs: stretches of voxels along the last axis.

    Args:
        mask, other: of one shape.
        runs: (R, 4) int64, room for all runs: first voxel, last + 1, voxels, and how many of these ``other`` covers.
        row_ends: (planes * rows + 1,) int64, room for where each row's runs end.
        parents: (R,) int64.

    Returns:
        (components, 2): voxels, and how many of these ``other`` covers.
    """
    planes, rows, size = mask.shape
    number = 0
    row_ends[0] = 0
    for i in range(planes):
        for j in range(rows):
            own, theirs, k = mask[i, j], other[i, j], 0
            while k < size:
                if own[k] == 0:
                    k += 1
                    continue
                start, covered = k, 0
                while k < size and own[k] != 0:
                    covered += theirs[k]
                    k += 1
                runs[number, 0], runs[number, 1] = start, k
                runs[number, 2], runs[number, 3] = k - start, covered
                parents[number] = number
                number += 1
            here = i * rows + j
            row_ends[here + 1] = number
            for turn in range(4):  # the rows before this one that it touches
                a = i - 1 if turn < 3 else i
                b = j - 1 + turn if turn < 3 else j - 1
                if a < 0 or b < 0 or b >= rows:
                    continue
                run, near, near_end = row_ends[here], row_ends[a * rows + b], row_ends[a * rows + b + 1]
                while run < number and near < near_end:
                    if runs[run, 0] <= runs[near, 1] and runs[near, 0] <= runs[run, 1]:
                        one, two = _root(parents, run), _root(parents, near)
                        parents[max(one, two)] = min(one, two)
                    if runs[run, 1] < runs[near, 1]:
                        run += 1
                    else:
                        near += 1
    found = 0
    for run in range(number):
        root = _root(parents, run)
        if root == run:
            found += 1
        else:
            runs[root, 2] += runs[run, 2]
            runs[root, 3] += runs[run, 3]
    result = np.empty((found, 2), np.int64)
    at = 0
    for run in range(number):
        if parents[run] == run:
            result[at, 0], result[at, 1] = runs[run, 2], runs[run, 3]
            at += 1
    return result


@_compiled
def count_runs(mask):
    """The number of stretches of voxels along the last axis."""
    number = 0
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            row = mask[i, j]
            before = 0
            for k in range(row.size):
                number += row[k] > before
                before = row[k]
    return number


def is_kept() -> bool:
    """Whether compiled code lies on disk for this machine's kind (numba finds out for certain when it loads it)."""
    path = nearest.stats.cache_path
    return path is not None and any(Path(path).glob("compiled_loops.nearest-*.nbc"))


def was_compiled() -> bool:
    """Whether this process has compiled any of it, rather than found it on the disk."""
    loops = (class_boxes, row_distances, count_surface, nearest, count_runs, components)
    return any(function.stats.cache_misses for function in loops)
