"""`put_back`: a patch, or what a network made of it, on the grid of the volume that it was taken from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.errors import GeometryError
from pipeline.transforms.patch_map import SpatialPatchParameters, linear_part, patch_displacement_mm, patch_map
from pipeline.transforms.patch_sampling import interpolate_patch

_ITERATIONS = 60
_TOLERANCE_VOXELS = 0.01


def put_back(
    patch: torch.Tensor,
    parameters: SpatialPatchParameters,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    interpolation: str = "linear",
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of `sample_patch`, up to the two interpolations.

    u + d(u) = w has one solution for every w, since the displacement d does not fold; it is found by u <- w - d(u).

    Args:
        patch: (C, *patch_size).
        parameters: those it was sampled with.
        shape: of the volume, without channels.
        spacing_mm: of the volume.
        interpolation: as for `sample_patch`.

    Returns:
        (C, *shape), 0 where the patch does not reach, and (*shape) bool, where it does. A voxel whose u is not found to
        0.01 voxels (rare, and only at displacements near the limit) counts as not reached.
    """
    patch_size = tuple(patch.shape[1:])
    if len(shape) != len(patch_size):
        raise GeometryError(f"a patch {patch_size} of a volume {tuple(shape)}", expected="as many axes")
    linear, centre = linear_part(parameters, patch_size, spacing_mm)
    reach = patch_map(parameters, patch_size, spacing_mm)
    low = [max(0, first) for first in reach.low[-len(shape) :]]
    high = [min(size, last + 1) for size, last in zip(shape, reach.high[-len(shape) :], strict=True)]
    volume = torch.zeros(len(patch), *shape, dtype=torch.float32 if interpolation == "linear" else patch.dtype)
    covered = torch.zeros(*shape, dtype=torch.bool)
    box = tuple(slice(first, max(first, last)) for first, last in zip(low, high, strict=True))
    inner = covered[box].shape
    if 0 in inner:
        return volume, covered
    axes = [torch.arange(part.start, part.stop, dtype=torch.float64) - c for part, c in zip(box, centre, strict=True)]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(len(shape), -1)
    spacing = torch.tensor(spacing_mm, dtype=torch.float64)[:, None]
    middle = (torch.tensor(patch_size, dtype=torch.float64)[:, None] - 1) / 2
    target = torch.from_numpy(np.linalg.inv(linear)) @ offsets / spacing + middle  # voxels of the patch
    where, moved = target, torch.zeros(target.shape[1])
    if parameters.control is not None:
        displacement = patch_displacement_mm(parameters, patch_size, spacing_mm)
        for _ in range(_ITERATIONS):
            ahead = target - _look_up(displacement, where, inner, "linear").double() / spacing
            moved, where = (ahead - where).abs().amax(0), ahead
            if moved.max() < _TOLERANCE_VOXELS:
                break
    slack = 1e-4  # of coordinates in float32
    found = ((where >= -slack) & (where <= 2 * middle + slack)).all(0) & (moved < _TOLERANCE_VOXELS)
    values = _look_up(patch, where, inner, interpolation) * found
    volume[(slice(None), *box)] = values.reshape(len(patch), *inner).to(volume.dtype)
    covered[box] = found.reshape(inner)
    return volume, covered


def _look_up(patch: torch.Tensor, where: torch.Tensor, shape: Sequence[int], interpolation: str) -> torch.Tensor:
    """The patch at coordinates (axes, N), moved to its edge where they lie beyond; (C, N)."""
    last = torch.tensor(patch.shape[1:])[:, None] - 1.0
    at = where.clamp(min=torch.zeros_like(last), max=last).float().reshape(len(where), *shape)
    return interpolate_patch(patch, at, "edge", interpolation).reshape(len(patch), -1)
