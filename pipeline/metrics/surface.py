"""Distances between the surfaces of two masks, in millimetres.

The surface of a mask is the set of its voxels that have a background neighbour (6-connected in 3D, 4-connected in 2D);
what lies beyond the image border counts as background. Distances are exact and Euclidean, between voxel centres.

MONAI (``compute_hausdorff_distance``) uses the same surface and gives the same Hausdorff distances where both masks
hold something. SimpleITK (``HausdorffDistanceImageFilter``) measures from all voxels of a mask to the other mask: the
same number for most pairs, another one where a mask has a hole that the other lacks. DeepMind's ``surface-distance``
weights surface elements between the voxels by their area, so its percentiles, average distances and surface Dice differ
slightly from those here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
from scipy.spatial import cKDTree

from pipeline.metrics.loops import compiled_loops, in_shares, num_threads

# A thread costs more than it saves below about this many look-ups.
_PARALLEL_FROM = 20_000
# Rows in which a nearest voxel is looked for; beyond, a tree finds it in less time.
_MOST_ROWS = 1500
# Products of spacings such as 10 x 0.1 mm must not fall out of a tolerance of 1 mm by the last bit.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SurfaceMeasures:
    """Distances in mm and the normalised surface Dice (0 to 1) of two masks."""

    hausdorff_mm: float
    hausdorff_95_mm: float
    assd_mm: float
    nsd: float


def surface_of(mask: np.ndarray) -> np.ndarray:
    """The surface voxels of a mask.

    Args:
        mask: bool, (H, W) or (H, W, D).

    Returns:
        bool, same shape.

    >>> surface_of(np.ones((3, 4), dtype=bool)).astype(int)
    array([[1, 1, 1, 1],
           [1, 0, 0, 1],
           [1, 1, 1, 1]])
    """
    inside = mask.copy()
    for axis in range(mask.ndim):
        within, neighbours = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        within[1:] &= neighbours[:-1]
        within[:-1] &= neighbours[1:]
        within[[0, -1]] = False
    return mask ^ inside


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """For every surface voxel of one mask the distance to the nearest surface voxel of the other.

    Args:
        prediction: bool, (H, W) or (H, W, D), not empty.
        reference: bool, same shape, not empty.
        spacing_mm: distance between voxel centres along each axis.

    Returns:
        Distances in mm from the prediction's surface to the reference's, and from the reference's to the prediction's;
        float64, one per surface voxel, in no particular order.
    """
    apart_p, apart_r, shared = distances_apart(prediction, reference, spacing_mm)
    zeros = np.zeros(shared)
    return np.concatenate([zeros, apart_p]), np.concatenate([zeros, apart_r])


def surface_measures(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float = 1.0
) -> SurfaceMeasures:
    """The Hausdorff family, from one pass over the two surfaces.

    Args:
        prediction: bool, (H, W) or (H, W, D), not empty.
        reference: bool, same shape, not empty.
        spacing_mm: distance between voxel centres along each axis.
        tolerance_mm: distance up to which a surface counts as found in ``nsd``.

    Returns:
        ``hausdorff_mm``, the larger of the two directed maxima; ``hausdorff_95_mm``, the larger of the two directed
        95th percentiles (linear interpolation); ``assd_mm``, the mean over both surfaces pooled; ``nsd``, the share
        of both surfaces that lies within the tolerance (Nikolov et al., 2018, arXiv 1809.04430, counted in voxels).

    >>> prediction, reference = np.zeros((2, 5, 5), dtype=bool)
    >>> prediction[1, 1] = reference[1, 3] = True
    >>> surface_measures(prediction, reference, spacing_mm=(5.0, 0.5))
    SurfaceMeasures(hausdorff_mm=1.0, hausdorff_95_mm=1.0, assd_mm=1.0, nsd=1.0)
    """
    *apart, shared = distances_apart(prediction, reference, spacing_mm)
    number = 2 * shared + sum(map(len, apart))
    within = sum(np.count_nonzero(distances <= tolerance_mm * (1 + _ROUNDING)) for distances in apart)
    return SurfaceMeasures(
        hausdorff_mm=float(max(distances.max(initial=0.0) for distances in apart)),
        hausdorff_95_mm=max(_percentile_95(distances, shared) for distances in apart),
        assd_mm=float(sum(distances.sum() for distances in apart)) / number,
        nsd=float((2 * shared + within) / number),
    )


def distances_apart(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Distances of the surface voxels that the two masks do not share, and how many they share.

    Those that they share are at distance 0: in a good prediction most of them, and none needs a look-up.
    """
    loops = compiled_loops()
    if loops is None:
        return _by_trees(prediction, reference, spacing_mm)
    return _by_rows(loops, prediction, reference, spacing_mm)


