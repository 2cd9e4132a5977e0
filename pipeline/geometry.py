"""Where voxels lie in space.

Axis legend, everywhere in this package: B batch, C channel (or K class), H W D the three spatial axes of a volume in
the order in which its array stores them. World coordinates are millimetres, RAS+ (nibabel's convention): x to the
patient's right, y to the front (anterior), z up (superior).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np


def length_unit(axes: int) -> str:
    """In what lengths are said of images of so many axes: a section's pixel size is not known, so in pixels.

    >>> length_unit(3), length_unit(2)
    ('mm', 'px')
    """
    return "mm" if axes == 3 else "px"


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel grid of a volume, or the pixel grid of a section.

    Args:
        shape: voxels per spatial axis, (H, W, D) or (H, W).
        affine: 4x4, voxel index -> millimetres RAS+; of a section, its third column points out of the plane.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64).reshape(4, 4))

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxel centres along each axis, mm."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def orientation(self) -> str:
        """Closest axis codes, such as ``"RAS"``: the direction in which each array axis increases."""
        import nibabel

        return "".join(nibabel.orientations.aff2axcodes(self.affine)[: len(self.shape)])

    @property
    def voxel_volume_ml(self) -> float:
        """NaN for a section: a pixel has no volume."""
        if len(self.shape) < 3:
            return float("nan")
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def corners_mm(self) -> np.ndarray:
        """World coordinates of the centres of the corner voxels, (8, 3); of a section (4, 3)."""
        index = np.array(list(product(*((0, n - 1) for n in self.shape))), dtype=np.float64)
        return index @ self.affine[:3, : len(self.shape)].T + self.affine[:3, 3]

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between corresponding corners of two grids; infinite where shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())

    def same_grid(self, other: Grid, tolerance_mm: float | None = None) -> bool:
        """Whether both describe the same voxels.

        Args:
            tolerance_mm: how far corresponding corners may lie apart; by default a hundredth of the smallest voxel
                side, which forgives rounding in headers and nothing else.
        """
        limit = 0.01 * min(self.spacing_mm) if tolerance_mm is None else tolerance_mm
        return self.distance_mm(other) <= limit

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        spacing = tuple(f"{v:.4g}" for v in self.spacing_mm)
        if len(self.shape) < 3:
            return f"{shape} pixels" + ("" if set(spacing) == {"1"} else f" of {'x'.join(spacing)} px")
        return f"{shape} voxels of {'x'.join(spacing)} mm, {self.orientation}"
