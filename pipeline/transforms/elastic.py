"""Smooth elastic displacement from a coarse control grid: cubic B-splines, in millimetres, without folding.

The displacement at a point u is sum_n c_n B(u/h - n), with the cubic B-spline B per axis and one random vector c_n
per control point, h millimetres apart (Rueckert et al., IEEE TMI 1999, eq. 1). It is evaluated for the voxels of a
patch only, axis by axis.

Folding is excluded by a bound on the control vectors: a map u + d(u) of this kind is injective, and its Jacobian
    positive,
if every component stays below h / 2.48 (Choi & Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline
functions, Graphical Models 62, 2000). With anisotropic h it holds per axis: measured in units of h every axis is alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

BOUND = 0.40
"""Largest component of a control vector, in units of the control spacing; the theorem's limit in 3D is 0.403."""

_STD_FACTOR = (151 / 315) ** 1.5
"""Standard deviation of the displacement, averaged over space, per that of the control vectors: the square root of the
integral of B squared (151/315 per axis), to the power of three axes."""


def max_std_mm(control_spacing_mm: float) -> float:
    """The largest standard deviation of the displacement, mm: the bound then stands at two deviations."""
    return BOUND * control_spacing_mm * _STD_FACTOR / 2


def bspline_weights(positions: np.ndarray, num_control: int) -> np.ndarray:
    """Weight of every control point at every position.

    Args:
        positions: (N,) in units of the control spacing, 1 <= position <= num_control - 2.
        num_control: control points of the axis, at 0, 1, 2...

    Returns:
        (N, num_control); each row sums to 1.
    """
    distance = np.abs(positions[:, None] - np.arange(num_control)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


def control_shape(
    patch_size: Sequence[int], spacing_mm: Sequence[float], control_spacing_mm: Sequence[float]
) -> tuple[int, ...]:
    """Control points per axis that a patch needs: its extent, and one beyond each end."""
    return tuple(
        math.floor((size - 1) * spacing / control) + 4
        for size, spacing, control in zip(patch_size, spacing_mm, control_spacing_mm, strict=True)
    )


def sample_control_vectors(
    random: np.random.RandomState, shape: Sequence[int], std_mm: float, control_spacing_mm: Sequence[float]
) -> np.ndarray:
    """Random control vectors for a displacement of a given standard deviation.

    Args:
        shape: control points per axis.
        std_mm: standard deviation of each component of the displacement, averaged over space.

    Returns:
        (3, *shape) float32, mm; each component clipped at the bound that excludes folding.
    """
    vectors = random.normal(0, std_mm / _STD_FACTOR, size=(3, *shape))
    limit = BOUND * np.asarray(control_spacing_mm).reshape(3, 1, 1, 1)
    return np.clip(vectors, -limit, limit).astype(np.float32)


def displacement_mm(
    control: np.ndarray,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    control_spacing_mm: Sequence[float],
) -> torch.Tensor:
    """The displacement at every voxel of a patch.

    Args:
        control: (3, *control_shape), mm.

    Returns:
        (3, *patch_size) float32, mm.
    """
    x, y, z = (
        _axis_weights(int(size), float(spacing), float(spacing_control), points)
        for size, spacing, spacing_control, points in zip(
            patch_size, spacing_mm, control_spacing_mm, control.shape[1:], strict=True
        )
    )
    field = torch.from_numpy(control)
    # Coarse axes first: each product widens one axis, so most of the work is done on few points.
    field = x @ field.reshape(3, field.shape[1], -1)
    field = y @ field.reshape(3, len(x), *control.shape[2:])
    return field @ z.T


@lru_cache(maxsize=64)
def _axis_weights(size: int, spacing_mm: float, control_spacing_mm: float, points: int) -> torch.Tensor:
    extent = (size - 1) * spacing_mm / control_spacing_mm
    # The patch in the middle of the control points' range, so that a flip of the patch is a flip of the field.
    start = (points - 1 - extent) / 2
    return torch.from_numpy(bspline_weights(start + np.linspace(0, extent, size), points).astype(np.float32))
