"""Surface measures against brute force, MONAI and values derived by hand."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage
from scipy.spatial.distance import cdist

from pipeline.metrics import surface, surface_distances, surface_measures, surface_of

SPACINGS = {2: [(1.0, 1.0), (0.7, 3.1)], 3: [(1.0, 1.0, 1.0), (0.9, 1.3, 6.5), (5.0, 0.45, 0.45)]}


def brute_force_surface(mask: np.ndarray) -> np.ndarray:
    """Indices of foreground voxels that have, along some axis, a neighbour that is background or outside."""
    surface = []
    for index in map(tuple, np.argwhere(mask)):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                neighbour = list(index)
                neighbour[axis] += step
                outside = not 0 <= neighbour[axis] < mask.shape[axis]
                if (outside or not mask[tuple(neighbour)]) and index not in surface:
                    surface.append(index)
    return np.array(surface)


def brute_force_distances(prediction, reference, spacing_mm):
    points = [brute_force_surface(mask) * np.array(spacing_mm) for mask in (prediction, reference)]
    matrix = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
    return matrix.min(1), matrix.min(0)


def all_distances(prediction, reference, spacing_mm):
    """The same by a peer's erosion and a table of all distances: quick enough for thousands of pairs."""
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing_mm for mask in (prediction, reference)]
    matrix = cdist(*points)
    return matrix.min(1), matrix.min(0)


def random_pairs(count: int, seed: int):
    """Pairs of 2D and 3D masks: sparse and dense noise, boxes that touch the border, one voxel, full."""
    rng = np.random.default_rng(seed)

    def mask(shape):
        kind = rng.integers(5)
        if kind == 0:
            return np.ones(shape, dtype=bool)
        if kind == 1:
            noise = np.zeros(shape, dtype=bool)
        elif kind == 2:
            noise = rng.random(shape) < rng.choice([0.05, 0.5, 0.9])
        else:
            noise = np.zeros(shape, dtype=bool)
            start = [int(rng.integers(size)) for size in shape]
            noise[tuple(slice(a, a + int(rng.integers(1, 6))) for a in start)] = True
        noise[tuple(int(rng.integers(size)) for size in shape)] = True
        return noise

    for _ in range(count):
        dims = int(rng.integers(2, 4))
        shape = tuple(int(size) for size in rng.integers(1, 8, size=dims))
        spacing = SPACINGS[dims][int(rng.integers(len(SPACINGS[dims])))]
        yield mask(shape), mask(shape), spacing


@pytest.mark.parametrize(
    ("oracle", "pairs", "seed"), [(brute_force_distances, 60, 1), (all_distances, 2000, 4)], ids=["loops", "table"]
)
def test_distances_and_measures_equal_brute_force(implementation, oracle, pairs, seed):
    for prediction, reference, spacing_mm in random_pairs(pairs, seed):
        expected = oracle(prediction, reference, spacing_mm)
        found = surface_distances(prediction, reference, spacing_mm)
        for expected_directed, found_directed in zip(expected, found, strict=True):
            np.testing.assert_allclose(np.sort(found_directed), np.sort(expected_directed), rtol=1e-12, atol=1e-12)

        measures = surface_measures(prediction, reference, spacing_mm, tolerance_mm=1.3)
        pooled = np.concatenate(expected)
        assert measures.hausdorff_mm == pytest.approx(max(e.max() for e in expected))
        assert measures.hausdorff_95_mm == pytest.approx(max(np.percentile(e, 95) for e in expected))
        assert measures.assd_mm == pytest.approx(pooled.mean())
        assert measures.nsd == pytest.approx(np.mean(pooled <= 1.3 + 1e-9))


# MONAI 1.6 hands its own deprecated argument to itself.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_hausdorff_distances_equal_monai():
    for prediction, reference, spacing_mm in random_pairs(40, seed=2):
        measures = surface_measures(prediction, reference, spacing_mm)
        one_hot = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
        for percentile, found in ((None, measures.hausdorff_mm), (95, measures.hausdorff_95_mm)):
            peer = compute_hausdorff_distance(
                *one_hot, include_background=True, percentile=percentile, spacing=list(spacing_mm)
            )
            assert found == pytest.approx(peer.item(), rel=1e-5)


def test_where_simpleitk_measures_something_else(implementation):
    """It takes all voxels of a mask instead of its surface: the same for a shift, another figure for a hole.

    A cube of 9 voxels against the same cube without its inner 5: their outer surfaces are one, and the hole's wall
    lies one voxel inside it. The cube's middle is no surface voxel of it, and 3 voxels from the other mask.
    """
    cube = np.zeros((13, 13, 13), dtype=bool)
    cube[2:11, 2:11, 2:11] = True
    hollow = cube.copy()
    hollow[4:9, 4:9, 4:9] = False
    shifted = np.roll(cube, 2, axis=1)
    measure = sitk.HausdorffDistanceImageFilter()
    for other, own_mm, peer_mm in ((shifted, 2.0, 2.0), (hollow, 1.0, 3.0)):
        measure.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (cube, other)))
        assert measure.GetHausdorffDistance() == pytest.approx(peer_mm)
        assert surface_measures(other, cube, (1.0, 1.0, 1.0)).hausdorff_mm == pytest.approx(own_mm)