def _by_trees(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, int]:
    surfaces = [surface_of(prediction), surface_of(reference)]
    shared = surfaces[0] & surfaces[1]
    points = [np.argwhere(surface) * np.asarray(spacing_mm, dtype=np.float64) for surface in surfaces]
    found = []
    for own, other in ((0, 1), (1, 0)):
        wanted = points[own][(surfaces[own] ^ shared)[surfaces[own]]]
        found.append(_nearest(wanted, points[other]))
    return found[0], found[1], int(np.count_nonzero(shared))


def _by_rows(
    loops: ModuleType, prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, int]:
    shape = (1,) * (3 - prediction.ndim) + prediction.shape
    spacing = (1.0,) * (3 - prediction.ndim) + tuple(spacing_mm)
    along = np.empty((2, *shape), np.uint8)
    for mask, rows in zip((prediction, reference), along, strict=True):
        voxels = np.ascontiguousarray(mask).view(np.uint8).reshape(shape)
        in_shares(partial(_with_shares, loops.row_distances, (voxels, prediction.ndim == 2), (rows,)), rows)
    steps, steps_mm2, beyond_mm2 = _rows_around(spacing[:2], prediction.ndim == 2)
    counts = np.empty((2, shape[0], 2), np.int64)
    found = []
    for own, other in ((0, 1), (1, 0)):
        in_shares(partial(_with_shares, loops.count_surface, (along[own], along[other]), (counts[own],)), along[own])
        begins = np.concatenate([[0], np.cumsum(counts[own, :, 1])])
        squares, places = np.empty(begins[-1]), np.empty(begins[-1], np.int64)
        given = (along[own], along[other], steps, steps_mm2, beyond_mm2, spacing[2])
        in_shares(partial(_with_shares, loops.nearest, given, (begins[:-1], squares, places)), along[own])
        far = squares < 0
        distances = np.sqrt(squares, out=np.zeros_like(squares), where=~far)
        if far.any():
            points = [np.argwhere(along[other] == 0), np.stack(np.unravel_index(places[far], shape), axis=1)]
            distances[far] = _nearest(points[1] * np.array(spacing), points[0] * np.array(spacing))
        found.append(distances)
    return found[0], found[1], int(counts[0, :, 0].sum())


def _with_shares(loop: Callable[..., None], given: tuple, results: tuple, first: int, last: int) -> None:
    loop(*given, first, last, *results)


@lru_cache(maxsize=64)
def _rows_around(spacing_mm: tuple[float, float], is_section: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps from a row to those around it, the nearest first, their squared length, and that of the next one, mm2.

    ``spacing_mm`` is that of the first two axes of three, and of the second alone where the image is a section.
    """
    # More rows than are wanted in any direction: what lies within the shortest of these ranges is complete.
    reach_mm = 1.3 * float(np.sqrt(_MOST_ROWS / np.pi * spacing_mm[0] * spacing_mm[1]))
    reach = [max(2, int(reach_mm / step)) for step in spacing_mm]
    reach = [0, _MOST_ROWS] if is_section else [min(number, _MOST_ROWS) for number in reach]
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 2)
    squares = ((steps * np.array(spacing_mm)) ** 2).sum(axis=1)
    complete_mm = min((n + 1) * step for n, step in zip(reach, spacing_mm, strict=True) if n)
    order = np.argsort(squares, kind="stable")
    order = order[squares[order] < complete_mm**2][: _MOST_ROWS + 1]
    steps, squares = steps[order].astype(np.int32), squares[order]
    if len(steps) <= _MOST_ROWS:
        return steps, squares, complete_mm**2
    return steps[:-1], squares[:-1], float(squares[-1])


def _nearest(wanted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """For each of the wanted points the distance to the nearest of the others; both (N, 3) or (N, 2), mm."""
    if not len(wanted):
        return np.zeros(0)
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    return tree.query(wanted, workers=num_threads() if len(wanted) > _PARALLEL_FROM else 1)[0]


def _percentile_95(distances: np.ndarray, zeros: int) -> float:
    """The 95th percentile of the distances and as many zeros, interpolated linearly as by `numpy.percentile`."""
    place = 0.95 * (zeros + len(distances) - 1)
    below = int(place) - zeros
    if below < -1 or not len(distances):
        return 0.0
    above = min(below + 1, len(distances) - 1)
    ordered = np.partition(distances, [max(below, 0), above])
    low = float(ordered[below]) if below >= 0 else 0.0
    return low + (place - int(place)) * (float(ordered[above]) - low)
