"""Smooth elastic displacement from a coarse control grid, in millimetres, without folding: by cubic B-splines in 2D and
3D, or in 2D as in the first U-Net.

The displacement at a point u is sum_n c_n B(u/h - n), with the cubic B-spline B per axis and one random vector c_n
per control point, h millimetres apart (Rueckert et al., IEEE TMI 1999, eq. 1). It is evaluated for the voxels of a
patch only, axis by axis.

Folding is excluded by a bound on the control vectors: a map u + d(u) of this kind is injective, and its Jacobian
    positive,
if every component stays below h / 2.48 (Choi & Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline
functions, Graphical Models 62, 2000). With anisotropic h it holds per axis: measured in units of h every axis is alike.

The first U-Net (Ronneberger et al., MICCAI 2015, section 3.1) draws vectors from N(0, 10 pixels) on a grid of 3 x 3
points over the tile and interpolates them bicubically: `unet_2015` and `bicubic_displacement_mm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

BOUND = 0.40
"""Largest component of a control vector, in units of the control spacing; the theorem's limit is 0.403 in 3D and 0.488
in 2D."""

UNET_2015_POINTS = 3
"""Control points per axis of the first U-Net's deformation."""


def std_factor(dims: int) -> float:
    """Standard deviation of the displacement, averaged over space, per that of the control vectors: the square root of
    the integral of B squared (151/315 per axis), to the power of the axes."""
    return (151 / 315) ** (dims / 2)


def max_std_mm(control_spacing_mm: float, dims: int = 3) -> float:
    """The largest standard deviation of the displacement, mm: the bound then stands at two deviations."""
    return BOUND * control_spacing_mm * std_factor(dims) / 2


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
        (axes, *shape) float32, mm; each component clipped at the bound that excludes folding.
    """
    dims = len(shape)
    vectors = random.normal(0, std_mm / std_factor(dims), size=(dims, *shape))
    limit = BOUND * np.asarray(control_spacing_mm).reshape(dims, *[1] * dims)
    return np.clip(vectors, -limit, limit).astype(np.float32)


def displacement_mm(
    control: np.ndarray,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    control_spacing_mm: Sequence[float],
) -> torch.Tensor:
    """The displacement at every voxel of a patch.

    Args:
        control: (axes, *control_shape), mm.

    Returns:
        (axes, *patch_size) float32, mm.
    """
    x, y, *z = (
        axis_weights(int(size), float(spacing), float(spacing_control), points)
        for size, spacing, spacing_control, points in zip(
            patch_size, spacing_mm, control_spacing_mm, control.shape[1:], strict=True
        )
    )
    field = torch.from_numpy(control)
    if not z:
        return x @ field @ y.T
    # Coarse axes first: each product widens one axis, so most of the work is done on few points.
    field = x @ field.reshape(3, field.shape[1], -1)
    field = y @ field.reshape(3, len(x), *control.shape[2:])
    return field @ z[0].T


def unet_2015(
    random: np.random.RandomState, patch_size: Sequence[int], spacing_mm: Sequence[float], std_mm: float = 10.0
) -> np.ndarray:
    """The first U-Net's random vectors: 3 x 3 of them over the patch, each component from N(0, ``std_mm``).

    The paper's 10 pixels are 10 mm on a section's grid of 1 mm per pixel. Components are clipped at
    `bicubic_bound_mm`, which is 4.3 standard deviations for the paper's tile of 572 pixels.

    Returns:
        (2, 3, 3) float32, mm, for `bicubic_displacement_mm`.
    """
    limit = bicubic_bound_mm(patch_size, spacing_mm)
    vectors = random.normal(0, std_mm, size=(2, UNET_2015_POINTS, UNET_2015_POINTS))
    return np.clip(vectors, -limit, limit).astype(np.float32)


def bicubic_bound_mm(patch_size: Sequence[int], spacing_mm: Sequence[float], points: int = UNET_2015_POINTS) -> float:
    """Below this, no component of a control vector can fold a patch (H, W) under bicubic interpolation.

    u + d(u) is injective where d is a contraction. In the maximum norm its Lipschitz constant is at most the largest
    component times the sum over the axes of the steepest change of the weights along that axis (sum of absolute values,
    per mm) and the largest sum of absolute weights along the other.
    """
    steepest, largest = [], []
    for size, side in zip(patch_size, spacing_mm, strict=True):
        weights = bicubic_weights(int(size), points).double()
        steepest.append(float(weights.diff(dim=0).abs().sum(1).max()) / side if size > 1 else 0.0)
        largest.append(float(weights.abs().sum(1).max()))
    lipschitz = steepest[0] * largest[1] + steepest[1] * largest[0]
    return 0.99 / lipschitz if lipschitz else math.inf


def unet_2015_max_std_mm(patch_size: Sequence[int]) -> float:
    """The largest standard deviation of a vector of `unet_2015`, mm: the bound then stands at two deviations. Of
    sections, whose pixels are 1 mm wide: which spacing a case has is known with the case."""
    return bicubic_bound_mm(patch_size, (1.0, 1.0)) / 2


def bicubic_displacement_mm(control: np.ndarray, patch_size: Sequence[int]) -> torch.Tensor:
    """The displacement at every pixel of a patch from control vectors that span it, corner to corner.

    Cubic convolution (Keys, IEEE TASSP 29, 1981) with a = -0.75, border vectors repeated, as torch's bicubic
    ``interpolate`` with ``align_corners``, which it equals.

    Args:
        control: (2, points, points), mm.

    Returns:
        (2, *patch_size) float32, mm; at the corners, edges' middles and centre the control vectors themselves.
    """
    x, y = (bicubic_weights(int(size), points) for size, points in zip(patch_size, control.shape[1:], strict=True))
    return x @ torch.from_numpy(control) @ y.T


@lru_cache(maxsize=64)
def bicubic_weights(size: int, points: int) -> torch.Tensor:
    """Weight of every control point at every pixel of an axis, (size, points) float32."""
    a, positions = -0.75, np.linspace(0, points - 1, size)
    weights = np.zeros((size, points))
    for offset in (-1, 0, 1, 2):
        neighbour = np.floor(positions).astype(int) + offset
        t = np.abs(positions - neighbour)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        weight = np.where(t <= 1, near, np.where(t < 2, far, 0))
        np.add.at(weights, (np.arange(size), np.clip(neighbour, 0, points - 1)), weight)
    return torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=64)
def axis_weights(size: int, spacing_mm: float, control_spacing_mm: float, points: int) -> torch.Tensor:
    """B-spline weight of every control point at every voxel of a patch's axis, (size, points) float32."""
    extent = (size - 1) * spacing_mm / control_spacing_mm
    # The patch in the middle of the control points' range, so that a flip of the patch is a flip of the field.
    start = (points - 1 - extent) / 2
    return torch.from_numpy(bspline_weights(start + np.linspace(0, extent, size), points).astype(np.float32))
