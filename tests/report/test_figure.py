"""Pictures: which slices, which side, which shape; read back from the file where that says more than the code."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.errors import DataError
from pipeline.report import FigureCase, case_figure, demo_figure
from pipeline.report.figure import _aspect_ratio, _seen_from_the_feet

SPACING_MM = (1.0, 1.5, 6.0)


def brain(shape=(41, 53, 9)) -> np.ndarray:
    """An ellipsoid of tissue of 50 with air around it."""
    position = np.stack(np.meshgrid(*(np.linspace(-1.4, 1.4, n) for n in shape), indexing="ij"))
    return np.where((position**2).sum(axis=0) < 1, 50.0, 0.0).astype(np.float32)


def block(shape, *ranges) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*r) for r in ranges)] = 1
    return mask


def figure_case(reference=((10, 20), (20, 30), (3, 6)), prediction=((10, 20), (20, 30), (3, 6)), title="case"):
    cbf = brain()
    masks = [block(cbf.shape, *box) if box else np.zeros(cbf.shape, np.uint8) for box in (reference, prediction)]
    return FigureCase(title, {"cbf": cbf, "mtt": cbf / 10}, *masks, SPACING_MM)


def test_captions():
    box = ((10, 20), (20, 30), (3, 6))
    half = ((10, 20), (20, 30), (3, 9))  # 300 of 600 voxels: Dice 2 * 300 / (300 + 600)
    assert figure_case(box, half).caption == "Dice 0.67\nin all slices"
    assert figure_case(box, None).caption == "missed"
    assert figure_case(None, box).caption == "false alarm"
    assert figure_case(None, None).caption.split() == ["no", "lesion,", "none", "shown"]


def test_the_slice_with_the_most_outlined_area_is_shown():
    case = figure_case(((10, 14), (20, 30), (2, 7)), ((10, 20), (20, 30), (5, 6)))
    assert case.slices(1) == [5]


def test_slices_lie_apart_and_run_from_the_top():
    chosen = figure_case(((10, 20), (20, 30), (0, 9)), None).slices(3)
    assert chosen == sorted(chosen, reverse=True)
    assert len(chosen) == 3
    assert min(np.abs(np.diff(chosen))) >= 2


def test_a_case_without_any_outline_shows_the_largest_slice_of_tissue():
    assert figure_case(None, None).slices(1) == [4]


def test_one_slice_is_enough():
    volume = brain((21, 23, 1))
    case = FigureCase("one", {"cbf": volume + 1}, volume > 0, volume > 0, SPACING_MM)
    assert case.slices(3) == [0]


def test_the_patients_right_is_on_the_left_and_the_front_is_up():
    case = figure_case()
    right_front = np.zeros(brain().shape)
    right_front[30, 40, 4] = 1  # beyond the middle along R and A
    rows, columns = case.in_plane_box()
    shown = _seen_from_the_feet(right_front, case, 4)  # drawn with its first row at the bottom
    row, column = np.argwhere(shown)[0]
    assert (row, column) == (40 - columns.start, rows.stop - 1 - 30)
    assert row > shown.shape[0] / 2  # up: front
    assert column < shown.shape[1] / 2  # left: the patient's right


def test_panels_have_the_shape_of_the_body_in_mm():
    case = figure_case()
    occupied = np.argwhere(brain().any(axis=2))
    width, height = occupied.max(axis=0) - occupied.min(axis=0) + 1 + 6  # a margin of 3 voxels at each side
    assert _aspect_ratio(case) == pytest.approx(height * 1.5 / (width * 1.0))


def test_what_is_cropped_away_is_air():
    case = figure_case()
    assert case.channels["cbf"][case.in_plane_box()].sum() == case.channels["cbf"].sum()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_case_figure_is_written_in_the_format_of_its_suffix(tmp_path, suffix):
    case = figure_case()
    path = tmp_path / f"case.{suffix}"
    written = case_figure(case.channels, case.reference, case.prediction, SPACING_MM, "sub-01", path)
    assert written == path
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def colours(path) -> np.ndarray:
    return (imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)


def count_near(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - colour).max(axis=1) <= 6).sum())


def test_prediction_is_outlined_only_where_there_is_one(tmp_path):
    orange = (0xFF, 0x9D, 0x2E)
    drawn, empty = (
        demo_figure([case], tmp_path / "x.png") and count_near(colours(tmp_path / "x.png"), orange)
        for case in (figure_case(), figure_case(prediction=None))
    )
    assert drawn > empty + 100  # both have the legend's line


def test_rows_for_every_case(tmp_path):
    one = imread(demo_figure([figure_case()], tmp_path / "one.png")).shape
    four = imread(demo_figure([figure_case(title=str(i)) for i in range(4)], tmp_path / "four.png")).shape
    assert one[1] == four[1]
    assert four[0] > 2.5 * one[0]


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    demo_figure([figure_case()], tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before


def test_a_constant_and_an_empty_channel_can_be_drawn(tmp_path):
    volume = brain()
    channels = {"ct": np.full_like(volume, -1000), "flair": np.zeros_like(volume)}
    assert case_figure(channels, volume > 0, volume > 0, SPACING_MM, "odd", tmp_path / "x.png").is_file()


def test_volumes_of_different_shapes_are_refused():
    volume = brain()
    with pytest.raises(DataError, match="one 3D shape"):
        FigureCase("case", {"cbf": volume}, volume[:-1], volume, SPACING_MM)
    with pytest.raises(DataError, match="one 3D shape"):
        FigureCase("case", {"cbf": volume[..., 0]}, volume[..., 0], volume[..., 0], SPACING_MM)


def test_cases_of_different_channels_are_refused(tmp_path):
    volume = brain()
    other = FigureCase("other", {"ct": volume}, volume > 0, volume > 0, SPACING_MM)
    with pytest.raises(DataError, match="the same ones"):
        demo_figure([figure_case(), other], tmp_path / "x.png")
    with pytest.raises(DataError, match="the same ones"):
        demo_figure([], tmp_path / "x.png")
