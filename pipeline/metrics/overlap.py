"""Measures of overlap between two masks, from the four counts of voxels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OverlapMeasures:
    """Rates between 0 and 1; one that is 0/0 is NaN, except Dice and IoU of two empty masks, which are 1."""

    dice: float
    iou: float
    tpr: float
    tnr: float
    fpr: float
    fnr: float
    ppv: float


def overlap_measures(tp: int, fp: int, fn: int, tn: int) -> OverlapMeasures:
    """Dice, IoU and the rates of a confusion matrix.

    Args:
        tp: voxels in both masks (true positives).
        fp: voxels in the prediction alone (false positives).
        fn: voxels in the reference alone (false negatives).
        tn: voxels in neither (true negatives).

    Returns:
        ``dice`` 2TP/(2TP+FP+FN), ``iou`` TP/(TP+FP+FN), ``tpr`` TP/(TP+FN) (sensitivity), ``tnr`` TN/(TN+FP)
        (specificity), ``fpr`` FP/(FP+TN), ``fnr`` FN/(TP+FN), ``ppv`` TP/(TP+FP) (precision). Always
        dice = 2 iou/(1 + iou).

    >>> measures = overlap_measures(tp=3, fp=1, fn=2, tn=4)
    >>> measures.iou, measures.tpr, measures.fpr, measures.fnr, measures.tnr
    (0.5, 0.6, 0.2, 0.4, 0.8)
    >>> round(measures.dice, 4)
    0.6667
    """
    both_empty = tp + fp + fn == 0
    return OverlapMeasures(
        dice=1.0 if both_empty else 2 * tp / (2 * tp + fp + fn),
        iou=1.0 if both_empty else tp / (tp + fp + fn),
        tpr=_rate(tp, tp + fn),
        tnr=_rate(tn, tn + fp),
        fpr=_rate(fp, fp + tn),
        fnr=_rate(fn, tp + fn),
        ppv=_rate(tp, tp + fp),
    )


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
