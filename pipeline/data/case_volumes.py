"""A case as people look at it: one channel of its image, the reference and a prediction, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np

from pipeline.data.case_label import load_case_label
from pipeline.data.cases import Case
from pipeline.data.stack_rules import StackRules
from pipeline.errors import DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io import read_image


@dataclass(frozen=True)
class CaseVolumes:
    """A case and what is outlined on it.

    Args:
        case_id: of the case.
        channel: which one ``image`` is.
        image: (H, W, D), or (H, W) of a section.
        grid: on which all three lie.
        reference: ids of classes, 0 elsewhere; None where there is none.
        prediction: likewise.
    """

    case_id: str
    channel: str
    image: np.ndarray
    grid: Grid
    reference: np.ndarray | None = None
    prediction: np.ndarray | None = None

    def __post_init__(self) -> None:
        for role, ids in (("reference", self.reference), ("prediction", self.prediction)):
            if ids is not None and ids.shape != self.image.shape:
                raise GeometryError(
                    f"a {role} of shape {ids.shape} on an image of shape {self.image.shape}",
                    case=self.case_id,
                    expected="one grid for all",
                )


def read_case_volumes(
    case: Case, channel: str, rules: StackRules, prediction: str | PathLike[str] | np.ndarray | None = None
) -> CaseVolumes:
    """Reads a case from its files.

    Args:
        case: with a file of the channel.
        channel: name, in small letters.
        rules: by which its files are read.
        prediction: a label map on the image's grid, in whatever axis order; or the array of one. Where the rules say
            that labels hold instances, it may hold instances too.

    Raises:
        DataError: a file that can't be read, or no such channel; a label map on another grid.
    """
    if channel not in case.image:
        raise DataError(f"no channel {channel}", case=case.case_id, expected=f"one of {', '.join(case.image)}")
    volume = read_image(case.image[channel], policy=rules.policy_of(channel))

    def ids(path: str | PathLike[str]) -> np.ndarray:
        return np.asarray(load_case_label(path, volume.grid, rules).classes.array[0])

    reference = None if case.label is None else ids(case.label)
    if prediction is None:
        predicted = None
    elif not isinstance(prediction, np.ndarray):
        predicted = ids(prediction)
    elif rules.label_holds == "instances" and rules.labels:  # as in the labels, so in the results
        predicted = np.where(prediction > 0, rules.labels[0], 0).astype(np.uint8)
    else:
        predicted = prediction
    return CaseVolumes(case.case_id, channel, volume.array, volume.grid, reference, predicted)
