"""What weights were trained on, and which case is unlike it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.trained_on import FILE, TrainedOn
from pipeline.errors import DataError
from pipeline.geometry import Grid


def grid(shape, spacing, order=(0, 1, 2), signs=(1, 1, 1)) -> Grid:
    """Array axis i is world axis ``order[i]``."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, side, sign) in enumerate(zip(order, spacing, signs, strict=True)):
        affine[world, axis] = sign * side
    return Grid(shape, affine)


@pytest.fixture
def seen() -> TrainedOn:
    known = TrainedOn.of(
        [grid((200, 220, 20), (1, 1, 6)), grid((180, 240, 16), (0.9, 0.9, 8)), Grid((9, 9), np.eye(4))]
    )
    assert known is not None
    return known


def test_ranges_are_those_of_the_volumes(seen):
    assert seen.cases == 2
    assert seen.spacing_mm == ((0.9, 0.9, 6.0), (1.0, 1.0, 8.0))
    assert seen.extent_mm == ((162.0, 216.0, 120.0), (200.0, 220.0, 128.0))


def test_a_case_like_them_has_no_remark_in_whatever_order_its_axes_lie(seen):
    assert seen.remarks(grid((19, 230, 190), (7, 1, 1), order=(2, 1, 0), signs=(-1, 1, -1))) == []


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (grid((200, 220, 20), (1, 1, 20)), ["voxels of 1x1x20 mm", "a volume of 200x220x400 mm"]),
        (grid((10, 11, 7), (20, 20, 20)), ["voxels of 20x20x20 mm, they had 0.9x0.9x6 to 1x1x8"]),
        (grid((400, 440, 20), (0.4, 0.5, 6)), ["voxels of 0.4x0.5x6 mm"]),
        (grid((60, 60, 20), (1, 1, 6)), ["a volume of 60x60x120 mm, they had 162x216x120 to 200x220x128"]),
    ],
)
def test_a_case_far_outside_is_said_to_be_so(seen, case, words):
    remarks = seen.remarks(case)
    assert len(remarks) == len(words)
    for remark, expected in zip(remarks, words, strict=True):
        assert remark.startswith("unlike the training cases: ")
        assert expected in remark


def test_sections_have_no_size(seen):
    assert TrainedOn.of([Grid((9, 9), np.eye(4))]) is None
    assert seen.remarks(Grid((9, 9), np.eye(4))) == []


def test_it_is_kept_beside_the_weights(seen, tmp_path):
    assert TrainedOn.read(tmp_path) is None
    seen.write(tmp_path)
    assert TrainedOn.read(tmp_path) == seen
    (tmp_path / FILE).write_text(
        '{"cases": 2, "spacing_mm": [1, 2], "extent_mm": [[1, 1, 1], [2, 2, 2]]}', encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"damaged record.*no range per axis"):
        TrainedOn.read(tmp_path)
