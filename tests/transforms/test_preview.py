"""What a preview shows: alone what is alone, ordered by strength, and numbers that are right."""

import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandGaussianNoised

from pipeline.errors import ConfigError
from pipeline.transforms import RandBlurd, RandBrightnessd, RandSpatialPatchd, ZeroAbsentChannelsd
from pipeline.transforms.preview import preview, smallest_jacobian

SPACING = (1.0, 1.0, 4.0)


def item() -> dict:
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(2, 21, 18, 6)), np.zeros((1, 21, 18, 6))
    label[0, 12:16, 4:8, 2:4] = 1
    affine = np.diag([*SPACING, 1.0])
    return {
        "case_id": "a",
        "image": MetaTensor(torch.from_numpy(image.astype(np.float32)), affine=affine),
        "label": MetaTensor(torch.from_numpy(label.astype(np.uint8)), affine=affine),
    }


def steps(**spatial) -> dict:
    return {
        "spatial": RandSpatialPatchd(["image", "label"], patch_size=[10, 12, 6], **spatial),
        "bright": RandBrightnessd("image", prob=0.1, offset=[0.0, 1.0], channel_wise=True),
        "monai": RandGaussianNoised("image", prob=0.2, std=0.1),
        "absent": ZeroAbsentChannelsd("image"),
    }


def grid(matrix: np.ndarray, shape=(6, 7, 5), spacing=SPACING) -> np.ndarray:
    axes = [np.arange(size) * side for size, side in zip(shape, spacing, strict=True)]
    return np.tensordot(matrix, np.stack(np.meshgrid(*axes, indexing="ij")), axes=1)


def test_smallest_jacobian():
    assert smallest_jacobian(grid(np.diag([0.8, 0.5, 1.1])), SPACING) == pytest.approx(0.44)
    shear = np.array([[1.0, 0.7, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    assert smallest_jacobian(grid(shear), SPACING) == pytest.approx(1)
    assert smallest_jacobian(grid(np.diag([-0.8, 1.0, 1.0])), SPACING) == pytest.approx(0.8)
    folded = grid(np.eye(3))
    folded[0, 3:] -= 1.5  # steps of 1 and once of -0.5
    assert smallest_jacobian(folded, SPACING) == pytest.approx(-0.5)
    flat = grid(np.diag([0.5, 1.0, 1.0]))[..., :1]
    assert smallest_jacobian(flat, SPACING) == pytest.approx(0.5)


def test_a_sections_pixels_have_no_size():
    section = {"case_id": "a", "image": MetaTensor(torch.rand(1, 21, 18), affine=torch.eye(4))}
    spatial = RandSpatialPatchd(["image"], patch_size=[10, 12], affine_probability=1.0, elastic_probability=0.0)
    blur = RandBlurd("image", prob=1.0, sigma_mm=[0.5, 1.0])
    rows = preview(section, {"spatial": spatial, "smooth": blur}).rows
    for row, said in (("rotation", r"moved by [\d.]+ px \(RMS\)"), ("smooth", r"sigma [\d.]+ px\n")):
        assert rows[row]
        assert all(re.search(said, panel.words) for panel in rows[row])


def test_rows_and_their_order():
    shown = preview(item(), steps(affine_probability=0.3, elastic_probability=0.2, scaling=(0.8, 1.2)), channel=1)
    assert list(shown.rows) == ["rotation", "scaling", "elastic", "bright", "monai", "all together"]
    assert shown.probabilities == {"rotation": 0.3, "scaling": 0.3, "elastic": 0.2, "bright": 0.1, "monai": 0.2}
    assert shown.spacing_mm == SPACING
    before = shown.before
    np.testing.assert_array_equal(before.image, np.asarray(item()["image"])[:, 8:18, 0:12, 0:6])  # the label's middle
    assert before.label.sum() == np.asarray(item()["label"]).sum()
    # A brightness changes nothing but the mean: the panels' words are its offsets, in order, of the channel asked for.
    offsets = [float((panel.image - before.image)[1].mean()) for panel in shown.rows["bright"]]
    assert offsets == sorted(offsets)
    assert offsets[1] == pytest.approx(0.5, abs=0.15)
    for offset, panel in zip(offsets, shown.rows["bright"], strict=True):
        assert panel.words.startswith(f"offset {offset:.2g}\n")
        assert panel.coordinates is None
        np.testing.assert_array_equal(panel.label, before.label)
    moved = [float(panel.words.split()[2]) for panel in shown.rows["elastic"]]
    assert 0 < moved[0] < moved[1] < moved[2]
    for panel in shown.rows["all together"]:
        assert ("smallest Jacobian" in panel.words) == (panel.coordinates is not None)
    still = preview(item(), steps(affine_probability=0.0, elastic_probability=0.0), draws=5)
    assert [panel.words for panel in still.rows["all together"]] == ["not deformed"] * 3


def test_a_rotation_alone_keeps_volumes():
    shown = preview(item(), steps(affine_probability=1.0, elastic_probability=0.0, scaling=(0.5, 0.6)), draws=11)
    for panel in shown.rows["rotation"]:
        assert smallest_jacobian(panel.coordinates, SPACING) == pytest.approx(1, abs=1e-4)
    assert "elastic" not in shown.rows
    for panel in shown.rows["scaling"]:
        assert 1 / 0.6**3 <= smallest_jacobian(panel.coordinates, SPACING) <= 1 / 0.5**3


def test_the_same_seed_shows_the_same_and_changes_no_step():
    chain = steps(affine_probability=0.5)
    first, again = preview(item(), chain, draws=9, seed=4), preview(item(), chain, draws=9, seed=4)
    for name, panels in first.rows.items():
        for one, other in zip(panels, again.rows[name], strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            assert one.words == other.words
    assert chain["bright"].prob == 0.1
    assert chain["spatial"].affine_probability == 0.5


def test_a_chain_without_a_patch():
    with pytest.raises(ConfigError, match="bright as the first random step"):
        preview(item(), {"bright": steps()["bright"]})
    with pytest.raises(ConfigError, match="RandSpatialPatchd"):
        preview(item(), {})
