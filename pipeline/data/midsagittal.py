"""The plane between the two sides of a brain, found from its mask, and what lies opposite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import affine_transform


@dataclass(frozen=True)
class MidsagittalPlane:
    """The plane ``x = offset_mm + tan(turn) y + tan(lean) z``, mm from the volume's centre, axes in RAS."""

    offset_mm: float
    turn_deg: float
    lean_deg: float

    @property
    def normal(self) -> np.ndarray:
        direction = np.array([1.0, *-np.tan(np.deg2rad((self.turn_deg, self.lean_deg)))])
        return direction / np.linalg.norm(direction)

    @property
    def reflection(self) -> tuple[np.ndarray, np.ndarray]:
        """3x3 matrix and shift (mm) that map a position on its mirror image."""
        normal = self.normal
        return np.eye(3) - 2 * np.outer(normal, normal), 2 * self.offset_mm * normal[0] * normal

    def reflect(self, array: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """The array (H, W, D) mirrored at the plane, linear interpolation, 0 from outside."""
        matrix, shift = self.reflection
        spacing, centre = np.asarray(spacing_mm), (np.array(array.shape) - 1) / 2
        voxel_matrix = matrix * spacing[None, :] / spacing[:, None]
        return affine_transform(array, voxel_matrix, centre + shift / spacing - voxel_matrix @ centre, order=1)


def find_midsagittal_plane(brain: np.ndarray, spacing_mm: Sequence[float]) -> MidsagittalPlane:
    """The plane at which a brain mask (H, W, D; RAS) matches its mirror image best.

    Starts at the centre of mass; its steps go from 4 mm and 6 degrees down to half a millimetre and 0.75 degrees.
    """
    spacing = np.asarray(spacing_mm)
    stride = np.maximum(np.round(5.0 / spacing).astype(int), 1)
    centre = (np.array(brain.shape) - 1) / 2
    sampled = brain[tuple(slice(None, None, int(step)) for step in stride)]
    position = (np.argwhere(sampled) * stride - centre) * spacing

    def overlap(plane: MidsagittalPlane) -> int:
        matrix, shift = plane.reflection
        mirrored = np.rint((position @ matrix.T + shift) / spacing + centre).astype(np.intp)
        valid = np.all((mirrored >= 0) & (mirrored < brain.shape), axis=1)
        return int(np.count_nonzero(brain[tuple(mirrored[valid].T)]))

    best = MidsagittalPlane(float(position[:, 0].mean()), 0.0, 0.0)
    for fraction in (1, 1 / 2, 1 / 4, 1 / 8):
        steps = np.array(list(product((-1, 0, 1), repeat=3))) * np.array((4.0, 6.0, 6.0)) * fraction
        start = np.array((best.offset_mm, best.turn_deg, best.lean_deg))
        best = max((best, *(MidsagittalPlane(*values) for values in (start + steps).tolist())), key=overlap)
    return best
