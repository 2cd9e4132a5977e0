"""ISBI 2012's scores, against brute force: every pair of pixels, every change of topology."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.errors import DataError
from pipeline.metrics import MEMBRANE_SCORES, membrane_scores, partition_scores, thin_membranes

RNG = np.random.default_rng(0)
EIGHT = np.ones((3, 3))


def blobs(shape=(24, 31), share=0.7, smooth=1.5, seed=0):
    """Label maps with cells (1) and membranes (0) of all widths."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return (noise < np.quantile(noise, share)).astype(np.uint8)


def brute_force(segments, cells):
    """V^Rand and V^Info from their definitions, pair by pair and segment by segment."""
    segments = [s if s else -i - 1 for i, s in enumerate(segments.tolist())]  # membrane: a segment per pixel
    cells, n = cells.tolist(), len(cells)
    together = {"both": n, "s": n, "t": n}  # each pixel with itself
    for a, b in combinations(range(n), 2):
        same_s, same_t = segments[a] == segments[b], cells[a] == cells[b]
        together["both"] += 2 * (same_s and same_t)
        together["s"] += 2 * same_s
        together["t"] += 2 * same_t

    def entropy(ids):
        return -sum(count / n * math.log(count / n) for count in Counter(ids).values())

    h_s, h_t = entropy(segments), entropy(cells)
    information = sum(
        count / n * math.log(count * n / (segments.count(s) * cells.count(t)))
        for (s, t), count in Counter(zip(segments, cells, strict=True)).items()
    )
    rand = together["both"] / (together["s"] / 2 + together["t"] / 2)
    return (
        *(rand, together["both"] / together["t"], together["both"] / together["s"]),
        *(information / (h_s / 2 + h_t / 2), information / h_s, information / h_t),
    )


