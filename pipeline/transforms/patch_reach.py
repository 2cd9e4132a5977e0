"""How far a patch reaches: bounds on where its voxels look, close enough to read few voxels, and sure.

An affine map reaches furthest at a patch's corners. What an elastic displacement adds is evaluated at some voxels: a
function f differs from its linear interpolation between samples s_i apart by at most the sum over the axes i of
s_i^2 / 8 max |d^2 f / dx_i^2|, and that interpolation is largest at a sample. The second derivative of a cubic B-spline
with control points h apart lies between the second differences of its control values over h^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SAMPLES_PER_CONTROL_POINT = 4


def affine_range(affine: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest coordinates (axes,) of an affine map.

    Args:
        affine: (axes, patch axes + 1); per column what a step along an axis of the patch changes, and in the last
            where the first voxel looks.
        size: voxels of the patch per axis.
    """
    ends = affine[:, :-1, None] * np.stack([np.zeros(len(size)), np.asarray(size) - 1], axis=1)
    return affine[:, -1] + ends.min(2).sum(1), affine[:, -1] + ends.max(2).sum(1)


def displaced_range(
    affine: np.ndarray,
    control: np.ndarray,
    weights: Sequence[np.ndarray],
    apart_voxels: Sequence[float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest coordinates (axes,) of an affine map with an elastic displacement, or a little beyond.

    Args:
        affine: as for `affine_range`.
        control: (axes, n0, n1[, n2]), control vectors in the map's own unit.
        weights: per axis of the patch (size, n), of every control point at every voxel.
        apart_voxels: distance of the control points of B-splines, in voxels of the patch; None where they are no
            B-splines, and the bound is a wide one.
    """
    if apart_voxels is None:
        low, high = affine_range(affine, [len(weight) for weight in weights])
        # Weights sum to 1; some may be negative: the sum of their absolute values bounds the displacement.
        reach = np.abs(control).reshape(len(control), -1).max(1)
        reach = reach * math.prod(float(np.abs(weight).sum(1).max()) for weight in weights)
        return low - reach, high + reach
    where, missed = control.astype(np.float64), np.zeros(len(control))
    lines = []
    for axis, (weight, apart) in enumerate(zip(weights, apart_voxels, strict=True)):
        step = max(1, int(apart / _SAMPLES_PER_CONTROL_POINT))
        sampled = np.append(np.arange(0, len(weight) - 1, step), len(weight) - 1)
        if step > 1:
            bend = np.abs(np.diff(control, n=2, axis=axis + 1)).reshape(len(control), -1).max(1)
            missed += (step / apart) ** 2 / 8 * bend
        where = np.moveaxis(np.tensordot(weight[sampled], where, axes=(1, axis + 1)), 0, axis + 1)
        line = affine[:, axis, None] * sampled + (affine[:, -1:] if axis == 0 else 0)
        lines.append(line.reshape(len(control), *(-1 if axis == other else 1 for other in range(len(weights)))))
    where = (where + sum(lines)).reshape(len(control), -1)
    return where.min(1) - missed, where.max(1) + missed
