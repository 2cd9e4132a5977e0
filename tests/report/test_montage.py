"""Planes of a case: through what is wrong, right way round, a millimetre as long in every direction."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.case_volumes import CaseVolumes
from pipeline.geometry import Grid
from pipeline.report.montage import montage
from tests.report.conftest import GRID, label_map


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def case(reference, prediction, grid=GRID):
    return CaseVolumes("a", "t1", np.random.default_rng(0).random(reference.shape), grid, reference, prediction)


def test_proportions_are_those_of_the_body_and_outlines_lie_over_the_same_pixels():
    reference, prediction = label_map(slice(4, 8)), label_map(slice(4, 6))
    planes = montage(case(reference, prediction))
    assert [plane.name for plane in planes] == ["axial", "coronal", "sagittal"]
    assert [plane.size_mm for plane in planes] == [(24, 40), (24, 40), (40, 40)]
    for plane in planes:
        assert plane.size[0] / plane.size[1] == plane.size_mm[0] / plane.size_mm[1] or plane.size == (230, 384)
        assert pixels(plane.grey).shape == plane.size[::-1]
        assert pixels(plane.outlines).shape == (*plane.size[::-1], 4)


def test_the_slice_with_the_most_wrong_voxels_is_shown():
    reference = label_map(slice(4, 8))
    prediction = reference.copy()
    prediction[15:20, 2:6, 8] = 1  # towards the patient's right, at the back, above the rest
    axial, coronal, sagittal = montage(case(reference, prediction))[:3]
    assert axial.words == "slice 9 of 10"
    rows, columns = np.nonzero(pixels(axial.outlines)[..., 3])
    assert columns.mean() < axial.size[0] / 2  # right is left
    assert rows.mean() > axial.size[1] / 2  # the front is up
    assert np.nonzero(pixels(coronal.outlines)[..., 3])[0].min() < coronal.size[1] * 0.2  # the head is up
    assert np.nonzero(pixels(sagittal.outlines)[..., 3])[1].max() > sagittal.size[0] * 0.8  # the front is left


def test_the_same_pictures_from_any_order_of_axes():
    reference, prediction = label_map(slice(4, 8)), label_map(slice(5, 9))
    own = case(reference, prediction)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -4, 1, 2, 1
    affine[2, 3] = 36
    turned = [np.transpose(v, (2, 0, 1))[::-1] for v in (own.image, reference, prediction)]
    other = CaseVolumes("a", "t1", turned[0], Grid(turned[0].shape, affine), turned[1], turned[2])
    assert montage(other) == montage(own)


def test_what_is_small_is_enlarged():
    reference = np.zeros((60, 60, 60), np.uint8)
    reference[30:33, 30:33, 30:33] = 1
    planes = montage(case(reference, reference, Grid(reference.shape, np.eye(4))))
    assert [plane.close_up for plane in planes] == [False] * 3 + [True] * 3
    assert planes[3].size_mm == (23, 23)


def test_a_section_is_one_picture_as_it_is_stored():
    ids = np.zeros((20, 40), np.uint8)
    ids[2:18, 2:38] = 1
    [plane] = montage(case(ids, ids, Grid(ids.shape, np.diag([2.0, 1.0, 1.0, 1.0]))))
    assert (plane.name, plane.size) == ("section", (384, 384))


def test_the_part_of_a_full_section_in_which_most_is_wrong_is_enlarged():
    reference = np.zeros((40, 80), np.uint8)
    reference[2:38, 2:78] = 1
    prediction = reference.copy()
    prediction[34:38, 66:78] = 0
    prediction[2, 2] = 0
    whole, part = montage(case(reference, prediction, Grid(reference.shape, np.eye(4))))
    assert (whole.size_mm, part.size_mm, part.close_up) == ((80, 40), (20, 10), True)
    assert part.size == whole.size  # so enlarged fourfold
    # The part is the corner: what is outlined ends two pixels before its lower and right edges.
    rows, columns = np.nonzero(pixels(part.outlines)[..., 3])
    below, beside = part.size[1] - 1 - rows.max(), part.size[0] - 1 - columns.max()
    assert (below, beside) == pytest.approx((2 * 19.2, 2 * 19.2), abs=2)