def test_surface_of_a_box_is_its_shell():
    mask = np.zeros((7, 6, 5), dtype=bool)
    mask[1:6, 1:5, 1:4] = True
    assert np.count_nonzero(surface_of(mask)) == 5 * 4 * 3 - 3 * 2 * 1
    # The image border is background: of a box that fills the image the shell is the surface too.
    assert np.count_nonzero(surface_of(np.ones((5, 4, 3), dtype=bool))) == 5 * 4 * 3 - 3 * 2 * 1
    # A slice one voxel thick is all surface.
    assert surface_of(np.ones((4, 4, 1), dtype=bool)).all()


def test_distances_are_in_millimetres_along_the_right_axis():
    """Single voxels three apart along each axis in turn.

    prediction  P . . .
    reference   . . . R     spacing 0.5, 1 and 7 mm: 1.5, 3 and 21 mm apart
    """
    for axis, expected_mm in enumerate((1.5, 3.0, 21.0)):
        prediction, reference = np.zeros((2, 4, 4, 4), dtype=bool)
        prediction[0, 0, 0] = True
        reference[tuple(3 if a == axis else 0 for a in range(3))] = True
        measures = surface_measures(prediction, reference, (0.5, 1.0, 7.0))
        assert vars(measures) == pytest.approx(
            {"hausdorff_mm": expected_mm, "hausdorff_95_mm": expected_mm, "assd_mm": expected_mm, "nsd": 0.0}
        )


def test_percentile_is_per_direction_and_the_mean_is_pooled():
    """One row, spacing 2 mm: prediction at 0..19 and at 30, reference at 0..19.

    To the reference: twenty zeros and one distance of 11 voxels, 22 mm; the 95th percentile of 21 values is the
    20th, 0. To the prediction: twenty zeros.
    """
    prediction, reference = np.zeros((2, 1, 40), dtype=bool)
    prediction[0, :20] = reference[0, :20] = prediction[0, 30] = True
    measures = surface_measures(prediction, reference, (1.0, 2.0))
    assert measures.hausdorff_mm == pytest.approx(22.0)
    assert measures.hausdorff_95_mm == pytest.approx(0.0)
    assert measures.assd_mm == pytest.approx(22 / 41)
    assert measures.nsd == pytest.approx(40 / 41)


def test_a_distance_equal_to_the_tolerance_is_within_it_despite_rounding():
    prediction, reference = np.zeros((2, 1, 8), dtype=bool)
    prediction[0, 1] = reference[0, 4] = True
    assert surface_measures(prediction, reference, (1.0, 0.1), tolerance_mm=0.3).nsd == 1.0


def test_threads_give_the_same(implementation, monkeypatch):
    rng = np.random.default_rng(3)
    prediction, reference = rng.random((2, 12, 13, 9)) < 0.5
    serial = surface_measures(prediction, reference, (1.0, 2.0, 3.0))
    monkeypatch.setattr("pipeline.metrics.surface._PARALLEL_FROM", 0)
    monkeypatch.setattr("pipeline.metrics.loops._VOXELS_FOR_THREADS", 0)
    monkeypatch.setattr("pipeline.metrics.loops.num_threads", lambda: 3)
    monkeypatch.setattr("pipeline.metrics.surface.num_threads", lambda: 3)
    assert surface_measures(prediction, reference, (1.0, 2.0, 3.0)) == serial


def test_what_lies_too_far_for_the_rows_is_found_by_the_tree(monkeypatch):
    """With three rows to look at instead of 1500, most pairs need the tree; and along a row beyond 255 voxels."""
    surface._rows_around.cache_clear()
    monkeypatch.setattr("pipeline.metrics.surface._MOST_ROWS", 3)
    for prediction, reference, spacing_mm in random_pairs(300, seed=5):
        expected = all_distances(prediction, reference, spacing_mm)
        for found, wanted in zip(surface_distances(prediction, reference, spacing_mm), expected, strict=True):
            np.testing.assert_allclose(np.sort(found), np.sort(wanted), rtol=1e-12, atol=1e-12)
    surface._rows_around.cache_clear()


@pytest.mark.parametrize("axis", range(3))
def test_distances_of_hundreds_of_voxels(implementation, axis):
    shape = [3, 3, 3]
    shape[axis] = 700
    prediction, reference = np.zeros((2, *shape), dtype=bool)
    prediction[0, 0, 0] = reference[2, 2, 2] = True
    along = np.moveaxis(reference, axis, -1)
    along[2, 2, [2, 254, 255, 256, 690]] = [False, False, False, False, True]
    spacing = np.array((0.5, 0.7, 1.1))
    offset = np.full(3, 2.0)
    offset[axis] = 690
    assert surface_measures(prediction, reference, tuple(spacing)).hausdorff_mm == pytest.approx(
        np.sqrt(((offset * spacing) ** 2).sum())
    )
