"""Pictures of a case: which slices, which way up, in which proportions, and where the lines are."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.handlers import case_panel, overlay_rgb, pick_slices
from pipeline.handlers.panel import _GAP_PX, _SIDE_PX, _TEXT_PX, PREDICTION_COLOURS, REFERENCE_COLOURS, robust_window

HEADING_PX = _TEXT_PX + _GAP_PX + 2
LEGEND_PX = 2 * HEADING_PX


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mask of the pixels of one colour."""
    return (picture == np.array(colour)).all(-1)


def test_a_slice_has_its_physical_proportions():
    image = np.zeros((20, 40))
    assert overlay_rgb(image, scale=2.0).shape == (40, 80, 3)
    assert overlay_rgb(image, scale=2.0, pixel_aspect=5.0).shape == (200, 80, 3)
    # Small slices are enlarged to a legible size, large ones stay as they are.
    assert max(overlay_rgb(image, pixel_aspect=0.5).shape) == _SIDE_PX
    assert overlay_rgb(np.zeros((700, 600))).shape == (700, 600, 3)


def test_grey_values_follow_the_window():
    image = np.array([[0.0, 10.0], [20.0, np.nan]])
    picture = overlay_rgb(image, scale=1.0, window=(0.0, 20.0))
    assert picture.dtype == np.uint8
    assert (picture[..., 0] == picture[..., 2]).all()
    assert [picture[0, 0, 0], picture[0, 1, 0], picture[1, 0, 0], picture[1, 1, 0]] == [0, 128, 255, 0]
    assert robust_window(np.zeros((3, 3))) == (0.0, 1.0)
    assert robust_window(np.full((3, 3), 7.0)) == (7.0, 8.0)


def test_lines_lie_inside_what_they_outline_and_both_are_seen_where_they_agree():
    label = np.zeros((10, 10), dtype=int)
    label[2:8, 3:9] = 1
    picture = overlay_rgb(np.zeros((10, 10)), label, label, scale=8.0)
    reference, prediction = where(picture, REFERENCE_COLOURS[0]), where(picture, PREDICTION_COLOURS[0])
    box = np.zeros((80, 80), dtype=bool)
    box[16:64, 24:72] = True
    inner, innermost = np.zeros_like(box), np.zeros_like(box)
    inner[18:62, 26:70] = True
    innermost[20:60, 28:68] = True
    np.testing.assert_array_equal(prediction, box & ~inner)
    np.testing.assert_array_equal(reference, inner & ~innermost)


def test_every_class_has_its_own_colours():
    reference, prediction = np.zeros((2, 12, 12), dtype=int)
    reference[1:5, 1:5], reference[7:11, 1:5] = 1, 2
    prediction[1:5, 7:11], prediction[7:11, 7:11] = 1, 2
    picture = overlay_rgb(np.zeros((12, 12)), reference, prediction, scale=8.0)
    assert len({*REFERENCE_COLOURS, *PREDICTION_COLOURS}) == len(REFERENCE_COLOURS) + len(PREDICTION_COLOURS)
    for colours, label_map in ((REFERENCE_COLOURS, reference), (PREDICTION_COLOURS, prediction)):
        for class_id in (1, 2):
            drawn = where(picture, colours[class_id - 1])
            assert drawn.any()
            assert (np.kron(label_map, np.ones((8, 8)))[drawn] == class_id).all()


def test_slices_are_spread_over_the_reference_and_include_the_worst():
    reference = np.zeros((4, 4, 20), dtype=int)
    reference[1:3, 1:3, 5:15] = 1
    assert pick_slices(reference, reference, 2) == [7, 12]
    wrong = reference.copy()
    wrong[:, :, 18] = 1
    assert pick_slices(reference, wrong, 3) == [7, 12, 18]
    # The spread ones stay where they are while the prediction changes.
    assert set(pick_slices(reference, np.zeros_like(reference), 3)) >= {7, 12}
    assert pick_slices(np.moveaxis(reference, 2, 0), np.moveaxis(wrong, 2, 0), 3, axis=0) == [7, 12, 18]


def test_slices_where_there_is_little_to_see():
    empty = np.zeros((4, 4, 6), dtype=int)
    assert pick_slices(empty, None, 3) == [0, 2, 4]
    assert pick_slices(empty, empty, 9) == [0, 1, 2, 3, 4, 5]
    alarm = empty.copy()
    alarm[0, 0, 3] = 1
    assert 3 in pick_slices(empty, alarm, 2)
    assert len(pick_slices(alarm, empty, 3)) == 3


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAI", "SRP", "PIR", "ASL"])
@pytest.mark.parametrize("thick", ["S", "A", "R"])
def test_any_axis_order_gives_the_same_picture(orientation, thick):
    """A phantom in RAS and the same stored otherwise; the bright corner is right, anterior, superior."""
    import nibabel

    rng = np.random.default_rng(0)
    image = rng.random((9, 11, 7)) + 1
    image[5:, 6:, 4:] += 4
    label = (image > 4).astype(int)
    spacing = np.array([5.0 if code == thick else 1.0 for code in "RAS"])
    expected = case_panel(image, label, np.roll(label, 1, 0), spacing, "RAS", slices=99)

    to_ras = nibabel.orientations.axcodes2ornt("RAS")
    turn = nibabel.orientations.ornt_transform(to_ras, nibabel.orientations.axcodes2ornt(orientation))
    volumes = [nibabel.orientations.apply_orientation(v, turn) for v in (image, label, np.roll(label, 1, 0))]
    order = np.argsort(turn[:, 0])
    turned = case_panel(*volumes, spacing[order], orientation, slices=99)
    # Where slices are counted from the other end, headings and their order differ: compare what is below them.
    count = image.shape["RAS".index(thick)]
    pitch = (expected.shape[1] + _GAP_PX) // count
    tiles = [
        sorted(picture[HEADING_PX:-LEGEND_PX, i * pitch : (i + 1) * pitch - _GAP_PX].tobytes() for i in range(count))
        for picture in (expected, turned)
    ]
    assert len(set(tiles[0])) == count
    assert tiles[0] == tiles[1]


def test_the_patients_right_is_left_and_the_front_is_up():
    image = np.ones((30, 40, 3))
    image[20:, 30:] = 9  # right and anterior in RAS
    panel = case_panel(image, np.zeros(image.shape, dtype=int), None, (1.0, 1.0, 5.0), "RAS", slices=1, window=(0, 10))
    plain = panel[HEADING_PX : HEADING_PX + _SIDE_PX, :, 0]
    height, width = plain.shape
    assert np.median(plain[: height // 5, : width // 4]) > 200
    assert np.median(plain[: height // 5, -width // 4 :]) < 50
    assert np.median(plain[-height // 5 :, : width // 4]) < 50


def test_volumes_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match="one shape"):
        case_panel(np.zeros((3, 4, 5)), np.zeros((3, 4, 6), dtype=int))
