"""The picture of an augmentation: which slice, which way up, and that everything is drawn."""

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.report.augmentation import _Cut, augmentation_figure
from pipeline.transforms.preview import Panel, Preview


def panel(shape=(8, 10, 6), words="", deformed=False) -> Panel:
    rng = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    label[2:4, 3:8] = 1
    places = np.stack(np.meshgrid(*[np.arange(n) * 2.0 for n in shape], indexing="ij")) if deformed else None
    return Panel(rng.normal(size=(2, *shape)).astype(np.float32), label, places, words)


def test_the_slice_across_the_thickest_axis_or_with_the_most_label():
    thick = _Cut(panel(), (1.0, 1.0, 5.0))
    assert (thick.axis, thick.shown) == (2, (0, 1))
    label = np.zeros((8, 10, 6), np.uint8)
    label[5, 1:9, 1:5] = 1
    even = _Cut(Panel(np.zeros((1, 8, 10, 6)), label, None, ""), (1.0, 1.0, 1.0))
    assert (even.axis, even.index, even.shown) == (0, 5, (1, 2))
    assert even.height_per_width == pytest.approx(0.6)


def test_front_left_and_up_are_where_they_belong():
    marked = np.zeros((8, 10, 6))
    marked[5, 9, 5] = 1  # the front, above
    label = np.zeros((8, 10, 6), np.uint8)
    label[5, 1:9, 1:5] = 1
    cut = _Cut(Panel(np.zeros((1, 8, 10, 6)), label, None, ""), (1.0, 1.0, 1.0))
    assert np.argwhere(cut(marked)).tolist() == [[5, 0]]  # top row (drawn upwards), first column
    assert cut.options["origin"] == "lower"
    section = _Cut(panel((9, 12)), (1.0, 1.0))
    assert section.options["origin"] == "upper"
    np.testing.assert_array_equal(section(np.arange(108).reshape(9, 12)), np.arange(108).reshape(9, 12))


@pytest.mark.parametrize(("shape", "spacing"), [((8, 10, 6), (2.0, 2.0, 2.0)), ((9, 12), (2.0, 2.0))])
def test_the_grid_is_drawn_over_deformed_patches_alone(tmp_path, shape, spacing):
    def picture(deformed: bool) -> np.ndarray:
        panels = [panel(shape, "moved", deformed)] * 3
        shown = Preview(panel(shape), {"elastic": panels, "all together": panels}, {"elastic": 0.3}, spacing)
        return imread(augmentation_figure(shown, 1, "title", tmp_path / f"{deformed}.png"))[..., :3]

    plain, with_grid = picture(False), picture(True)
    assert plain.shape == with_grid.shape
    different = (plain != with_grid).any(-1)
    width = different.shape[1]
    assert different[:, width // 2 :].any()
    assert not different[:, : int(width * (1.25 + 1.75) / (1.25 + 4 * 1.75 + 0.1)) - 8].any()  # names, and `before`
