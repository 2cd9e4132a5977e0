"""Where each voxel of a patch looks: rotation, shear, scaling, flips and elastic displacement, composed into one map.

Nothing here is random and nothing is read: `SpatialPatchParameters` says what to do, in 2D as in 3D. The map is written
in millimetres, so that a rotation of 1 x 1 x 5 mm voxels is a rotation in space:

    source voxel = centre + S^-1 R K Z F (u + d(u)),   u = S (output voxel - middle of the patch)

with S the spacing (mm), F flips, Z scaling, K shear, R rotation, d the elastic displacement. With K upper triangular,
R K Z is any linear map that does not mirror (its QR decomposition). The displacement stands inside: the Jacobian
determinant of the whole is then |det(R K Z F)| times that of u + d(u), which is positive (see elastic.py).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from pipeline.errors import DataError
from pipeline.transforms.elastic import axis_weights, bicubic_displacement_mm, bicubic_weights, displacement_mm
from pipeline.transforms.patch_reach import affine_range, displaced_range


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
        shear_degrees: angles of the shears of x with y, x with z, y with z; of a section one.

    The defaults are those of a volume: for a section every tuple has two entries, ``rotation_degrees`` and
    ``shear_degrees`` one.
    """

    start: tuple[int, ...]
    flips: tuple[bool, ...] = (False, False, False)
    rotation_degrees: tuple[float, ...] = (0.0, 0.0, 0.0)
    scaling: tuple[float, ...] = (1.0, 1.0, 1.0)
    control: np.ndarray | None = None
    control_spacing_mm: tuple[float, ...] | None = (1.0, 1.0, 1.0)
    shear_degrees: tuple[float, ...] = (0.0, 0.0, 0.0)

    def to_json(self) -> str:
        """All of it as text, which any collate function passes on; `from_json` gives the very same numbers back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.control is not None:
            raw = np.ascontiguousarray(self.control, dtype="<f4")
            values["control"] = {"shape": raw.shape, "float32": base64.b64encode(raw.tobytes()).decode()}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> SpatialPatchParameters:
        """
        Raises:
            DataError: text that is not `to_json`'s.
        """
        try:
            values: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items()
            }
            if values["control"] is not None:
                raw = np.frombuffer(base64.b64decode(values["control"]["float32"]), dtype="<f4")
                values["control"] = raw.reshape(values["control"]["shape"]).astype(np.float32)
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"text that is not a patch's parameters ({error})", expected="what to_json gave") from error

    @property
    def is_crop(self) -> bool:
        """Whether voxels are copied and none is interpolated."""
        turned = any(self.rotation_degrees) or any(self.shear_degrees)
        return self.control is None and not turned and all(value == 1 for value in self.scaling)


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


def shear_matrix(degrees: Sequence[float]) -> np.ndarray:
    """Upper triangular, of determinant 1: 3x3 of three angles, 2x2 of one.

    >>> shear_matrix((45, 0, 0)).round(6).tolist()
    [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    dims = 2 if len(degrees) == 1 else 3
    result = np.eye(dims)
    result[np.triu_indices(dims, 1)] = np.tan(np.radians(np.asarray(degrees, dtype=np.float64)))
    return result


def linear_part(
    parameters: SpatialPatchParameters, patch_size: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """S^-1 R K Z F (axes, axes), from mm in the patch to voxels of the volume, and the centre (axes,), voxels."""
    flips = np.where(parameters.flips, -1.0, 1.0)
    turn = rotation_matrix(parameters.rotation_degrees)
    if any(parameters.shear_degrees):
        turn = turn @ shear_matrix(parameters.shear_degrees)
    linear = (
        np.diag(1 / np.asarray(spacing_mm, dtype=np.float64)) @ turn @ np.diag(flips / np.asarray(parameters.scaling))
    )
    return linear, np.asarray(parameters.start) + (np.asarray(patch_size) - 1) / 2


def patch_displacement_mm(
    parameters: SpatialPatchParameters, patch_size: Sequence[int], spacing_mm: Sequence[float]
) -> torch.Tensor:
    """The elastic displacement d at every voxel, (axes, *patch_size) float32, mm; zero without control vectors."""
    if parameters.control is None:
        return torch.zeros(len(patch_size), *patch_size)
    if parameters.control_spacing_mm is None:
        return bicubic_displacement_mm(parameters.control, patch_size)
    return displacement_mm(parameters.control, patch_size, spacing_mm, parameters.control_spacing_mm)


def source_coordinates(
    parameters: SpatialPatchParameters, patch_size: Sequence[int], spacing_mm: Sequence[float]
) -> torch.Tensor:
    """The voxel of the volume at which each voxel of the patch looks.

    Returns:
        (axes, *patch_size) float32, in voxels; outside the volume where the patch reaches beyond it.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    linear, centre = linear_part(parameters, patch_size, spacing_mm)
    offsets = [
        torch.arange(size, dtype=torch.float32).sub_((size - 1) / 2).mul_(side)
        for size, side in zip(patch_size, spacing.tolist(), strict=True)
    ]
    if parameters.control is None:
        millimetres = torch.stack(torch.meshgrid(*offsets, indexing="ij"))
    else:
        millimetres = patch_displacement_mm(parameters, patch_size, spacing_mm)
        for axis, offset in enumerate(offsets):
            millimetres[axis] += offset.reshape([-1 if axis == other else 1 for other in range(len(offsets))])
    # Axis first: every step below then runs over contiguous memory.
    coordinates = torch.from_numpy(linear.astype(np.float32)) @ millimetres.reshape(len(offsets), -1)
    coordinates += torch.from_numpy(centre.astype(np.float32))[:, None]
    return coordinates.reshape(len(offsets), *patch_size)


@dataclass(frozen=True, eq=False)
class PatchMap:
    """The same map for the compiled loop, which makes coordinates row by row: three axes always.

    Args:
        affine: (3, 4) float64; columns: what a step along each axis of the patch is in voxels of the volume, and where
            the patch's first voxel looks.
        control: (3, n0, n1, n2) float32, voxels of the volume; of size 0 where nothing is displaced.
        weights: per axis (size, n) float32, of every control point at every voxel.
        low, high: whole voxels between which every coordinate lies.
    """

    affine: np.ndarray
    control: np.ndarray
    weights: tuple[np.ndarray, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    def moved(self, first: Sequence[int]) -> PatchMap:
        """The same patch of a box that begins at voxel ``first``."""
        affine = self.affine.copy()
        affine[:, 3] -= first
        low, high = (tuple(int(a - b) for a, b in zip(ends, first, strict=True)) for ends in (self.low, self.high))
        return PatchMap(affine, self.control, self.weights, low, high)


def patch_map(parameters: SpatialPatchParameters, patch_size: Sequence[int], spacing_mm: Sequence[float]) -> PatchMap:
    """The map of `source_coordinates`, its displacement not yet evaluated. A section gets a first axis of one voxel."""
    dims = len(patch_size)
    linear, centre = linear_part(parameters, patch_size, spacing_mm)
    affine = np.zeros((3, 4))
    # A crop's steps are whole: a voxel of it is one of the volume, and not nearly one.
    steps = np.diag(np.where(parameters.flips, -1.0, 1.0)) if parameters.is_crop else linear * np.asarray(spacing_mm)
    affine[-dims:, 3 - dims : 3] = steps
    affine[-dims:, 3] = centre - steps @ ((np.asarray(patch_size) - 1) / 2)
    own = affine[-dims:, 3 - dims :]
    low, high = affine_range(own, patch_size)
    control = np.zeros((3, 0, 0, 0), np.float32)
    weights = [np.zeros((size, 0), np.float32) for size in (1, *patch_size)[-3:]]
    if parameters.control is not None:
        points, apart = parameters.control.shape[1:], parameters.control_spacing_mm
        moved = np.tensordot(linear, parameters.control, axes=1).astype(np.float32)
        control = np.zeros((3, *(1, *points)[-3:]), np.float32)
        control[-dims:] = moved.reshape(dims, *control.shape[1:])
        weights = [
            (
                bicubic_weights(int(size), n)
                if apart is None
                else axis_weights(int(size), float(side), float(apart[axis]), n)
            ).numpy()
            for axis, (size, side, n) in enumerate(zip(patch_size, spacing_mm, points, strict=True))
        ]
        apart_voxels = None if apart is None else np.asarray(apart) / np.asarray(spacing_mm)
        low, high = displaced_range(own, moved, weights, apart_voxels)
        weights = [np.ones((1, 1), np.float32)] * (3 - dims) + weights
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DataError("parameters of a patch that are not finite", expected="numbers")
    # One voxel more on each side: coordinates are rounded to float32.
    first, last = np.floor(low).astype(int) - 1, np.ceil(high).astype(int) + 1
    flat = (0,) * (3 - dims)
    return PatchMap(affine, control, tuple(weights), (*flat, *first.tolist()), (*flat, *last.tolist()))


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
