"""The chain in 2D: sections from files to what a network sees."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from pipeline.errors import ConfigError, GeometryError, LabelError
from pipeline.io import write_section
from pipeline.transforms import (
    ForegroundIndicesd,
    LoadImageStackd,
    NormalizeChannelsd,
    RandSpatialPatchd,
    SpatialPatchParameters,
    sample_patch,
)
from pipeline.transforms.patch_map import source_coordinates

SHAPE = (40, 31)
RNG = np.random.default_rng(0)


def files(folder, values=(0, 255), shape=SHAPE):
    image, label = RNG.integers(1, 256, SHAPE), RNG.choice(values, shape)
    write_section(folder / "00.png", image)
    write_section(folder / "label.png", label)
    return {"case_id": "00", "image": str(folder / "00.png"), "label": str(folder / "label.png")}, image, label


def section(shape=SHAPE, spacing=(1.0, 1.0)):
    affine = torch.diag(torch.tensor([*spacing, 1.0, 1.0], dtype=torch.float64))
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[0, 3, 4], label[0, 20:30, 10:20] = 2, 1
    weight = 1 + 3 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine), "weight": weight}


def patches(**options):
    options = {"keys": ["image", "label", "weight"], "patch_size": (16, 12), **options}
    return RandSpatialPatchd(**options)


def test_a_section_is_loaded_with_its_label_values_as_ids(tmp_path):
    item, image, label = files(tmp_path)
    loaded = LoadImageStackd(channels=["em"], labels={"1": "cell"}, label_values={"1": 255})(item)
    assert loaded["image"].shape == (1, *SHAPE)
    np.testing.assert_array_equal(loaded["image"][0], image)
    np.testing.assert_array_equal(loaded["label"][0], label // 255)
    assert loaded["label"].dtype == torch.uint8
    assert loaded["image"].meta["spatial_shape"].tolist() == list(SHAPE)
    foreground = ForegroundIndicesd()(loaded)["foreground"]
    np.testing.assert_array_equal(np.sort(foreground[1], axis=0), np.sort(np.argwhere(label), axis=0))
    normal = NormalizeChannelsd("image", ["em"], {"em": {"scheme": "z_score"}})(loaded)["image"]
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std()) == pytest.approx(1, rel=1e-2)


def test_a_label_that_numbers_objects_gives_the_class_and_the_numbers(tmp_path):
    item, _, numbers = files(tmp_path, values=(0, 3, 9, 260))
    loaded = LoadImageStackd(channels=["microscopy"], labels={"1": "nucleus"}, label_holds="instances")(item)
    np.testing.assert_array_equal(loaded["label"][0], numbers > 0)
    np.testing.assert_array_equal(loaded["label_instances"][0], numbers)
    assert loaded["label_instances"].meta["case_id"] == loaded["label"].meta["case_id"] == "00"
    with pytest.raises(ConfigError, match="expected one class"):
        LoadImageStackd(channels=["microscopy"], labels=[1, 2], label_holds="instances")


def test_what_label_values_do_not_name_is_refused(tmp_path):
    item, *_ = files(tmp_path, values=(0, 7, 255))
    with pytest.raises(LabelError, match=r"label ids 7 .* 0, 255"):
        LoadImageStackd(channels=["em"], labels=[1], label_values={1: 255})(item)
    with pytest.raises(LabelError, match=r"label ids 7 .*, 255 .*"):
        LoadImageStackd(channels=["em"], labels=[1])(item)
    loaded = LoadImageStackd(channels=["em"], label_values={1: 255, 255: 0, 0: 7})(item)
    assert sorted(np.unique(loaded["label"])) == [0, 1, 255]  # each once: no value is mapped twice
    with pytest.raises(ConfigError, match="another value for each id"):
        LoadImageStackd(channels=["em"], label_values={1: 255, 2: 255})
    other, *_ = files(tmp_path, shape=(4, 4))
    with pytest.raises(GeometryError, match="4x4 pixels"):
        LoadImageStackd(channels=["em"])(other)
    write_section(tmp_path / "b.png", np.eye(5).astype(np.uint8))
    with pytest.raises(GeometryError, match="channel depth on another grid"):
        LoadImageStackd(channels=["em", "depth"])({"image": [item["image"], str(tmp_path / "b.png")]})


def test_a_section_with_a_masked_background_is_normalised_inside(tmp_path):
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 5:15, 5:15] = RNG.normal(7, 2, (10, 10))
    image[0, 8, 8] = 0  # enclosed: a value, not background
    result = NormalizeChannelsd("image", ["em"], {"em": {"scheme": "z_score"}})({"image": torch.from_numpy(image)})
    inside = result["image"][0, 5:15, 5:15]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inside[3, 3]) < -2
    assert not result["image"][0, :5].any()


@pytest.mark.parametrize("elastic", [None, "bspline", "unet_2015"])
def test_interpolation_equals_scipy(elastic):
    item, patch, spacing = section(spacing=(1.0, 0.8)), (12, 17), (1.0, 0.8)
    random = np.random.RandomState(0)
    control = None if elastic is None else random.normal(0, 0.3, (2, 3, 3) if elastic == "unet_2015" else (2, 5, 6))
    drawn = SpatialPatchParameters(
        start=(-3, 20),
        flips=(True, False),
        rotation_degrees=(25.0,),
        scaling=(0.9, 1.1),
        control=None if control is None else control.astype(np.float32),
        control_spacing_mm=None if elastic == "unet_2015" else (6.0, 5.0),
    )
    where = source_coordinates(drawn, patch, spacing).numpy()
    assert where.min() < 0
    assert where[1].max() > SHAPE[1]
    result = sample_patch(item["image"].as_tensor(), drawn, patch, spacing)
    for channel in range(2):
        expected = ndimage.map_coordinates(item["image"][channel].numpy(), where, order=1, mode="mirror")
        np.testing.assert_allclose(result[channel], expected, atol=2e-4)
    label = sample_patch(item["label"].as_tensor(), drawn, patch, spacing, interpolation="nearest")
    expected = ndimage.map_coordinates(item["label"][0].numpy(), where, order=0, mode="mirror")
    assert (label[0].numpy() != expected).mean() < 0.02  # ties alone


def test_a_rotation_by_90_degrees_is_numpys():
    image = torch.rand(1, 9, 9)
    drawn = SpatialPatchParameters((0, 0), (False, False), (90.0,), (1.0, 1.0))
    result = sample_patch(image, drawn, (9, 9), (1.0, 1.0))
    np.testing.assert_allclose(result[0], np.rot90(image[0], -1), atol=1e-5)


def test_the_same_rotation_in_a_plane_of_a_volume():
    image = torch.rand(1, 15, 12)
    flat = SpatialPatchParameters((2, 1), (False, True), (33.0,), (0.8, 1.2))
    deep = SpatialPatchParameters((2, 1, 0), (False, True, False), (0.0, 0.0, 33.0), (0.8, 1.2, 1.0))
    volume = sample_patch(image[..., None].repeat(1, 1, 1, 3), deep, (8, 9, 3), (1.0, 1.5, 1.0))
    torch.testing.assert_close(volume[..., 1], sample_patch(image, flat, (8, 9), (1.0, 1.5)), atol=1e-5, rtol=1e-5)


def test_the_part_inside_the_margin_lies_in_the_section_and_reaches_all_of_it():
    """The overlap-tile strategy: what surrounds the labelled part is what surrounds it in the image."""
    transform = patches(patch_size=(28, 22), margin=(8, 5), affine_probability=0.0, elastic_probability=0.0)
    transform.set_random_state(seed=0)
    item = section()
    padded = np.pad(item["image"].numpy(), ((0, 0), (28, 28), (22, 22)), mode="reflect")
    starts = set()
    for _ in range(400):
        drawn = transform.randomize(SHAPE, (1.0, 1.0), {})
        first = [start + margin for start, margin in zip(drawn.start, transform.margin, strict=True)]
        assert all(0 <= f <= size - part for f, size, part in zip(first, SHAPE, (12, 12), strict=True))
        starts.add(tuple(drawn.start))
        patch = sample_patch(item["image"].as_tensor(), drawn, (28, 22), (1.0, 1.0))
        at = [start + pad for start, pad in zip(drawn.start, (28, 22), strict=True)]
        np.testing.assert_array_equal(patch, padded[:, at[0] : at[0] + 28, at[1] : at[1] + 22])
    rows, columns = zip(*starts, strict=True)
    assert (min(rows), max(rows)) == (-8, 40 - 12 - 8)
    assert (min(columns), max(columns)) == (-5, 31 - 12 - 5)


def test_a_class_stands_in_the_middle_of_the_labelled_part():
    transform = patches(margin=3, foreground_share=1.0, affine_probability=0.0, elastic_probability=0.0)
    transform.set_random_state(seed=0)
    for _ in range(20):
        result = transform(section())
        inner = result["label"][0, 3:-3, 3:-3]
        assert inner.any()
        assert result["image"].shape == (2, 16, 12)
        assert result["weight"].shape == (1, 16, 12)


def test_image_label_and_weight_move_together():
    transform = patches(
        patch_size=(30, 30),
        rotation_degrees=180.0,
        flip_axes=(0, 1),
        affine_probability=1.0,
        elastic="unet_2015",
        elastic_probability=1.0,
        elastic_std_mm=1.0,
    )
    transform.set_random_state(seed=0)
    item = section()
    mask = torch.zeros(1, *SHAPE)
    mask[0, 15:28, 8:20] = 1
    smooth = torch.from_numpy(ndimage.gaussian_filter(mask.numpy(), (0, 1, 1)))
    item |= {"image": MetaTensor(smooth, affine=item["image"].affine), "label": mask.byte(), "weight": smooth * 7}
    for _ in range(10):
        result = transform(item)
        torch.testing.assert_close(result["weight"], result["image"] * 7)
        sure = (result["image"] - 0.5).abs() > 0.35
        assert ((result["image"] > 0.5) == result["label"].bool())[sure].all()


def test_what_does_not_fit_two_dimensions_is_refused():
    for wrong in (
        {"patch_size": (8,)},
        {"flip_axes": (2,)},
        {"rotation_degrees": (1.0, 2.0, 3.0)},
        {"elastic": "unet"},
        {"elastic": "unet_2015", "patch_size": (8, 8, 8), "elastic_std_mm": 0.1},
        {"elastic": "unet_2015", "elastic_std_mm": 10.0},
        {"margin": 6},
        {"margin": (1, 1, 1)},
    ):
        with pytest.raises(ConfigError):
            patches(**wrong)
    assert patches(elastic="unet_2015", patch_size=(572, 572), elastic_std_mm=10.0)
    with pytest.raises(GeometryError, match=r"one \(H, W\)"):
        patches(keys="image")({"image": MetaTensor(torch.zeros(1, 8, 8, 8))})
