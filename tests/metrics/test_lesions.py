"""Lesions against a flood fill, and by hand."""

import math
from itertools import product

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.metrics import lesion_measures, measure_case


def flood_fill(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components of voxels that touch by a face, an edge or a corner."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        lesion, waiting = set(), [left.pop()]
        while waiting:
            voxel = waiting.pop()
            lesion.add(voxel)
            for step in product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if neighbour in left:
                    left.remove(neighbour)
                    waiting.append(neighbour)
        found.append(lesion)
    return found


def test_lesions_equal_a_flood_fill(implementation):
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(int(size) for size in rng.integers(1, 9, size=int(rng.integers(2, 4))))
        prediction, reference = (rng.random(shape) < rng.choice([0.02, 0.1, 0.3, 0.9]) for _ in range(2))
        overlap = float(rng.choice([0, 0.1, 0.5, 1]))
        lesions = [flood_fill(mask) for mask in (prediction, reference)]
        voxels = [set().union(*of_mask) for of_mask in lesions]

        def is_met(lesion, other, overlap=overlap):
            return len(lesion & other) >= max(1, overlap * len(lesion) - 1e-6)

        measures = lesion_measures(prediction, reference, overlap)
        assert measures.lesions_prediction == len(lesions[0])
        assert measures.lesions_reference == len(lesions[1])
        assert measures.lesions_found == sum(is_met(lesion, voxels[0]) for lesion in lesions[1])
        assert measures.lesions_false == sum(not is_met(lesion, voxels[1]) for lesion in lesions[0])


def test_rates_by_hand(implementation):
    """Three true lesions; one is found in two pieces, one by a corner, one is missed; and one is shown beside them."""
    reference, prediction = np.zeros((2, 12, 12, 3), dtype=bool)
    reference[0, 0:7, 0] = reference[4, 4, 1] = reference[8, 8, 2] = True
    prediction[0, 0:2, 0] = prediction[0, 5:7, 0] = prediction[3:5, 3:5, 1] = prediction[11, 0, 0] = True
    measures = lesion_measures(prediction, reference)
    assert (measures.lesions_prediction, measures.lesions_reference) == (4, 3)
    assert (measures.lesions_found, measures.lesions_false) == (2, 1)
    assert measures.lesion_recall == pytest.approx(2 / 3)
    assert measures.lesion_precision == pytest.approx(2 / 3)
    assert measures.lesion_f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert measures.absolute_lesion_count_difference == 1
    # At half of a lesion, 4 of 7 voxels are enough; of the piece of 4 voxels only one is lesion.
    assert lesion_measures(prediction, reference, overlap=0.5).lesions_found == 2
    assert lesion_measures(prediction, reference, overlap=0.5).lesions_false == 2
    assert lesion_measures(prediction, reference, overlap=0.6).lesions_found == 1


def test_components_that_meet_late_are_one(implementation):
    """A comb: its teeth are joined by the last row alone, a spiral only at its end."""
    comb = np.zeros((6, 41), dtype=bool)
    comb[:, ::2] = comb[-1] = True
    assert lesion_measures(comb, comb[::-1]).lesions_prediction == 1
    diagonal = np.zeros((5, 5, 5), dtype=bool)
    diagonal[range(5), range(5), range(4, -1, -1)] = True
    assert lesion_measures(diagonal, diagonal).lesions_reference == 1


def test_nothing_to_find(implementation):
    empty, lesion = np.zeros((4, 4, 4), dtype=bool), np.zeros((4, 4, 4), dtype=bool)
    lesion[1, 1, 1] = True
    assert lesion_measures(empty, empty).lesion_f1 == 1
    assert math.isnan(lesion_measures(empty, empty).lesion_recall)
    missed, alarm = lesion_measures(empty, lesion), lesion_measures(lesion, empty)
    assert (missed.lesion_f1, missed.lesion_recall) == (0, 0)
    assert math.isnan(missed.lesion_precision)
    assert (alarm.lesion_f1, alarm.lesion_precision) == (0, 0)
    assert math.isnan(alarm.lesion_recall)


@pytest.mark.parametrize("overlap", [-0.1, 1.1, float("nan")])
def test_overlaps_that_are_refused(overlap):
    mask = np.ones((2, 2), dtype=int)
    with pytest.raises(ConfigError, match="overlap"):
        measure_case(mask, mask, (1, 1), {1: "cell"}, lesion_overlap=overlap)
