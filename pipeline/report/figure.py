"""Pictures of cases: each channel with its unit, and the outlines of reference and prediction over the anatomy.

Volumes come with RAS+ axes (first axis to the patient's right, second to the front, third up) and are drawn as
radiologists look at them: axial slices seen from the feet, the patient's right on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipeline.errors import DataError

BACKGROUND, TEXT, FAINT = "#0b0d10", "#e8eaed", "#8b929b"
REFERENCE, PREDICTION = "#36d6e7", "#ff9d2e"
CONVENTION = "Radiological view: the patient's right (R) is on the left"
PERFUSION = {  # channel: heading, unit, colours
    "cbf": ("Cerebral blood flow", "ml / 100 g / min", "inferno"),
    "cbv": ("Cerebral blood volume", "ml / 100 g", "magma"),
    "mtt": ("Mean transit time", "s", "viridis"),
}
PANEL_INCHES, LEFT_INCHES = 2.45, 1.4


@dataclass(frozen=True)
class FigureCase:
    """What a picture needs of one case; all volumes (H, W, D), RAS+.

    Args:
        title: first words beside the case's slices.
        channels: name -> volume; the first one is the anatomy under the outlines.
        reference: label map, foreground above 0.
        prediction: label map, foreground above 0.
        spacing_mm: distance between voxels along H, W, D.
    """

    title: str
    channels: Mapping[str, np.ndarray]
    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: Sequence[float]

    def __post_init__(self) -> None:
        volumes = {**self.channels, "reference": self.reference, "prediction": self.prediction}
        shapes = {name: np.shape(volume) for name, volume in volumes.items()}
        if not self.channels or len(set(shapes.values())) != 1 or len(shapes["reference"]) != 3:
            raise DataError(f"volumes of shapes {shapes}", expected="one 3D shape for all", case=self.title)

    @property
    def caption(self) -> str:
        """Dice in words, or what there is instead of it where the reference or the prediction is empty."""
        predicted, real = self.prediction > 0, self.reference > 0
        if not real.any():
            return "false alarm" if predicted.any() else "no lesion,\nnone shown"
        dice = 2 * np.count_nonzero(predicted & real) / (np.count_nonzero(predicted) + np.count_nonzero(real))
        return f"Dice {dice:.2f}\nin all slices" if predicted.any() else "missed"

    def slices(self, count: int) -> list[int]:
        """Indices along D worth looking at, top first: most outlined area (else most tissue), apart from each other."""
        area = ((self.reference > 0) | (self.prediction > 0)).sum(axis=(0, 1)).astype(float)
        if not area.any():
            area = self.tissue.sum(axis=(0, 1)).astype(float)
        chosen: list[int] = []
        apart = max(1, int(np.count_nonzero(area) / (count + 1)))
        for index in np.argsort(-area, kind="stable"):
            if area[index] and all(abs(index - other) >= apart for other in chosen):
                chosen.append(int(index))
        return sorted(chosen[:count], reverse=True)

    def in_plane_box(self, margin: int = 3) -> tuple[slice, slice]:
        """The rows and columns that hold anything, with a margin of voxels, the same for all slices."""
        occupied = np.asarray(self.tissue.any(axis=2))
        if not occupied.any():
            return slice(None), slice(None)
        first, second = (np.flatnonzero(occupied.any(axis=axis)) for axis in (1, 0))
        return slice(max(0, first[0] - margin), first[-1] + margin + 1), slice(
            max(0, second[0] - margin), second[-1] + margin + 1
        )

    @property
    def tissue(self) -> np.ndarray:
        """Where any channel is not 0; the rest is air or masked out."""
        return np.asarray(np.logical_or.reduce([volume != 0 for volume in self.channels.values()]))


def case_figure(
    channels: Mapping[str, np.ndarray],
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    title: str,
    path: str | PathLike[str],
    slices: int = 3,
) -> Path:
    """Draw one case: a row per slice, a column per channel, outlines last.

    Args:
        channels: name -> volume (H, W, D), RAS+; ``cbf``, ``cbv``, ``mtt`` get their units and colours.
        reference: label map (H, W, D), foreground above 0.
        prediction: label map (H, W, D), foreground above 0.
        spacing_mm: distance between voxels along H, W, D.
        title: what stands above, before the Dice.
        path: file to write; its suffix says which format (png, pdf, svg).
        slices: the most rows to draw.

    Raises:
        DataError: shapes differ or are not 3D.
    """
    case = FigureCase(title, channels, reference, prediction, spacing_mm)
    rows = [(case, index, f"slice {index + 1} of {np.shape(reference)[2]}") for index in case.slices(slices)]
    return _draw(rows, f"{title}  ·  {' '.join(case.caption.split())}", path)


def demo_figure(cases: Sequence[FigureCase], path: str | PathLike[str]) -> Path:
    """Draw several cases of the same channels: one row each, the slice with the most lesion.

    Raises:
        DataError: no case, or cases with different channels.
    """
    if len({tuple(case.channels) for case in cases}) != 1:
        raise DataError(f"channels {[tuple(case.channels) for case in cases]}", expected="the same ones in every case")
    rows = [(case, case.slices(1)[0], f"{case.title}\n{case.caption}") for case in cases]
    return _draw(rows, "Stroke lesions in digital brain-perfusion phantoms", path)


def _draw(rows: Sequence[tuple[FigureCase, int, str]], title: str, path: str | PathLike[str]) -> Path:
    """One row of panels per (case, slice, words beside it), colour bars below."""
    names = list(rows[0][0].channels)
    looks = {name: _look(name, [case.channels[name] for case, _, _ in rows]) for name in names}
    columns = len(names) + 1
    height_ratios = [*(_aspect_ratio(case) for case, _, _ in rows), 0.05]
    size = (PANEL_INCHES * columns + LEFT_INCHES + 0.15, PANEL_INCHES * sum(height_ratios) + 1.6)
    figure = Figure(figsize=size, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows) + 1,
        columns,
        height_ratios=height_ratios,
        left=LEFT_INCHES / size[0],
        right=1 - 0.15 / size[0],
        top=1 - 0.85 / size[1],
        bottom=0.55 / size[1],
        wspace=0.03,
        hspace=0.04,
    )
    y = 1 - 0.32 / size[1]
    figure.text(LEFT_INCHES / size[0], y, title, color=TEXT, fontsize=13, weight="bold", va="center")
    figure.text(1 - 0.15 / size[0], y, CONVENTION, color=FAINT, fontsize=8, ha="right", va="center")
    for row, (case, index, words) in enumerate(rows):
        for column, name in enumerate(names):
            axes = _panel(figure.add_subplot(grid[row, column]), case, name, index, *looks[name][2:])
            if row == 0:
                axes.set_title(looks[name][0], color=TEXT, fontsize=10)
            if column == 0:
                axes.set_ylabel(words, color=TEXT, fontsize=9.5, rotation=0, ha="right", va="center", labelpad=16)
        norm = looks[names[0]][3]
        axes = _panel(figure.add_subplot(grid[row, columns - 1]), case, names[0], index, colormaps["gray"], norm)
        _outlines(axes, case, index)
        if row == 0:
            axes.set_title("Reference and prediction", color=TEXT, fontsize=10)
    for column, name in enumerate(names):
        _colour_bar(figure, figure.add_subplot(grid[-1, column]), *looks[name][1:])
    _legend(figure.add_subplot(grid[-1, columns - 1]))
    figure.savefig(path, dpi=150, facecolor=BACKGROUND)
    return Path(path)


def _look(name: str, volumes: Sequence[np.ndarray]) -> tuple[str, str, Colormap, Normalize]:
    """Heading, unit, colours; one window for all rows, 0 (or percentile 2) to percentile 98.5 of what is not 0."""
    heading, unit, colours = PERFUSION.get(name, (name.upper(), "", "gray"))
    inside = np.concatenate([volume[volume != 0].ravel()[::7] for volume in volumes])
    if not inside.size:
        return heading, unit, colormaps[colours], Normalize(0, 1)
    low, high = (float(v) for v in np.percentile(inside, (2, 98.5)))
    return heading, unit, colormaps[colours], Normalize(0.0 if low >= 0 else low, high)


def _aspect_ratio(case: FigureCase) -> float:
    """Height over width of what is drawn of a case, in mm."""
    rows, columns = case.reference[(*case.in_plane_box(), 0)].shape
    return columns * case.spacing_mm[1] / (rows * case.spacing_mm[0])


def _seen_from_the_feet(volume: np.ndarray, case: FigureCase, index: int) -> np.ndarray:
    """One slice as rows and columns of a picture whose lower left is the patient's back right."""
    return volume[(*case.in_plane_box(), index)][::-1].T


