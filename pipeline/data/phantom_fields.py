"""Building blocks of the phantom: the scan frame in which a head lies, and smooth random fields on it.

Everything is computed in float64: what differs between machines (the last bit of an exponential, the order of a sum)
then lies ten orders of magnitude below the step to which the finished maps are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW_MM = (152.0, 178.0)
# slice thickness (mm) -> number of slices: the coverage of perfusion protocols, about 95-115 mm
SLICES = {5.0: 21, 6.0: 18, 7.0: 15, 8.0: 14, 10.0: 11}


@dataclass(frozen=True)
class ScanFrame:
    """Where the scanner samples, and how the head lies in it.

    Args:
        in_plane_mm: pixel side.
        slice_mm: slice thickness; each slice is simulated as two or three thinner ones, for the partial volume.
        lowest_mm: lower edge of the lowest slice, in mm above the centre of the brain.
        tilt_deg: rotation of the head about the axes x (nodding), y (leaning to a shoulder), z (turning).
        shift_mm: offset of the head from the scanner's centre, (x, y).
    """

    in_plane_mm: float
    slice_mm: float
    lowest_mm: float
    tilt_deg: tuple[float, float, float]
    shift_mm: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> ScanFrame:
        """A frame as an emergency scan has it: 1.1-1.2 mm pixels, 5-10 mm slices, a head that is never straight."""
        nod, lean, turn = rng.uniform((-8, -5, -6), (8, 5, 6))
        return cls(
            in_plane_mm=float(rng.choice((1.1, 1.15, 1.2))),
            slice_mm=float(rng.choice(tuple(SLICES))),
            lowest_mm=float(rng.uniform(-52, -42)),
            tilt_deg=(float(nod), float(lean), float(turn)),
            shift_mm=(float(rng.uniform(-4, 4)), float(rng.uniform(-3, 3))),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the finished volume, axes in RAS order."""
        width, height = (round(side / self.in_plane_mm) for side in FIELD_OF_VIEW_MM)
        return width, height, SLICES[self.slice_mm]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.in_plane_mm, self.in_plane_mm, self.slice_mm

    @property
    def subslices(self) -> int:
        return 2 if self.slice_mm <= 6 else 3

    @property
    def fine_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the simulated sub-slices."""
        return self.in_plane_mm, self.in_plane_mm, self.slice_mm / self.subslices

    @property
    def fine_voxel_ml(self) -> float:
        return float(np.prod(self.fine_spacing_mm)) / 1000

    def axes_mm(self, fine: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of the voxel centres along the scanner's x, y and z, mm."""
        width, height, slices = self.shape
        parts = self.subslices if fine else 1
        step, count = self.slice_mm / parts, slices * parts
        return (
            (np.arange(width) - (width - 1) / 2) * self.in_plane_mm,
            (np.arange(height) - (height - 1) / 2) * self.in_plane_mm,
            self.lowest_mm + (np.arange(count) + 0.5) * step,
        )

    def head_coordinates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each fine voxel's position in the head's axes (x right, y front, z up), mm; three arrays (H, W, fine D)."""
        x, y, z = np.ix_(*self.axes_mm())
        x, y = x - self.shift_mm[0], y - self.shift_mm[1]
        turn = rotation_matrix(self.tilt_deg)
        right, front, up = (row[0] * x + row[1] * y + row[2] * z for row in turn)
        return right, front, up

    def average_slices(self, fine: np.ndarray) -> np.ndarray:
        """Sub-slices (H, W, fine D) -> slices (H, W, D): the partial volume of thick slices."""
        parts = fine.reshape((*self.shape, self.subslices)).astype(np.float64, copy=False)
        # slice by slice: numpy's mean over a short last axis takes five times as long
        total = parts[..., 0] + parts[..., 1]
        for part in range(2, self.subslices):
            total += parts[..., part]
        return total / self.subslices


def rotation_matrix(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, then y, then z, as a 3x3 matrix."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def length_of(*components: np.ndarray) -> np.ndarray:
    """Length of a vector at each voxel; numpy's hypot, which minds the largest numbers, takes ten times as long."""
    total = np.square(components[0])
    for component in components[1:]:
        total += np.square(component)
    return np.sqrt(total, out=total)


def cubic_spline_weights(position_mm: np.ndarray, scale_mm: float) -> np.ndarray:
    """Weights (positions, knots) of uniform cubic B-splines whose knots lie ``scale_mm`` apart."""
    position = (position_mm - position_mm.min()) / scale_mm + 1
    distance = np.abs(position[:, None] - np.arange(int(position.max()) + 3))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


class RandomFields:
    """Draws smooth random fields of zero mean and unit variance: white noise on a knot lattice, cubic splines between.

    Args:
        axes_mm: sample positions along the three axes.
        rng: the stream that the knots come from.
    """

    def __init__(self, axes_mm: tuple[np.ndarray, ...], rng: np.random.Generator) -> None:
        self.axes_mm, self.rng = axes_mm, rng
        self._rows = slice(0, len(axes_mm[0]))
        self._weights: dict[float, tuple[np.ndarray, ...]] = {}

    def part(self, rows: slice, rng: np.random.Generator) -> RandomFields:
        """The fields at some of the positions along the first axis: ``rows``, a start and a stop within it.

        They are parts of the same fields where ``rng`` is in the state from which the whole draws them.
        """
        part = RandomFields(self.axes_mm, rng)
        part._rows, part._weights = rows, self._weights
        return part

    def draw(self, scale_mm: float) -> np.ndarray:
        """One field, float64, of the axes' shape (a part's: its rows); structures are about ``2 * scale_mm`` wide."""
        return self._at(self._rows, scale_mm)

    def draw_with_gradient(self, scale_mm: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """One field, and its slope per mm along each axis, by central differences within the whole of the axes."""
        first, last = self._rows.start, self._rows.stop
        near = slice(max(first - 1, 0), min(last + 1, len(self.axes_mm[0])))
        own = slice(first - near.start, last - near.start)
        field = self._at(near, scale_mm)
        gradient = np.gradient(field, *(axis[1] - axis[0] for axis in self.axes_mm))
        return field[own], [slope[own] for slope in gradient]

    def _at(self, rows: slice, scale_mm: float) -> np.ndarray:
        if scale_mm not in self._weights:
            weights = [cubic_spline_weights(axis, scale_mm) for axis in self.axes_mm]
            self._weights[scale_mm] = tuple(w / np.sqrt(np.mean(np.sum(w**2, axis=1))) for w in weights)
        first, second, third = self._weights[scale_mm]
        knots = self.rng.standard_normal((first.shape[1], second.shape[1], third.shape[1]))
        return np.matmul(np.matmul(second, np.tensordot(first[rows], knots, (1, 0))), third.T)