@pytest.mark.parametrize("seed", range(6))
def test_partition_scores_are_the_definitions(seed):
    random = np.random.default_rng(seed)
    cells = random.integers(1, 5, 120)
    segments = np.where(random.random(120) < 0.6, cells + random.integers(0, 2, 120), 0)
    np.testing.assert_allclose(partition_scores(segments, cells), brute_force(segments, cells), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_sections_are_the_definitions(seed):
    reference, prediction = blobs((15, 17), 0.5, 1.0, seed), blobs((15, 17), 0.45, 1.0, seed)
    prediction[RNG.random(prediction.shape) < 0.05] ^= 1
    scores = membrane_scores(torch.from_numpy(prediction), reference)
    cells, _ = ndimage.label(reference)
    segments, _ = ndimage.label(~thin_membranes(prediction == 0))
    expected = brute_force(segments[cells > 0], cells[cells > 0])
    np.testing.assert_allclose([getattr(scores, name) for name in MEMBRANE_SCORES[1:7]], expected, rtol=1e-9)
    assert scores.pixel_error == pytest.approx(np.mean(prediction != reference))


def test_by_hand():
    """Two cells of 4 and 2 pixels that are one segment: sum p^2 = (16 + 4) / 36, s^2 = 1, t^2 = 20 / 36."""
    cells = np.array([1, 1, 1, 1, 2, 2])
    v_rand, split, merge, v_info, info_split, info_merge = partition_scores(np.ones(6, int), cells)
    assert (split, merge) == (pytest.approx(1), pytest.approx(20 / 36))
    assert v_rand == pytest.approx(2 * 20 / (36 + 20))
    assert (v_info, info_split, info_merge) == (0, 1, 0)  # nothing is split; one segment tells nothing
    # The first cell in halves: s = 1/3, 1/3, 1/3, and t = 2/3, 1/3.
    v_rand, split, merge, v_info, info_split, info_merge = partition_scores(np.array([1, 1, 2, 2, 3, 3]), cells)
    assert (split, merge) == (pytest.approx((3 / 9) / (5 / 9)), pytest.approx(1))
    h_t = math.log(3) - 2 / 3 * math.log(2)
    assert (info_split, info_merge) == (pytest.approx(h_t / math.log(3)), pytest.approx(1))
    assert v_info == pytest.approx(2 * h_t / (h_t + math.log(3)))


def test_extremes():
    reference = blobs()
    same = membrane_scores(reference, reference)
    assert same.pixel_error == 0
    assert same.v_rand == same.v_info == 1
    nothing = membrane_scores(np.zeros_like(reference), reference)  # every pixel is a segment of its own
    assert nothing.cells_prediction == 0
    assert nothing.v_rand_merge == 1
    assert nothing.v_rand_split < 0.02
    empty = membrane_scores(reference, np.zeros_like(reference))
    assert math.isnan(empty.v_rand)
    assert empty.cells_reference == 0
    assert empty.pixel_error == pytest.approx(reference.mean())
    whole = membrane_scores(np.ones((4, 4), int), np.ones((4, 4), int))
    assert (whole.v_rand, whole.v_info, whole.cells_prediction) == (1, 1, 1)


def test_the_width_of_a_membrane_does_not_count_but_a_gap_does():
    reference = np.ones((30, 60), np.uint8)
    reference[:, 29:31] = 0
    wide = reference.copy()
    wide[:, 26:34] = 0
    assert membrane_scores(wide, reference).v_rand > 0.999
    gap = wide.copy()
    gap[15] = 1
    assert membrane_scores(gap, reference).v_rand == pytest.approx(2 * 0.5 / 1.5, abs=0.01)


def topology(membrane):
    """4-connected cells and 8-connected membranes, the frame around the image being membrane."""
    framed = np.pad(membrane, 1, constant_values=True)
    return ndimage.label(~framed)[1], ndimage.label(framed, EIGHT)[1]


@pytest.mark.parametrize("seed", range(8))
def test_thinning_keeps_the_topology_and_leaves_nothing_to_take_away(seed):
    membrane = blobs((20, 23), 0.5, 0.8 + 0.2 * seed, seed) == 0
    thin = thin_membranes(membrane)
    assert not (thin & ~membrane).any()
    assert topology(thin) == topology(membrane)
    for pixel in np.argwhere(thin):
        without = thin.copy()
        without[tuple(pixel)] = False
        framed = np.pad(without, 1, constant_values=True)
        row, column = pixel + 1
        sides = framed[[row, row, row - 1, row + 1], [column - 1, column + 1, column, column]]
        touches_cell = not sides.all()
        assert not (touches_cell and topology(without) == topology(thin))


def test_the_simple_pixels_are_those_whose_removal_changes_no_topology():
    """All 256 neighbourhoods, in the middle of a 3 x 3 image whose surroundings are decided by its pixels alone."""
    from pipeline.metrics.membranes import _SIMPLE

    around = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    for bits in product((False, True), repeat=8):
        code = sum(bit << k for k, bit in enumerate(bits))
        patch = np.zeros((3, 3), bool)
        for place, bit in zip(around, bits, strict=True):
            patch[place] = bit
        # Simple, by definition: one component of membrane around it, and one of cell that touches it by a side.
        membranes = ndimage.label(patch, EIGHT)[1]
        cells = patch == 0
        cells[1, 1] = False
        labelled, _ = ndimage.label(cells)
        beside = {labelled[place] for place in around[::2]} - {0}
        assert _SIMPLE[code] == (membranes == 1 and len(beside) == 1)


def test_lines_stay_in_the_middle_and_loose_ends_go():
    membrane = np.zeros((21, 21), bool)
    membrane[8:13] = True
    assert np.array_equal(np.flatnonzero(thin_membranes(membrane)[:, 10]), [10])
    loose = np.zeros((21, 21), bool)
    loose[10, :15] = True
    assert not thin_membranes(loose).any()
    island = np.zeros((21, 21), bool)
    island[5:12, 6:9] = True
    assert thin_membranes(island).sum() == 1


def test_what_is_no_label_map_is_refused():
    good = np.ones((3, 4), int)
    for bad in (np.ones((3, 4, 1), int), np.full((3, 4), 0.5), np.full((3, 4), np.nan), np.ones((0, 4), int)):
        with pytest.raises(DataError):
            membrane_scores(bad, good)
    with pytest.raises(DataError, match="one shape"):
        membrane_scores(good, good.T)
