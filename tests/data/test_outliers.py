"""What differs from its peers: values at the limit, mirror images, labels on the other side."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.fingerprint import MINIATURE_SIDE
from pipeline.data.outliers import mirrored, odd_ones, on_the_other_side


def test_one_far_value_does_not_set_the_scale():
    rng = np.random.default_rng(0)
    values = [*rng.normal(0, 1, 50), 1e9]
    assert odd_ones(values, 0.01).tolist() == [False] * 50 + [True]


def test_equal_values_leave_room_up_to_the_floor():
    assert odd_ones([1.0] * 9 + [1.09], floor=0.02).sum() == 0
    assert odd_ones([1.0] * 9 + [1.11], floor=0.02).sum() == 1


def test_too_few_are_no_peers():
    assert not odd_ones([1, 1, 1, 1, 1000], 0.01).any()
    assert mirrored({str(i): bytes(MINIATURE_SIDE**3) for i in range(3)}) == {}
    assert on_the_other_side({"a": (0.1, 0.5, 0.5)}) == {}


def miniatures(number: int, symmetric: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    base = rng.random((MINIATURE_SIDE,) * 3)
    if symmetric:
        base = base + base[::-1]
    noisy = {f"{i:02d}": base + rng.normal(0, 0.2, base.shape) for i in range(number)}
    return {name: np.clip(100 * cube, 0, 255).astype(np.uint8) for name, cube in noisy.items()}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_picture_is_found_and_no_other(axis):
    cubes = miniatures(12, symmetric=False)
    cubes["05"] = np.flip(cubes["05"], axis)
    assert mirrored({name: cube.tobytes() for name, cube in cubes.items()}) == {"05": axis}


def test_what_is_symmetric_is_never_called_mirrored():
    cubes = miniatures(12, symmetric=True)
    cubes["05"] = np.flip(cubes["05"], 0)
    assert mirrored({name: cube.tobytes() for name, cube in cubes.items()}) == {}


def test_unlike_pictures_are_not_judged():
    rng = np.random.default_rng(4)
    cubes = {str(i): rng.integers(0, 255, MINIATURE_SIDE**3, dtype=np.uint8).tobytes() for i in range(20)}
    assert mirrored(cubes) == {}


def test_a_label_on_the_other_side():
    rng = np.random.default_rng(5)
    centres = {str(i): rng.normal((0.7, 0.5, 0.4), 0.02) for i in range(20)}
    assert on_the_other_side(centres) == {}
    centres["7"][0] = 0.3
    assert on_the_other_side(centres) == {"7": 0}
    centres["7"][0] = 0.05  # on the other side, but not where a mirror would put it
    assert on_the_other_side(centres) == {}


@pytest.mark.parametrize(("number", "found"), [(6, {}), (14, {}), (15, {"0": 0})])
def test_of_a_few_lesions_most_lie_on_one_side_by_chance(number, found):
    heights = np.linspace(0.3, 0.7, number)
    centres = {str(i): np.array([0.7 + 0.002 * i, 0.5, heights[i]]) for i in range(number)}
    centres["0"][0] = 0.3
    assert on_the_other_side(centres) == found


def test_an_organ_needs_no_more_than_six_to_have_a_side():
    centres = {str(i): np.array([0.7 + 0.002 * i, 0.5, 0.5]) for i in range(6)}
    centres["0"][0] = 0.3
    assert on_the_other_side(centres) == {"0": 0}
