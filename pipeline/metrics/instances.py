"""Measures of a segmentation into instances, such as nuclei: which of them are found, and how exactly.

A label map holds the ids of instances here, each a positive number of its own, and not of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.errors import DataError

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""0.5, 0.55, ... 0.95."""


@dataclass(frozen=True)
class InstanceMeasures:
    """Instances of one image.

    ``f1`` 2TP/(2TP+FP+FN) and ``average_precision`` TP/(TP+FP+FN) by threshold of IoU, with their means over the
    thresholds; both are 1 where there is no instance at all. ``mean_matched_iou`` is over the pairs at the first
    threshold, NaN without any.
    """

    thresholds: tuple[float, ...]
    f1: tuple[float, ...]
    average_precision: tuple[float, ...]
    mean_f1: float
    mean_average_precision: float
    mean_matched_iou: float
    instances_prediction: int
    instances_reference: int


def instance_measures(
    prediction: Any, reference: Any, thresholds: Sequence[float] = IOU_THRESHOLDS
) -> InstanceMeasures:
    """F1 and average precision of instances at thresholds of IoU.

    A predicted and a true instance are a pair (TP) where their IoU is at least the threshold; every instance is in one
    pair at most, and there are as many pairs as there can be. Above one half no instance has two partners, so that
    nothing has to be chosen. ``average_precision`` is the one of the 2018 Data Science Bowl (Caicedo et al., Nature
    Methods 16:1247, 2019), which counts an IoU above the threshold; here one that equals it counts too.

    Args:
        prediction: integer ids of instances, 0 where there is none, (H, W) or (H, W, D); numpy or torch.
        reference: same shape.
        thresholds: of IoU, above 0 and at most 1.

    Raises:
        DataError: other shapes or types, negative ids, thresholds outside.

    >>> reference = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> prediction = np.array([[7, 7, 7, 0, 0, 0, 9]])  # IoU 3/4 and 1/2
    >>> measures = instance_measures(prediction, reference, thresholds=(0.5, 0.75, 0.8))
    >>> measures.f1, measures.mean_matched_iou
    ((1.0, 0.5, 0.0), 0.625)
    """
    maps = [_instances(values, role) for values, role in ((prediction, "prediction"), (reference, "reference"))]
    if maps[0].shape != maps[1].shape:
        raise DataError(
            f"a prediction of shape {maps[0].shape} and a reference of shape {maps[1].shape}", expected="one shape"
        )
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise DataError(f"thresholds {tuple(thresholds)}", expected="shares above 0 and at most 1")
    iou = iou_matrix(*maps)
    num_p, num_r = iou.shape
    pairs = [_pairs(iou, threshold) for threshold in thresholds]
    f1 = tuple(2 * len(found) / (num_p + num_r) if num_p + num_r else 1.0 for found in pairs)
    precision = tuple(
        len(found) / (num_p + num_r - len(found)) if num_p + num_r - len(found) else 1.0 for found in pairs
    )
    return InstanceMeasures(
        thresholds=tuple(float(threshold) for threshold in thresholds),
        f1=f1,
        average_precision=precision,
        mean_f1=float(np.mean(f1)),
        mean_average_precision=float(np.mean(precision)),
        mean_matched_iou=float(np.mean(pairs[0])) if len(pairs[0]) else float("nan"),
        instances_prediction=num_p,
        instances_reference=num_r,
    )


def iou_matrix(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """IoU of every predicted with every true instance, (predicted, true), in the order of their ids."""
    ids_p, index_p = np.unique(prediction, return_inverse=True)
    ids_r, index_r = np.unique(reference, return_inverse=True)
    both = np.bincount(index_p.reshape(-1) * len(ids_r) + index_r.reshape(-1), minlength=len(ids_p) * len(ids_r))
    both = both.reshape(len(ids_p), len(ids_r))
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    return (both / union)[np.ix_(ids_p > 0, ids_r > 0)]


def _pairs(iou: np.ndarray, threshold: float) -> np.ndarray:
    """The IoU of each pair: as many as possible, and of those choices the one with the largest sum of IoU."""
    if not iou.size:
        return np.zeros(0)
    # The last bit of a quotient such as 0.55 decides nothing.
    enough = iou >= threshold * (1 - 1e-9)
    chosen = linear_sum_assignment(np.where(enough, 1 + iou / (2 * min(iou.shape)), 0), maximize=True)
    return iou[chosen][enough[chosen]]


def _instances(values: Any, role: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu().numpy()
    ids = np.asarray(values)
    if ids.ndim not in (2, 3) or not ids.size:
        raise DataError(f"a {role} of shape {ids.shape}", expected="ids of instances (H, W) or (H, W, D)")
    if ids.dtype.kind == "f" and np.array_equal(ids, np.rint(ids)):
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "ui" or ids.min() < 0:
        raise DataError(
            f"a {role} of type {ids.dtype} from {ids.min()}", expected="ids of instances: whole numbers from 0"
        )
    return ids
