"""Instances: values by hand, against brute force, and what is refused."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.metrics import IOU_THRESHOLDS, instance_measures


def brute_force(prediction, reference, threshold) -> tuple[float, float]:
    """F1 and average precision of the largest number of pairs over all ways to pair up."""
    ids = [[i for i in np.unique(ids).tolist() if i] for ids in (prediction, reference)]
    masks = [[ids_of == i for i in known] for ids_of, known in zip((prediction, reference), ids, strict=True)]
    iou = [[(p & r).sum() / (p | r).sum() for r in masks[1]] for p in masks[0]]
    few, many = sorted((len(masks[0]), len(masks[1])))
    table = iou if len(masks[0]) <= len(masks[1]) else list(zip(*iou, strict=True))
    tp = max(sum(table[i][j] >= threshold - 1e-9 for i, j in enumerate(way)) for way in permutations(range(many), few))
    return 2 * tp / (few + many), tp / (few + many - tp)


def test_measures_equal_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(60):
        reference = np.repeat(rng.integers(0, 4, size=(4, 4)), 3, axis=0)
        prediction = np.where(rng.random(reference.shape) < 0.3, rng.integers(0, 5, size=reference.shape), reference)
        if not prediction.any() or not reference.any():
            continue
        found = instance_measures(prediction, torch.from_numpy(reference), thresholds=(0.2, 0.5, 0.75))
        expected = [brute_force(prediction, reference, threshold) for threshold in (0.2, 0.5, 0.75)]
        assert list(found.f1) == pytest.approx([f1 for f1, _ in expected])
        assert list(found.average_precision) == pytest.approx([precision for _, precision in expected])


def test_by_hand():
    """One of 10 pixels found as 8 (IoU 0.8), one of 4 in halves (0.5 each, one of which can be a pair)."""
    reference, prediction = np.zeros((2, 3, 20), dtype=np.int32)
    reference[0, :10], reference[1, :4] = 300, 7
    prediction[0, :8], prediction[1, :2], prediction[1, 2:4] = 1, 2, 3
    found = instance_measures(prediction, reference)
    assert (found.thresholds, found.instances_prediction, found.instances_reference) == (IOU_THRESHOLDS, 3, 2)
    at = dict(zip(found.thresholds, found.f1, strict=True))
    assert (at[0.5], at[0.8]) == (pytest.approx(4 / 5), pytest.approx(2 / 5))
    assert at[0.85] == 0
    assert found.average_precision[0] == pytest.approx(2 / 3)
    assert found.mean_f1 == pytest.approx((4 / 5 + 6 * 2 / 5) / 10)
    assert found.mean_matched_iou == pytest.approx((0.8 + 0.5) / 2)


def test_nothing_there():
    empty, one = np.zeros((2, 4, 4), dtype=int)
    one[1, 1] = 1
    assert instance_measures(empty, empty).mean_average_precision == 1
    assert instance_measures(one, empty).f1[0] == instance_measures(empty, one).f1[0] == 0
    assert math.isnan(instance_measures(one, empty).mean_matched_iou)


@pytest.mark.parametrize(
    ("prediction", "reference", "thresholds", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), (0.5,), "one shape"),
        (np.full((2, 2), -1), np.ones((2, 2), int), (0.5,), "prediction of type int64 from -1"),
        (np.ones((2, 2), int), np.full((2, 2), 0.5), (0.5,), "reference of type float64"),
        (np.ones(3, int), np.ones(3, int), (0.5,), "shape"),
        (np.ones((2, 2), int), np.ones((2, 2), int), (0.0,), "thresholds"),
    ],
)
def test_what_is_refused(prediction, reference, thresholds, message):
    with pytest.raises(DataError, match=message):
        instance_measures(prediction, reference, thresholds)
