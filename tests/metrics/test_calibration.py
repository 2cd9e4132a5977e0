"""Calibration against loops over voxels, by hand, and what is refused."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.metrics import calibration, calibration_measures


def voxel_by_voxel(probabilities, reference, bins):
    brier, content = 0.0, {}
    for index in np.ndindex(reference.shape):
        voxel = probabilities[(slice(None), *index)].astype(float)
        brier += sum((p - (k == reference[index])) ** 2 for k, p in enumerate(voxel))
        number = next(b for b in range(bins) if voxel.max() <= (b + 1) / bins)
        content.setdefault(number, []).append((voxel.max(), voxel.argmax() == reference[index]))
    gaps = {b: abs(np.mean([p for p, _ in of]) - np.mean([right for _, right in of])) for b, of in content.items()}
    ece = sum(len(content[b]) * gap for b, gap in gaps.items()) / reference.size
    return brier / reference.size, ece, max(gaps.values())


@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 5)])
@pytest.mark.parametrize("classes", [2, 4])
def test_measures_equal_a_loop_over_voxels(monkeypatch, shape, classes):
    monkeypatch.setattr(calibration, "_BLOCK_VOXELS", 7)  # several blocks, the last one smaller
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.ones(classes), size=shape)
    probabilities = np.moveaxis(probabilities, -1, 0)
    reference = rng.integers(0, classes, size=shape)
    found = calibration_measures(torch.from_numpy(probabilities), reference, bins=10)
    expected = voxel_by_voxel(probabilities.astype(np.float32), reference, 10)
    assert [found.brier, found.ece, found.maximum_calibration_error] == pytest.approx(expected, rel=1e-5)
    assert found.voxels == reference.size
    if classes == 2:
        assert calibration_measures(probabilities[1:], reference, bins=10).brier == pytest.approx(found.brier)


def test_certain_and_right_is_perfect_certain_and_wrong_the_worst():
    reference = np.array([[0, 1], [1, 0]])
    certain = np.stack([reference == 0, reference == 1]).astype(np.float16)
    right, wrong = calibration_measures(certain, reference), calibration_measures(certain[::-1], reference)
    assert (right.brier, right.ece) == (0, 0)
    assert (wrong.brier, wrong.ece, wrong.maximum_calibration_error) == (2, 1, 1)


EVEN = np.full((2, 3, 3), 0.5)


@pytest.mark.parametrize(
    ("probabilities", "reference", "message"),
    [
        (np.full((2, 3, 3), 4.2), np.zeros((3, 3), int), "softmax"),
        (np.stack([np.full((3, 3), -0.3), np.full((3, 3), 1.3)]), np.zeros((3, 3), int), "from -0.3 to 1.3"),
        (np.full((2, 3, 3), np.nan), np.zeros((3, 3), int), "probabilities from nan"),
        (EVEN, np.zeros((3, 4), int), "of shape"),
        (EVEN, np.full((3, 3), 2), "reference ids from 2 to 2"),
        (EVEN, np.full((3, 3), 0.5), "not whole"),
    ],
)
def test_what_is_refused(probabilities, reference, message):
    with pytest.raises(DataError, match=message):
        calibration_measures(probabilities, reference)
    with pytest.raises(ConfigError, match="bins"):
        calibration_measures(EVEN, np.zeros((3, 3), int), bins=0)
