"""Small components go, each class on its own; what is large enough stays voxel for voxel."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from pipeline.inference import Restored, fill_holes, keep_largest_component, remove_small_components


@pytest.fixture
def labels():
    labels = np.zeros((8, 8, 4), np.uint8)
    labels[0:2, 0:2, 0:2] = 1  # 8 voxels
    labels[2, 2, 2] = 1  # a ninth, over a corner: 26-connected
    labels[6, 6, 0:2] = 1  # 2 voxels
    labels[6, 7, 0:2] = 2  # 2 of another class, beside it
    return labels


def test_components_below_the_volume_become_background(labels):
    kept = remove_small_components(labels, minimum_ml=0.27, voxel_volume_ml=0.03)
    expected = np.zeros_like(labels)
    expected[0:2, 0:2, 0:2] = expected[2, 2, 2] = 1
    np.testing.assert_array_equal(kept, expected)
    assert kept.dtype == labels.dtype


def test_a_component_of_exactly_the_volume_stays(labels):
    np.testing.assert_array_equal(remove_small_components(labels, 0.06, 0.03), labels)
    assert (remove_small_components(labels, 0.0601, 0.03) == 2).sum() == 0


def test_nothing_asked_or_nothing_there(labels):
    np.testing.assert_array_equal(remove_small_components(labels, 0.0, 1.0), labels)
    empty = np.zeros((3, 3, 3), np.uint8)
    np.testing.assert_array_equal(remove_small_components(empty, 1.0, 1.0), empty)


def test_restored_measures_volume_on_the_cases_own_grid():
    affine = torch.diag(torch.tensor([2.0, 2.0, 10.0, 1.0], dtype=torch.float64))  # 0.04 ml a voxel
    image = MetaTensor(torch.zeros(1, 4, 4, 2), affine=affine)
    image.meta["original_affine"], image.meta["spatial_shape"] = affine.numpy(), np.array([4, 4, 2])
    logits = torch.zeros(2, 4, 4, 2)
    logits[1] = -1
    logits[1, 0, 0, :] = logits[1, 2:, 2:, 0] = 1  # 2 and 4 voxels
    restored = Restored(minimum_component_ml=0.1)({"image": image, "pred": logits})["pred"]
    assert restored.sum() == 4
    assert Restored()({"image": image, "pred": logits})["pred"].sum() == 6


def test_the_largest_component_of_the_classes_named_stays(labels):
    kept = keep_largest_component(labels, [1])
    expected = labels.copy()
    expected[6, 6] = 0
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(keep_largest_component(labels, []), labels)
    np.testing.assert_array_equal(keep_largest_component(labels, [7]), labels)


def test_holes_are_those_of_scipy_and_other_classes_stay():
    rng = np.random.default_rng(0)
    for shape in ((12, 10, 8), (17, 13)):
        labels = (rng.random(shape) < 0.75).astype(np.uint8)
        labels[rng.random(shape) < 0.1] = 2
        filled = fill_holes(labels, [1])
        expected = labels.copy()
        expected[ndimage.binary_fill_holes(labels == 1) & (labels == 0)] = 1
        np.testing.assert_array_equal(filled, expected)
        assert (filled != labels).any()


def test_a_hole_that_is_open_to_the_border_is_none():
    labels = np.ones((5, 5, 5), np.uint8)
    labels[2, 2, 2:] = 0
    np.testing.assert_array_equal(fill_holes(labels, [1]), labels)
    labels[2, 2, 4] = 1
    assert fill_holes(labels, [1]).all()


def test_restored_fills_then_drops():
    """The ring of class 1 counts with its hole: 9 pixels against 8 of the block."""
    scores = torch.zeros(2, 12, 12, 1)
    scores[0] = 0.5
    scores[1, 1:4, 1:4] = 1
    scores[1, 2, 2] = 0
    scores[1, 7:9, 7:11] = 1
    image = MetaTensor(torch.zeros(1, 12, 12, 1))
    image.meta["original_affine"], image.meta["spatial_shape"] = np.eye(4), [12, 12, 1]
    # scipy sees a volume of one slice as open above and below, so the hole is one of the section
    flat = {"image": MetaTensor(image[..., 0], meta=image.meta | {"spatial_shape": [12, 12]}), "pred": scores[..., 0]}
    cleaned = Restored(fill_holes=[1], largest_component=[1])(flat)["pred"][0]
    expected = torch.zeros(12, 12, dtype=torch.uint8)
    expected[1:4, 1:4] = 1
    assert torch.equal(cleaned.as_tensor(), expected)
    assert Restored()(flat)["pred"].sum() == 16
