"""Statistics of intensities against numpy; sampling, background and absurd voxels at their edges."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.fingerprint import MINIATURE_SIDE, PERCENTILES
from pipeline.data.intensities import absurd_voxels, background_value, body_shape, intensities, miniature, sample


@pytest.mark.parametrize("order", ["C", "F"])
def test_all_and_body_are_those_of_numpy(order):
    rng = np.random.default_rng(0)
    array = rng.normal(40, 9, (13, 17, 11)).astype(np.float32)
    array[:5] = 0
    array = np.asarray(array, order=order)
    everything, body = intensities(array, 0.0)
    for found, values in ((everything, array.ravel()), (body, array[array != 0])):
        values = values.astype(np.float64)
        assert found.count == values.size
        assert (found.minimum, found.maximum) == (values.min(), values.max())
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-9)
        assert found.percentiles == pytest.approx(np.percentile(values, PERCENTILES))


def test_of_a_large_volume_the_percentiles_are_close_and_the_rest_exact():
    rng = np.random.default_rng(1)
    array = rng.normal(0, 1, (256, 128, 64)).astype(np.float32)
    found, _ = intensities(array)
    assert found.std == pytest.approx(array.std(dtype=np.float64), rel=1e-9)
    assert found.percentiles == pytest.approx(np.percentile(array, PERCENTILES), abs=0.02)


@pytest.mark.parametrize("shape", [(256, 256, 64), (100, 100, 300), (7,), (1, 1, 1)])
def test_a_sample_sees_every_slice(shape):
    slices = np.broadcast_to(np.arange(shape[-1]), shape).copy()
    assert set(np.unique(sample(slices))) == set(range(shape[-1]))


def test_a_constant_volume_has_no_body():
    array = np.zeros((3, 4, 5), np.float32)
    everything, body = intensities(array, background_value(array))
    assert (everything.std, body) == (0, None)
    assert body_shape(array, 0.0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("values", "background"),
    [
        ([0] * 5 + list(range(1, 96)), 0.0),  # exactly 5%
        ([0] * 4 + list(range(1, 97)), None),
        ([-1024] * 10 + list(range(90)), -1024.0),
        (list(range(100)), None),
        ([0] * 50 + [-3] * 50, 0.0),  # zeros win over a lower value
    ],
)
def test_what_stands_for_outside_the_body(values, background):
    assert background_value(np.array(values, np.float32).reshape(10, 10)) == background


def test_the_box_of_the_body():
    array = np.zeros((6, 7, 8), np.float32)
    array[1:3, 2:6, 7] = 4
    assert body_shape(array, 0.0) == (2, 4, 1)
    assert body_shape(array, None) == (6, 7, 8)


@pytest.mark.parametrize(("value", "count"), [(1e30, 1), (-1e30, 1), (400.0, 0), (2e5, 1)])
def test_absurd_is_a_thousand_times_the_range_away(value, count):
    array = np.linspace(0, 100, 1000, dtype=np.float32).reshape(10, 10, 10)
    array[5, 5, 5] = value
    assert absurd_voxels(array, intensities(array)[0]) == count


def test_a_miniature_is_the_same_in_every_order_of_axes():
    rng = np.random.default_rng(2)
    array = rng.random((24, 36, 12)).astype(np.float32)
    stored = np.transpose(array[::-1], (2, 0, 1))
    to_ras = np.zeros((4, 4))
    to_ras[2, 0] = to_ras[1, 2] = to_ras[3, 3] = 1  # first axis up, third to the front
    to_ras[0, 1] = -1  # second to the left
    small = miniature(array, np.eye(4))
    assert len(small) == MINIATURE_SIDE**3
    assert miniature(stored, to_ras) == small


def test_a_miniature_of_few_slices_repeats_them():
    array = np.zeros((24, 24, 2), np.float32)
    array[..., 1] = 1
    cube = np.frombuffer(miniature(array, np.eye(4)), np.uint8).reshape((MINIATURE_SIDE,) * 3)
    assert cube[..., : MINIATURE_SIDE // 2].max() == 0
    assert cube[..., MINIATURE_SIDE // 2 :].min() == 255
