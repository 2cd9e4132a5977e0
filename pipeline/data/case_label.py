"""The label of a case by its bundle's rules: class ids, and where its file numbers objects, those numbers too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
from scipy import ndimage

from pipeline.data.label import load_label
from pipeline.data.stack_rules import StackRules
from pipeline.errors import LabelError
from pipeline.geometry import Grid
from pipeline.io import Volume

_PIECES = 3
"""From so many on, pieces that lie apart are no single object that was drawn with a gap."""


@dataclass(frozen=True, eq=False)
class CaseLabel:
    """A label.

    Args:
        classes: (1, H, W, D), of a section (1, H, W), class ids.
        instances: numbers of the objects, of the same shape, 0 where there is none; None where the file holds classes.
    """

    classes: Volume
    instances: np.ndarray | None = None


def load_case_label(path: str | PathLike[str], grid: Grid, rules: StackRules) -> CaseLabel:
    """Read a label that must lie on ``grid``, see `load_label`.

    With ``label_holds="instances"`` any number above 0 is an object of the one class; the numbers need not be
    consecutive, and all voxels of one number are one object, connected or not.

    Raises:
        GeometryError, LabelError: as `load_label`; numbers below 0 of objects.
    """
    if rules.label_holds == "classes":
        return CaseLabel(load_label(path, grid, rules.labels, rules.label_values, rules.label_policy))
    numbers = load_label(path, grid, policy=rules.label_policy)
    if numbers.array.min() < 0:
        raise LabelError(
            f"numbers of objects down to {numbers.array.min()}",
            file=path,
            expected="0 where there is no object, or above",
        )
    assert rules.labels is not None  # which StackRules asks for
    classes = np.where(numbers.array > 0, rules.labels[0], 0).astype(np.uint8)
    return CaseLabel(replace(numbers, array=classes), numbers.array)


def require_numbered(label: CaseLabel, path: str | PathLike[str]) -> None:
    """Refuses a mask of 0 and 1, or 0 and 255, where objects are to be numbered: it would pass as one object in pieces,
    and neither a training nor its measures would know of any other.

    Raises:
        LabelError: a single number, for three pieces or more that do not touch.
    """
    if label.instances is None:
        return
    mask, number = label.instances[0] > 0, label.instances.max()
    if not number or (label.instances[0][mask] != number).any():
        return
    _, pieces = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if pieces >= _PIECES:
        raise LabelError(
            f"one number, {number}, for {pieces} pieces that lie apart",
            file=path,
            expected="a number of its own for each object",
            fix="number them (scipy.ndimage.label, or Analyze Particles with a count mask in ImageJ)",
        )
