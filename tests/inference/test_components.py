"""Small components go, each class on its own; what is large enough stays voxel for voxel."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.inference import Restored, remove_small_components


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
