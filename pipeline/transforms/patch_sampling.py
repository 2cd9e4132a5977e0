"""Sampling a patch through one map: rotation, scaling, flips and elastic displacement composed, every voxel
interpolated once.

Nothing here is random: `SpatialPatchParameters` says what to do, `sample_patch` does it, in 2D as in 3D. The map is
written in millimetres, so that a rotation of 1 x 1 x 5 mm voxels is a rotation in space:

    source voxel = centre + S^-1 R Z F (u + d(u)),   u = S (output voxel - middle of the patch)

with S the spacing (mm), F flips, Z scaling, R rotation, d the elastic displacement. The displacement stands inside: the
Jacobian determinant of the whole is then |det(R Z F)| times that of u + d(u), which is positive (see elastic.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import grid_sample

from pipeline.transforms.elastic import bicubic_displacement_mm, displacement_mm


@dataclass(frozen=True, eq=False)
class SpatialPatchParameters:
    """Where a patch lies and how it is deformed.

    Args:
        start: voxel of the volume at which the undeformed patch begins; negative where it reaches beyond the volume.
        flips: per axis, whether it is mirrored.
        rotation_degrees: about the three array axes, applied x, then y, then z; of a section one angle, in its plane.
        scaling: per axis; 1.1 makes what is seen 10% larger.
        control: elastic control vectors (axes, ...), mm; None for no elastic deformation.
        control_spacing_mm: their distance per axis, for B-splines; None where they span the patch from corner to
            corner, with bicubic interpolation between them (2D).

    The defaults are those of a volume: for a section every tuple has two entries, ``rotation_degrees`` one.
    """

    start: tuple[int, ...]
    flips: tuple[bool, ...] = (False, False, False)
    rotation_degrees: tuple[float, ...] = (0.0, 0.0, 0.0)
    scaling: tuple[float, ...] = (1.0, 1.0, 1.0)
    control: np.ndarray | None = None
    control_spacing_mm: tuple[float, ...] | None = (1.0, 1.0, 1.0)

    @property
    def is_crop(self) -> bool:
        """Whether voxels are copied and none is interpolated."""
        return self.control is None and not any(self.rotation_degrees) and all(value == 1 for value in self.scaling)


def rotation_matrix(degrees: Sequence[float]) -> np.ndarray:
    """Rz Ry Rx, 3x3; of one angle the rotation in the plane, 2x2: the same as Rz there.

    >>> np.round(rotation_matrix((0, 0, 90)) @ [1, 0, 0], 6).tolist()
    [0.0, 1.0, 0.0]
    """
    if len(degrees) == 1:
        return rotation_matrix((0.0, 0.0, degrees[0]))[:2, :2]
    result = np.eye(3)
    for axis, angle in enumerate(degrees):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = math.cos(math.radians(angle))
        turn[j, i] = math.sin(math.radians(angle))
        turn[i, j] = -turn[j, i]
        result = turn @ result
    return result


def source_coordinates(
    parameters: SpatialPatchParameters, patch_size: Sequence[int], spacing_mm: Sequence[float]
) -> torch.Tensor:
    """The voxel of the volume at which each voxel of the patch looks.

    Returns:
        (axes, *patch_size) float32, in voxels; outside the volume where the patch reaches beyond it.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    flips = np.where(parameters.flips, -1.0, 1.0)
    linear = rotation_matrix(parameters.rotation_degrees) @ np.diag(flips / np.asarray(parameters.scaling))
    linear = np.diag(1 / spacing) @ linear
    centre = np.asarray(parameters.start) + (np.asarray(patch_size) - 1) / 2
    offsets = [
        torch.arange(size, dtype=torch.float32).sub_((size - 1) / 2).mul_(side)
        for size, side in zip(patch_size, spacing.tolist(), strict=True)
    ]
    if parameters.control is None:
        millimetres = torch.stack(torch.meshgrid(*offsets, indexing="ij"))
    else:
        if parameters.control_spacing_mm is None:
            millimetres = bicubic_displacement_mm(parameters.control, patch_size)
        else:
            millimetres = displacement_mm(parameters.control, patch_size, spacing_mm, parameters.control_spacing_mm)
        for axis, offset in enumerate(offsets):
            millimetres[axis] += offset.reshape([-1 if axis == other else 1 for other in range(len(offsets))])
    # Axis first: every step below then runs over contiguous memory.
    coordinates = torch.from_numpy(linear.astype(np.float32)) @ millimetres.reshape(len(offsets), -1)
    coordinates += torch.from_numpy(centre.astype(np.float32))[:, None]
    return coordinates.reshape(len(offsets), *patch_size)


