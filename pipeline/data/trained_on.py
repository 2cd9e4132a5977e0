"""What weights were trained on, by voxel size and extent, and how a case differs from it: `trained_on.json`.

A network answers any scan, also one of 20 mm voxels or of another part of the body, and its answer looks like any
other. Nothing in the answer tells; the grids do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np

from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io.atomic import write_text

FILE = "trained_on.json"
SPACING_FACTOR = 2.0
"""Voxels of up to so many times the largest that was trained on, and down to such a part of the smallest, are alike."""
EXTENT_FACTOR = 1.5
"""The same for the size of the whole volume: half as much again is another part of the body, or another crop."""

Range = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class TrainedOn:
    """Volumes that weights were trained on, their axes in the order right-left, back-front, down-up.

    Args:
        cases: how many.
        spacing_mm: the smallest and the largest per axis.
        extent_mm: the same of the whole volumes.
    """

    cases: int
    spacing_mm: Range
    extent_mm: Range

    @classmethod
    def of(cls, grids: Iterable[Grid]) -> TrainedOn | None:
        """None without volumes: of sections the size in millimetres is not known."""
        measured = [_spacing_and_extent_mm(grid) for grid in grids if len(grid.shape) == 3]
        if not measured:
            return None
        spacing, extent = np.array(measured).transpose(1, 0, 2).round(3)
        return cls(len(measured), _range(spacing), _range(extent))

    def remarks(self, grid: Grid) -> list[str]:
        """In which way a case is unlike those, a sentence each; empty where it is not.

        >>> small = Grid((40, 50, 30), np.diag([1.0, 1.0, 1.0, 1.0]))
        >>> TrainedOn.of([small]).remarks(Grid((200, 240, 30), np.diag([1.0, 1.0, 1.0, 1.0])))
        ['unlike the training cases: a volume of 200x240x30 mm, they had 40x50x30']
        """
        if len(grid.shape) != 3:
            return []
        spacing, extent = _spacing_and_extent_mm(grid)
        found = []
        for what, values, known, factor in (
            ("voxels", spacing, self.spacing_mm, SPACING_FACTOR),
            ("a volume", extent, self.extent_mm, EXTENT_FACTOR),
        ):
            low, high = np.array(known)
            if (values > high * factor).any() or (values < low / factor).any():
                theirs = " to ".join(dict.fromkeys((_text(low), _text(high))))
                found.append(f"unlike the training cases: {what} of {_text(values)} mm, they had {theirs}")
        return found

    def write(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> TrainedOn | None:
        """What lies beside weights; None where nothing does.

        Raises:
            DataError: a file of another form.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            content: Mapping = json.loads(file.read_text(encoding="utf-8"))
            ranges = {name: np.array(content[name], dtype=float) for name in ("spacing_mm", "extent_mm")}
            if any(values.shape != (2, 3) for values in ranges.values()):
                raise ValueError("no range per axis")
            return cls(int(content["cases"]), **{name: _pair(values) for name, values in ranges.items()})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"a damaged record of the training cases ({error})", file=file, fix="remove it") from error


def _spacing_and_extent_mm(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(nibabel.orientations.io_orientation(grid.affine)[:, 0])
    spacing = np.array(grid.spacing_mm)[order]
    return spacing, spacing * np.array(grid.shape)[order]


def _range(values: np.ndarray) -> Range:
    return _pair(np.stack([values.min(0), values.max(0)]))


def _pair(values: np.ndarray) -> Range:
    low, high = values.tolist()
    return tuple(low), tuple(high)


def _text(values: np.ndarray) -> str:
    return "x".join(f"{value:.3g}" for value in values)
