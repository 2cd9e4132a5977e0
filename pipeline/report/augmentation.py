"""A picture of a bundle's augmentation: each random step a row, weak, typical and strong, beside the patch as it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.report.figure import BACKGROUND, FAINT, PREDICTION, REFERENCE, TEXT

if TYPE_CHECKING:
    from pipeline.transforms.preview import Panel, Preview

PANEL_INCHES, LEFT_INCHES, WORDS_INCHES = 1.75, 1.25, 0.46
GRID_LINES = 7
"""Lines of the deformation grid across the shorter side of a panel, about."""

_THICK = 1.5  # voxels so much longer along one axis than along the others: the picture is a slice across it


def augmentation_figure(
    preview: Preview,
    channel: int,
    title: str,
    path: str | PathLike[str],
    names: tuple[str, ...] = ("weak", "typical", "strong"),
) -> Path:
    """Draw what `pipeline.transforms.preview.preview` made.

    Volumes come with RAS+ axes, and one slice of each is drawn: the one with the most label, across the thickest axis
    of the voxels, or across the axis that shows most label. The label's outline is drawn over each patch, and a grid,
    even in the volume, over each deformed one.

    Args:
        channel: which one is drawn.
        title: what stands above.
        path: file to write; its suffix says which format, its folder is made.
        names: of the columns.
    """
    cut = _Cut(preview.before, preview.spacing_mm)
    rows, columns = len(preview.rows), 1 + len(names)
    panel_height = PANEL_INCHES * min(1.0, cut.height_per_width)
    width = LEFT_INCHES + columns * PANEL_INCHES + 0.1
    height = 0.85 + rows * (panel_height + WORDS_INCHES)
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.1 / width, 1 - 0.25 / height, title, color=TEXT, fontsize=11, weight="bold", va="center")
    low, high = np.percentile(preview.before.image[channel], (0.5, 99.5))
    for row, (name, panels) in enumerate(preview.rows.items()):
        top = height - 0.75 - row * (panel_height + WORDS_INCHES)
        probability = preview.probabilities.get(name)
        heading = name if probability is None else f"{name}\n"
        figure.text(0.1 / width, (top - panel_height / 2) / height, heading, color=TEXT, fontsize=10, va="center")
        if probability is not None:
            under = f"\nin {probability:.0%} of patches"
            figure.text(0.1 / width, (top - panel_height / 2) / height, under, color=FAINT, fontsize=7.5, va="center")
        for column, (heading, panel) in enumerate(zip(("before", *names), (preview.before, *panels), strict=True)):
            left = (LEFT_INCHES + column * PANEL_INCHES) / width
            box = (left, (top - panel_height) / height, (PANEL_INCHES - 0.06) / width, panel_height / height)
            axes = figure.add_axes(box)
            axes.imshow(cut(panel.image[channel]), cmap="gray", vmin=low, vmax=high, **cut.options)
            _overlay(axes, panel, cut)
            middle = left + (PANEL_INCHES - 0.06) / 2 / width
            if row == 0:
                figure.text(middle, (height - 0.62) / height, heading, color=TEXT, fontsize=9, ha="center")
            words: dict[str, Any] = {"color": FAINT, "fontsize": 7, "ha": "center", "va": "top", "linespacing": 1.15}
            figure.text(middle, (top - panel_height - 0.03) / height, panel.words, **words)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor=BACKGROUND)
    return Path(path)


def _overlay(axes: Axes, panel: Panel, cut: _Cut) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if panel.coordinates is not None:
        for axis in cut.shown:
            places = cut(panel.coordinates[axis])
            levels = np.arange(np.floor(places.min() / cut.grid_mm), places.max() / cut.grid_mm + 1) * cut.grid_mm
            axes.contour(places, levels=levels, colors=[PREDICTION], linewidths=0.6, alpha=0.75)
    if panel.label is not None:
        for value in np.unique(panel.label[panel.label > 0]):
            mask = cut(panel.label) == value
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=[REFERENCE], linewidths=0.9)


class _Cut:
    """Which slice of a patch is drawn, and how it lies in the picture."""

    def __init__(self, panel: Panel, spacing_mm: tuple[float, ...]) -> None:
        self.volume = len(spacing_mm) == 3
        label = panel.label if panel.label is not None else np.zeros(panel.image.shape[1:])
        shape = panel.image.shape[1:]
        self.shown: tuple[int, ...] = (0, 1)
        if self.volume:
            areas = [np.count_nonzero(label, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
            thickest = int(np.argmax(spacing_mm))
            widest = max(range(3), key=lambda axis: (areas[axis].max(), axis))
            self.axis = thickest if spacing_mm[thickest] > _THICK * np.median(spacing_mm) else widest
            self.index = int(areas[self.axis].argmax()) if label.any() else shape[self.axis] // 2
            self.shown = tuple(axis for axis in range(3) if axis != self.axis)
        first, second = self.shown
        sides = [shape[axis] * spacing_mm[axis] for axis in self.shown]
        # Of a volume the second axis runs upwards; of a section the first one runs downwards.
        across, up = (first, second) if self.volume else (second, first)
        self.height_per_width = (shape[up] * spacing_mm[up]) / (shape[across] * spacing_mm[across])
        self.options: dict[str, Any] = {
            "origin": "lower" if self.volume else "upper",
            "aspect": spacing_mm[up] / spacing_mm[across],
            "interpolation": "nearest",
        }
        rough = min(sides) / GRID_LINES
        power = 10.0 ** np.floor(np.log10(rough))
        self.grid_mm = float(power * min((1, 2, 5, 10), key=lambda step: abs(np.log(step * power / rough))))

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Rows and columns of the picture; seen from the feet, the front or the left."""
        return array.take(self.index, self.axis)[::-1].T if self.volume else array