def _panel(axes: Axes, case: FigureCase, name: str, index: int, colours: Colormap, norm: Normalize) -> Axes:
    air = ~_seen_from_the_feet(case.tissue, case, index)
    axes.imshow(
        np.ma.masked_where(air, _seen_from_the_feet(case.channels[name], case, index)),
        cmap=colours,
        norm=norm,
        origin="lower",
        aspect=case.spacing_mm[1] / case.spacing_mm[0],
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[], facecolor=BACKGROUND)
    axes.spines[:].set_visible(False)
    for x, side in ((0.02, "R"), (0.98, "L")):
        axes.text(x, 0.97, side, transform=axes.transAxes, color=FAINT, fontsize=8, ha="center", va="top")
    return axes


def _outlines(axes: Axes, case: FigureCase, index: int) -> None:
    """The reference as a translucent area, the prediction as a line: both stay visible where they agree."""
    reference, prediction = (_seen_from_the_feet(m, case, index) > 0 for m in (case.reference, case.prediction))
    if reference.any():
        axes.contourf(reference, levels=[0.5, 1.5], colors=[REFERENCE], alpha=0.45)
    if prediction.any():
        axes.contour(prediction, levels=[0.5], colors=[PREDICTION], linewidths=1.5)


def _colour_bar(figure: Figure, axes: Axes, unit: str, colours: Colormap, norm: Normalize) -> None:
    axes.axis("off")
    inner = axes.inset_axes((0.08, 0.0, 0.84, 0.8))
    bar: Any = figure.colorbar(ScalarMappable(norm, colours), cax=inner, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT, labelsize=8, length=2)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    bar.set_label(unit, color=FAINT, fontsize=8)


def _legend(axes: Axes) -> None:
    axes.axis("off")
    shown = [
        Patch(facecolor=REFERENCE, alpha=0.6, label="reference"),
        Line2D([], [], color=PREDICTION, label="prediction"),
    ]
    axes.legend(handles=shown, loc="upper center", ncols=2, frameon=False, labelcolor=TEXT, fontsize=9)
