"""Measures that count lesions instead of voxels: how many were found, and how many were shown where there is none.

A lesion is a connected component of a mask: voxels that touch, by a corner at least (26-connected in 3D, 8 in 2D).
Voxels say little about small lesions: ten of them, all missed, may be a hundredth of the volume beside a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError
from pipeline.metrics.loops import compiled_loops


@dataclass(frozen=True)
class LesionMeasures:
    """Lesions of one class in one case.

    ``lesions_found`` of the ``lesions_reference`` are in the prediction, and ``lesions_false`` of the
    ``lesions_prediction`` are not in the reference. ``lesion_recall`` found/reference, ``lesion_precision``
    found/(found + false), ``lesion_f1`` 2 found/(found + false + reference); a rate that is 0/0 is NaN, except F1
    without any lesion, which is 1. ``absolute_lesion_count_difference`` is between the two numbers of lesions.
    """

    lesions_prediction: int
    lesions_reference: int
    lesions_found: int
    lesions_false: int
    lesion_precision: float
    lesion_recall: float
    lesion_f1: float
    absolute_lesion_count_difference: int


def lesion_measures(prediction: np.ndarray, reference: np.ndarray, overlap: float = 0.0) -> LesionMeasures:
    """Counts the lesions of two masks that meet.

    A lesion of the reference is found where the prediction covers at least the share ``overlap`` of its voxels, and one
    voxel in any case; a lesion of the prediction is false where the reference covers less than that of it. One
    predicted lesion may find several, and several pieces may find one: precision then counts what was found, once.

    With ``overlap=0`` F1 and the count difference are those of the ISLES 2022 challenge (Hernandez Petzsche et al.,
    Scientific Data 9:762, 2022); its F1 without any lesion is 1 as well.

    Args:
        prediction: bool, (H, W) or (H, W, D).
        reference: bool, same shape.
        overlap: from 0 to 1.

    Raises:
        ConfigError: another overlap.

    >>> prediction, reference = np.zeros((2, 9, 9), dtype=bool)
    >>> reference[1, 1:4] = reference[5, 5] = True  # two lesions
    >>> prediction[1, 3] = prediction[8, 0:2] = True  # one is found, and one shown where there is none
    >>> measures = lesion_measures(prediction, reference)
    >>> measures.lesions_found, measures.lesions_false, measures.lesion_f1
    (1, 1, 0.5)
    >>> lesion_measures(prediction, reference, overlap=0.5).lesions_found
    0
    """
    if not 0 <= overlap <= 1:
        raise ConfigError(f"an overlap of {overlap}", expected="a share of a lesion's voxels, from 0 to 1")
    met_p, met_r = _is_met(prediction, reference, overlap), _is_met(reference, prediction, overlap)
    found, false, number = int(met_r.sum()), int((~met_p).sum()), len(met_r)
    return LesionMeasures(
        lesions_prediction=len(met_p),
        lesions_reference=number,
        lesions_found=found,
        lesions_false=false,
        lesion_precision=_rate(found, found + false),
        lesion_recall=_rate(found, number),
        lesion_f1=2 * found / (found + false + number) if false + number else 1.0,
        absolute_lesion_count_difference=abs(len(met_p) - number),
    )


def _is_met(mask: np.ndarray, other: np.ndarray, overlap: float) -> np.ndarray:
    """For each lesion of a mask whether the other covers enough of it."""
    sizes, covered = components(mask, other).T
    # Products of shares such as 0.1 x 10 voxels must not miss a voxel by the last bit.
    return covered >= np.maximum(1, overlap * sizes * (1 - 1e-9))


def components(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(components of the mask, 2): their voxels, and how many of these the other mask covers."""
    loops = compiled_loops()
    if loops is None:
        labels, number = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
        counts = [np.bincount(labels[where], minlength=number + 1)[1:] for where in (mask, mask & other)]
        return np.stack(counts, axis=1)
    shape = (1,) * (3 - mask.ndim) + mask.shape
    own, theirs = (np.ascontiguousarray(voxels).view(np.uint8).reshape(shape) for voxels in (mask, other))
    runs = loops.count_runs(own)
    rows = np.empty(shape[0] * shape[1] + 1, np.int64)
    return loops.components(own, theirs, np.empty((runs, 4), np.int64), rows, np.empty(runs, np.int64))


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
