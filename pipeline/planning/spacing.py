"""The voxel size that cases are brought to, and the median case on it.

Axes here are those of the bundle: right, anterior, superior (`in_ras`), whatever order a file stores them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.fingerprint import CaseFingerprint
from pipeline.geometry import Grid

ANISOTROPIC = 3.0
"""An axis is coarse where its voxels are more than so many times as long as the others' (nnU-Net's threshold)."""
FEW_SLICES = 20
"""Up to so many slices an axis keeps what each case has: between thick slices there is nothing to interpolate."""
AXES = ("left-right", "back-front", "foot-head")


@dataclass(frozen=True)
class Geometry:
    """What cases are resampled to.

    Args:
        spacing_mm: voxel size; for an axis of few slices the median of what is kept.
        kept_axis: the axis of few slices, which is not resampled; None where there is none.
        shape: voxels of the median case (its body, where that is known), after resampling.
        reason: why this spacing, as a sentence.
    """

    spacing_mm: tuple[float, float, float]
    kept_axis: int | None
    shape: tuple[int, int, int]
    reason: str

    @property
    def never_pooled(self) -> tuple[int, ...]:
        return () if self.kept_axis is None else (self.kept_axis,)

    @property
    def config_spacing_mm(self) -> list[float]:
        """As a config has it: -1 keeps an axis."""
        return [-1.0 if axis == self.kept_axis else mm for axis, mm in enumerate(self.spacing_mm)]


def in_ras(grid: Grid, shape: Sequence[int] | None = None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape (the grid's, or another one's on its axes) and spacing in the order right, anterior, superior."""
    order = [next(i for i, code in enumerate(grid.orientation) if code in pair) for pair in ("RL", "AP", "SI")]
    own = grid.shape if shape is None else tuple(shape)
    return tuple(own[i] for i in order), tuple(grid.spacing_mm[i] for i in order)


def target_geometry(cases: Sequence[CaseFingerprint]) -> Geometry:
    """The median spacing; along the coarse axis of anisotropic data its 10th percentile (nnU-Net, supplementary note
    2), so that finely sampled cases keep most of what they have; along an axis of few slices each case's own.

    Args:
        cases: usable ones, with grids.
    """
    grids = [case.grid for case in cases if case.grid is not None]
    shapes, spacings = (np.array(column, dtype=float) for column in zip(*map(in_ras, grids), strict=True))
    target, whole = np.median(spacings, axis=0), np.median(shapes, axis=0)
    spread = "the same in" if np.ptp(spacings, axis=0).max() < 0.01 * target.min() else "median of"
    reason = f"{'x'.join(f'{mm:.4g}' for mm in target)} mm: {spread} {len(grids)} cases"
    kept_axis = None

    coarse, short = int(np.argmax(target)), int(np.argmin(whole))
    others = [axis for axis in range(3) if axis != coarse]
    if whole[short] <= FEW_SLICES and whole[short] * ANISOTROPIC <= min(np.delete(whole, short)):
        kept_axis = short
        reason += f"; {AXES[short]} each case keeps its {whole[short]:.0f} slices (median), up to {FEW_SLICES} are few"
    elif target[coarse] > ANISOTROPIC * target[others].max() and whole[coarse] * ANISOTROPIC < whole[others].min():
        tenth = float(np.percentile(spacings[:, coarse], 10))
        target[coarse] = max(tenth, target[others].max())
        reason += f"; {AXES[coarse]}, the coarse axis, {target[coarse]:.4g} mm: 10th percentile"
    x, y, z = (float(f"{mm:.4g}") for mm in target)
    return Geometry((x, y, z), kept_axis, _median_shape(cases, (x, y, z), kept_axis), reason)


def coarser(geometry: Geometry, cases: Sequence[CaseFingerprint], factor: float) -> Geometry:
    """Axes below ``factor`` times the finest one, lengthened to that; coarse axes stay until the others reach them."""
    limit = factor * min(mm for axis, mm in enumerate(geometry.spacing_mm) if axis != geometry.kept_axis)
    x, y, z = (
        mm if axis == geometry.kept_axis else float(f"{max(mm, limit):.4g}")
        for axis, mm in enumerate(geometry.spacing_mm)
    )
    return Geometry((x, y, z), geometry.kept_axis, _median_shape(cases, (x, y, z), geometry.kept_axis), geometry.reason)


def smallest_object_voxels(geometry: Geometry, cases: Sequence[CaseFingerprint]) -> float:
    """Across how many voxels the labelled box of the median case reaches along its shortest side; infinite without."""
    sides = [min(case.label.box_mm) for case in cases if case.label is not None and case.label.box_mm is not None]
    fine = min(mm for axis, mm in enumerate(geometry.spacing_mm) if axis != geometry.kept_axis)
    return float(np.median(sides)) / fine if sides else float("inf")


def _median_shape(
    cases: Sequence[CaseFingerprint], spacing_mm: Sequence[float], kept_axis: int | None
) -> tuple[int, int, int]:
    shapes = []
    for case in cases:
        if case.grid is None:
            continue
        shape, own_mm = in_ras(case.grid, case.body_shape)
        shapes.append([n if i == kept_axis else n * own_mm[i] / spacing_mm[i] for i, n in enumerate(shape)])
    x, y, z = (max(1, round(float(n))) for n in np.median(shapes, axis=0))
    return x, y, z
