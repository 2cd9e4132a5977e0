"""Values on one grid from values on another: voxels moved where that is all it takes, else linear interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

TOLERANCE_VOXELS = 1e-3  # rounding in headers; interpolation over less than this is no interpolation


def source_axes(to_scores: np.ndarray, shape: Sequence[int]) -> list[int] | None:
    """For each axis of the grid the one of the scores that runs along it; None where the two are oblique."""
    linear = to_scores[:3, :3]
    sources = [int(i) for i in np.abs(linear).argmax(axis=0)]
    across = np.abs(linear) * (np.asarray(shape) - 1)
    across[sources, range(3)] = 0
    return sources if sorted(sources) == [0, 1, 2] and across.sum(axis=1).max() < TOLERANCE_VOXELS else None


def crop(scores: torch.Tensor, to_scores: np.ndarray, shape: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
    """The part of the scores that a slab of ``shape`` interpolates between, and the slab's way to it."""
    corners = np.array(list(product(*((0, n - 1) for n in shape)))) @ to_scores[:3, :3].T + to_scores[:3, 3]
    last = np.asarray(scores.shape[1:]) - 1
    low = np.clip(np.floor(corners.min(axis=0) - TOLERANCE_VOXELS), 0, last).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + TOLERANCE_VOXELS), 0, last).astype(int)
    to_near = to_scores.copy()
    to_near[:3, 3] -= low
    return scores[(slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))], to_near


def axis_coordinates(to_scores: np.ndarray, shape: Sequence[int], sources: Sequence[int]) -> list[np.ndarray]:
    """Per axis of the slab its voxels' coordinates on the scores' axis, in voxels; whole numbers where nearly so."""
    coordinates = []
    for axis, source in enumerate(sources):
        # what a tilt adds along the other two axes is left out: source_axes found it negligible
        c = to_scores[source, axis] * np.arange(shape[axis]) + to_scores[source, 3]
        coordinates.append(np.where(np.abs(c - c.round()) < TOLERANCE_VOXELS, c.round(), c))
    return coordinates


def sampled_along_axes(values: torch.Tensor, coordinates: Sequence[np.ndarray], sources: Sequence[int]) -> torch.Tensor:
    """Linear interpolation one axis after the other; pure indexing on axes whose coordinates are whole."""
    for c, source in zip(coordinates, sources, strict=True):
        last = values.shape[source + 1] - 1
        if np.array_equal(c, np.arange(last + 1)):
            continue
        c = np.clip(c, 0, last)
        below = torch.as_tensor(np.floor(c), dtype=torch.int64, device=values.device)
        share = torch.as_tensor(c % 1, dtype=torch.float32, device=values.device)
        lower = values.index_select(source + 1, below)
        if share.any():
            upper = values.index_select(source + 1, (below + 1).clamp(max=last))
            lower = torch.lerp(lower, upper, share.reshape([-1 if a == source else 1 for a in range(3)]))
        values = lower
    return values.permute(0, *(source + 1 for source in sources))


def voxel_coordinates(to_scores: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Coordinates in the scores of every voxel of a slab, (*shape, 3), float64."""
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)
    return index @ to_scores[:3, :3].T + to_scores[:3, 3]


def sampled(values: torch.Tensor, to_values: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear interpolation at oblique positions."""
    last = np.asarray(values.shape[1:], dtype=np.float64) - 1
    normalised = 2 * voxel_coordinates(to_values, shape) / np.maximum(last, 1) - 1
    at = torch.as_tensor(np.ascontiguousarray(normalised[..., ::-1]), dtype=torch.float32, device=values.device)
    return F.grid_sample(values[None], at[None], mode="bilinear", padding_mode="border", align_corners=True)[0]
