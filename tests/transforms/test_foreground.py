import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.transforms import ForegroundIndicesd
from pipeline.transforms.foreground import foreground_voxels


def test_finds_every_voxel_of_every_class():
    label = np.random.default_rng(0).integers(0, 4, (7, 5, 3)).astype(np.uint8)
    found = foreground_voxels(label)
    assert sorted(found) == [1, 2, 3]
    for value, voxels in found.items():
        np.testing.assert_array_equal(voxels, np.argwhere(label == value))
    assert foreground_voxels(np.zeros((3, 3, 3), np.uint8)) == {}


def test_the_limit_draws_alike_every_time():
    label = np.ones((20, 20, 20), np.uint8)
    first, second = foreground_voxels(label, limit=50)[1], foreground_voxels(label, limit=50)[1]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 50


def test_item_without_label_passes():
    assert ForegroundIndicesd()({"image": 1}) == {"image": 1}
    with pytest.raises(DataError, match="case a"):
        ForegroundIndicesd()({"label": torch.zeros(4, 4, 4), "case_id": "a"})