def border_index(first: int, count: int, size: int, mode: str) -> np.ndarray:
    """Voxels of an axis of ``size`` that stand at ``first``, ``first + 1``... when it is continued beyond its ends.

    Args:
        mode: ``"mirror"`` (about the end voxels, as often as needed) or ``"edge"`` (the end voxels repeated).

    >>> border_index(-2, 9, 4, "mirror").tolist(), border_index(-2, 9, 4, "edge").tolist()
    ([2, 1, 0, 1, 2, 3, 2, 1, 0], [0, 0, 0, 1, 2, 3, 3, 3, 3])
    """
    index = np.arange(first, first + count)
    if mode == "edge" or size == 1:
        return np.clip(index, 0, size - 1)
    period = 2 * (size - 1)
    return (size - 1) - np.abs(index % period - (size - 1))


def read_box(volume: torch.Tensor, start: Sequence[int], shape: Sequence[int], border: str) -> torch.Tensor:
    """A box of a volume (C, H, W[, D]) that may reach beyond it: a view where it lies inside, else a copy.

    Nothing outside the box is touched: the volume may be a file's, mapped.
    """
    indices = {}
    for axis, (first, count) in enumerate(zip(start, shape, strict=True), start=1):
        size = volume.shape[axis]
        if first < 0 or first + count > size:
            voxels = border_index(first, count, size, border)
            first, count = int(voxels.min()), int(voxels.max() - voxels.min() + 1)
            indices[axis] = torch.from_numpy(voxels - first)
        volume = volume.narrow(axis, first, count)
    for axis, index in indices.items():
        volume = volume.index_select(axis, index)
    return volume


def crop_patch(
    volume: torch.Tensor, parameters: SpatialPatchParameters, patch_size: Sequence[int], border: str
) -> torch.Tensor:
    """The undeformed patch, its voxels bit for bit those of the volume; always a copy."""
    patch = read_box(volume, parameters.start, patch_size, border)
    axes = [axis for axis, flipped in enumerate(parameters.flips, start=1) if flipped]
    return patch.flip(axes) if axes else patch.clone(memory_format=torch.contiguous_format)


def interpolate_patch(volume: torch.Tensor, coordinates: torch.Tensor, border: str, nearest: bool) -> torch.Tensor:
    """The volume at ``coordinates``; only the box that they span is read.

    Args:
        volume: (C, H, W, D), or (C, H, W).
        coordinates: (axes, *patch_size), voxels.
        nearest: the nearest voxel, exactly (for labels); otherwise linear.

    Returns:
        (C, *patch_size), of the volume's type where nearest, otherwise float32.
    """
    axes, *patch_size = coordinates.shape
    flat = coordinates.reshape(axes, -1)
    low = flat.amin(1).floor()
    shape = (flat.amax(1).ceil() - low + 1).int().tolist()
    box = read_box(volume, low.int().tolist(), shape, border)
    local = flat - low[:, None]
    if nearest:
        voxel = local.round_().long()
        index = voxel[0]
        for axis in range(1, axes):
            index = index.mul_(shape[axis]).add_(voxel[axis])
        return box.reshape(len(box), -1).index_select(1, index).reshape(-1, *patch_size)
    # grid_sample wants -1 at the first voxel, +1 at the last, and the last axis first.
    scale = torch.tensor([2 / max(1, size - 1) for size in shape])
    grid = torch.stack(local.mul_(scale[:, None]).sub_(1).unbind()[::-1], dim=-1).reshape(1, *patch_size, axes)
    sampled = grid_sample(box[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled[0]


def sample_patch(
    volume: torch.Tensor,
    parameters: SpatialPatchParameters,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    border: str = "mirror",
    nearest: bool = False,
) -> torch.Tensor:
    """One patch (C, *patch_size) of a volume (C, H, W[, D]): a crop where nothing is deformed, else interpolated."""
    if parameters.is_crop:
        return crop_patch(volume, parameters, patch_size, border)
    return interpolate_patch(volume, source_coordinates(parameters, patch_size, spacing_mm), border, nearest)
