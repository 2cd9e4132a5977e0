"""Overlap measures against values derived by hand."""

import itertools
import math

import pytest

from pipeline.metrics import overlap_measures


def test_the_worked_example():
    measures = overlap_measures(tp=3, fp=1, fn=2, tn=4)
    assert measures.dice == pytest.approx(2 / 3)
    assert measures.iou == pytest.approx(1 / 2)
    assert measures.tpr == pytest.approx(0.6)
    assert measures.fpr == pytest.approx(0.2)
    assert measures.fnr == pytest.approx(0.4)
    assert measures.tnr == pytest.approx(0.8)
    assert measures.ppv == pytest.approx(0.75)


def test_dice_follows_from_iou_for_all_counts():
    for tp, fp, fn, tn in itertools.product(range(4), repeat=4):
        measures = overlap_measures(tp, fp, fn, tn)
        assert measures.dice == pytest.approx(2 * measures.iou / (1 + measures.iou))


def test_rates_of_nothing_are_undefined():
    both_empty = overlap_measures(tp=0, fp=0, fn=0, tn=8)
    assert (both_empty.dice, both_empty.iou, both_empty.tnr, both_empty.fpr) == (1, 1, 1, 0)
    assert all(math.isnan(rate) for rate in (both_empty.tpr, both_empty.fnr, both_empty.ppv))

    both_full = overlap_measures(tp=8, fp=0, fn=0, tn=0)
    assert (both_full.dice, both_full.tpr, both_full.ppv) == (1, 1, 1)
    assert math.isnan(both_full.tnr)
    assert math.isnan(both_full.fpr)
