import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Invertd, Orientationd, RandGaussianNoised, RandShiftIntensityd, Spacingd
from PIL import Image

from pipeline.data import CasesOnDemand, data_list
from pipeline.data.label import load_label
from pipeline.data.stack import load_stack
from pipeline.errors import ConfigError, DataError, GeometryError, LabelError
from pipeline.geometry import Grid
from pipeline.io import write_volume
from pipeline.transforms import LoadImageStackd, NormalizeChannelsd, RandSpatialPatchd, ZeroAbsentChannelsd

CHANNELS = ["cbf", "cbv", "mtt"]
SHAPE = (7, 6, 4)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.2, 0, -20], [0, 0, 5, 10], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)
RNG = np.random.default_rng(0)


def ramp(grid: Grid) -> np.ndarray:
    """2x + 3y + z + 100 in mm: linear interpolation gives it back exactly on any grid."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], -1, 0)
    return 2 * x + 3 * y + z + 100


def make(folder: Path, drawn=None, **grids) -> dict:
    image = {}
    for number, name in enumerate(CHANNELS):
        grid = grids.get(name, GRID)
        image[name] = str(folder / f"sub-01_{name}.nii.gz")
        write_volume(image[name], ramp(grid) + number, grid)
    item = {"case_id": "sub-01", "image": image}
    if drawn is not None:
        item["label"] = str(folder / "sub-01_lesion.nii.gz")
        write_volume(item["label"], drawn, grids.get("label", GRID))
    return item


def test_channels_by_name_with_grid_and_meta(tmp_path):
    label = RNG.integers(0, 2, SHAPE)
    item = make(tmp_path, label)
    item["image"] = {"NCCT": "nowhere.nii.gz", **{name.upper(): item["image"][name] for name in reversed(CHANNELS)}}
    loaded = LoadImageStackd(channels=["mtt", "cbf"], labels=[0, 1])(item)
    image = loaded["image"]
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    np.testing.assert_allclose(image[0], ramp(GRID) + 2, rtol=1e-6)
    np.testing.assert_allclose(image[1], ramp(GRID), rtol=1e-6)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.affine.dtype == torch.float64
    np.testing.assert_allclose(image.meta["original_affine"], AFFINE)
    assert image.meta["spatial_shape"].tolist() == list(SHAPE)
    assert image.meta["case_id"] == "sub-01"
    assert image.meta["filename_or_obj"] == str(tmp_path / "sub-01_mtt.nii.gz")
    assert image.meta["repairs"] == ""
    assert loaded["label"].shape == (1, *SHAPE)
    assert loaded["label"].dtype == torch.uint8
    np.testing.assert_array_equal(loaded["label"][0], label)
    assert isinstance(item["label"], str)  # the input is not changed


def test_a_list_a_path_and_no_case_id(tmp_path):
    paths = make(tmp_path)["image"]
    as_list = LoadImageStackd(channels=CHANNELS)({"image": [paths[name] for name in CHANNELS]})
    assert as_list["image"].shape == (3, *SHAPE)
    assert as_list["image"].meta["case_id"] == "sub-01"
    one = LoadImageStackd("image", channels=["cbf"])({"image": Path(paths["cbf"])})
    assert one["image"].shape == (1, *SHAPE)
    assert "label" not in one


def test_another_grid_is_resampled_and_recorded(tmp_path):
    coarse = np.array([[0, 2.4, 0, -24.0], [-2.2, 0, 0, 32], [0, 0, 4, 8], [0, 0, 0, 1.0]])
    coarse[:3, 3] += [-5, 5, -10]
    coarse_grid = Grid((12, 10, 12), np.array([[0, -2, 0, 35.0], [2, 0, 0, -24], [0, 0, 2.5, 6], [0, 0, 0, 1]]))
    loaded = LoadImageStackd(channels=CHANNELS)(make(tmp_path, mtt=coarse_grid))
    np.testing.assert_allclose(loaded["image"][2], ramp(GRID) + 2, rtol=1e-5)
    assert loaded["image"].meta["repairs"].startswith("mtt: resampled from 12x10x12")
    with pytest.raises(GeometryError, match=r"case sub-01, file .*mtt.*another grid"):
        LoadImageStackd(channels=CHANNELS, on_other_grid="refuse")(make(tmp_path, mtt=coarse_grid))


def test_rounding_of_headers_is_the_same_grid(tmp_path):
    close = AFFINE.copy()
    close[0, 3] += 0.008
    loaded = LoadImageStackd(channels=CHANNELS)(
        make(tmp_path, np.zeros(SHAPE), cbv=Grid(SHAPE, close), label=Grid(SHAPE, close))
    )
    assert loaded["image"].meta["repairs"] == ""


@pytest.mark.parametrize(("shift", "accepted"), [(5.0, True), (20.0, False)])
def test_channels_of_another_place_are_refused(tmp_path, shift, accepted):
    """The reference is 4 slices of 5 mm: 5 mm away three quarters are covered, 20 mm away nothing is."""
    moved = AFFINE.copy()
    moved[2, 3] += shift
    item = make(tmp_path, cbv=Grid(SHAPE, moved))
    if accepted:
        loaded = LoadImageStackd(channels=CHANNELS)(item)
        assert "25% of which it does not cover" in loaded["image"].meta["repairs"]
        np.testing.assert_allclose(loaded["image"][1, ..., 1:], (ramp(GRID) + 1)[..., 1:], rtol=1e-5)
        assert float(loaded["image"][1, 3, 3, 0]) == pytest.approx((ramp(Grid(SHAPE, moved)) + 1).min())
    else:
        with pytest.raises(GeometryError, match="covers 0% of the reference"):
            LoadImageStackd(channels=CHANNELS)(item)


def test_a_label_of_another_grid_is_refused(tmp_path):
    for grid in (Grid((7, 6, 5), AFFINE), Grid(SHAPE, AFFINE @ np.diag([1, 1, 1.1, 1]))):
        item = make(tmp_path, np.zeros(grid.shape, int), label=grid)
        with pytest.raises(GeometryError, match=r"case sub-01, file .*lesion.*label on another grid"):
            LoadImageStackd(channels=CHANNELS)(item)


def test_label_values(tmp_path):
    path = tmp_path / "label.nii.gz"
    label = np.zeros(SHAPE)
    label[0, 0, :3] = 0.9999999998
    label[1, 1, 1] = 2
    image = nibabel.Nifti1Image(label, AFFINE)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    read = load_label(path, GRID, [1, 2])
    assert read.array.dtype == np.uint8
    assert read.array.sum() == 5
    with pytest.raises(LabelError, match=r"label ids 2 \(1 voxels\); expected ids out of 0, 1"):
        load_label(path, GRID, [1])
    assert load_label(path, GRID).array.max() == 2
    for value, found in ((0.7, "no integer, such as 0.7"), (-1, r"-1 \(1 voxels\)"), (255, r"255 \(1 voxels\)")):
        label[1, 1, 1] = value
        write_volume(path, label, GRID)
        with pytest.raises(LabelError, match=found):
            LoadImageStackd(channels=CHANNELS, labels={"1": "core", "2": "penumbra"})(
                {**make(tmp_path), "label": str(path)}
            )
    write_volume(path, np.zeros(SHAPE, int), GRID)
    assert load_label(path, GRID, [1]).array.sum() == 0  # an empty label is a healthy case
    write_volume(path, np.full(SHAPE, 0.9995), GRID)
    assert load_label(path, GRID, [1]).repairs == ("label: rounded to whole numbers",)


def test_refusals_name_case_and_file(tmp_path):
    load = LoadImageStackd(channels=CHANNELS)
    item = make(tmp_path)
    missing = {**item, "image": {"cbf": item["image"]["cbf"], "cvb": item["image"]["cbv"], "mtt": item["image"]["mtt"]}}
    with pytest.raises(DataError, match=r"case sub-01: .*no cbv.*is cvb meant to be cbv\?"):
        load(missing)
    with pytest.raises(DataError, match="found 2 files"):
        load({"image": [item["image"]["cbf"]] * 2})
    for image in (None, 3):
        with pytest.raises(DataError, match="as image"):
            load({"case_id": "a", "image": image})
    Path(item["image"]["cbv"]).write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"case sub-01, file .*cbv.nii.gz"):
        load(item)
    with pytest.raises(DataError, match="no label"):
        LoadImageStackd(channels=CHANNELS, allow_missing_keys=False)(make(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": []},
        {"channels": "cbf"},
        {"channels": CHANNELS, "on_other_grid": "x"},
        {"channels": CHANNELS, "keys": "x"},
    ],
)
def test_refuses_wrong_arguments(arguments):
    with pytest.raises(ConfigError):
        LoadImageStackd(**arguments)
    with pytest.raises(ConfigError):
        load_stack({})


def test_collates_and_decollates_whatever_was_repaired(tmp_path):
    other = Grid(SHAPE, AFFINE + np.diag([0.0, 0, 0.2, 0]))
    items = [make(tmp_path / str(i), np.ones(SHAPE, int), **({"mtt": other} if i == 1 else {})) for i in range(3)]
    chain = Compose(
        [
            LoadImageStackd(channels=CHANNELS, labels=[1]),
            Orientationd(("image", "label"), axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd(("image", "label"), pixdim=(1.0, 1.0, 5.0), mode=("bilinear", "nearest")),
        ]
    )
    loader = DataLoader(Dataset(items, chain), batch_size=3, num_workers=2)
    (batch,) = loader
    assert batch["image"].shape[:2] == (3, 3)
    assert batch["image"].meta["case_id"] == ["sub-01"] * 3
    parts = decollate_batch(batch)
    assert [bool(part["image"].meta["repairs"]) for part in parts] == [False, True, False]
    np.testing.assert_allclose(parts[1]["image"].meta["original_affine"], AFFINE)
    assert [int(n) for n in parts[1]["image"].meta["spatial_shape"]] == list(SHAPE)
    assert parts[0]["label"].shape[0] == 1
    assert set(parts[0]["label"].unique().tolist()) == {1}


@pytest.mark.real_data
@pytest.mark.skipif("PIPELINE_REAL_DATA" not in os.environ, reason="PIPELINE_REAL_DATA is not set")
def test_one_brain_stored_in_twelve_axis_orders_is_one_volume():
    files = sorted((Path(os.environ["PIPELINE_REAL_DATA"]) / "orientations").glob("*.nii.gz"))
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    chain = Compose([LoadImageStackd("image", channels=["mri"]), Orientationd("image", "RAS", labels=labels)])
    volumes = [chain({"image": file})["image"] for file in files]
    assert len(volumes) == 12
    for volume in volumes[1:]:
        assert torch.equal(volume.as_tensor(), volumes[0].as_tensor())
        np.testing.assert_allclose(volume.affine, volumes[0].affine, atol=1e-3)


def test_a_stack_whose_label_is_shorter_is_refused_by_case_and_its_image_alone_is_not(tmp_path):
    for folder, number in (("images", 3), ("labels", 2)):
        (tmp_path / folder).mkdir()
        first, *others = [Image.fromarray(np.uint8(np.eye(3, 4) * (i + 1))) for i in range(number)]
        first.save(tmp_path / folder / "s.tif", save_all=True, append_images=others)
    items = data_list(tmp_path, ["em"], spatial_dims=2)
    assert len(items) == 3
    for number, item in enumerate(items):
        assert LoadImageStackd(keys=["image"], channels=["em"])(item)["image"].max() == number + 1
        with pytest.raises(DataError) as caught:
            LoadImageStackd(channels=["em"])(item)
        assert str(caught.value) == (
            f"case s_00{number}, file {tmp_path}/labels/s.tif: found 2 section(s); expected 3, as many as the other "
            "files of this case hold; to fix it: check that the files belong together, and that none was cut short"
        )


def three(tmp_path, **options):
    """A case without its third channel, loaded with zeros in its place."""
    item = make(tmp_path, np.ones(SHAPE, int))
    del item["image"]["mtt"]
    return LoadImageStackd(channels=CHANNELS, labels=[1], missing_channels="zero", **options), item


def test_an_absent_channel_is_zero_through_normalisation_and_augmentation(tmp_path):
    load, item = three(tmp_path)
    loaded = load(item)
    assert loaded["present"].tolist() == [True, True, False]
    assert loaded["image"].meta["absent_channels"] == "mtt"
    assert loaded["image"].meta["repairs"] == "mtt: absent, 0 everywhere"
    full = LoadImageStackd(channels=CHANNELS[:2], labels=[1])({**item, "image": item["image"]})
    schemes = {name: {"scheme": "z_score"} for name in CHANNELS}
    normal = NormalizeChannelsd("image", CHANNELS, schemes)(loaded)["image"]
    two = NormalizeChannelsd("image", CHANNELS[:2], {name: schemes[name] for name in CHANNELS[:2]})(full)["image"]
    assert torch.equal(normal[:2].as_tensor(), two.as_tensor())  # as if the third did not exist
    assert not normal[2].any()
    always = {"keys": "image", "prob": 1.0}
    chain = Compose(
        [
            load,
            NormalizeChannelsd("image", CHANNELS, schemes),
            RandSpatialPatchd(["image", "label"], patch_size=(5, 5, 3), elastic_probability=1.0),
            RandGaussianNoised(**always, std=0.1),
            RandShiftIntensityd(**always, offsets=(0.5, 0.6), channel_wise=True),
            ZeroAbsentChannelsd("image"),
        ]
    ).set_random_state(seed=0)
    batch = next(iter(DataLoader(Dataset([item, make(tmp_path / "b", np.ones(SHAPE, int))], chain), batch_size=2)))
    assert batch["present"].tolist() == [[True, True, False], [True, True, True]]
    assert [bool(channel.any()) for channel in batch["image"][0]] == [True, True, False]
    assert bool((batch["image"][1].flatten(1) != 0).all())


def test_the_reference_may_be_absent_and_an_all_zero_file_counts_as_absent(tmp_path):
    item = make(tmp_path)
    write_volume(item["image"]["cbv"], np.zeros(SHAPE), GRID)
    del item["image"]["cbf"]
    loaded = LoadImageStackd(channels=CHANNELS, missing_channels="zero")(item)
    assert loaded["present"].tolist() == [False, False, True]
    assert "the grid is that of cbv" in loaded["image"].meta["repairs"]
    with pytest.raises(DataError, match="no cbf, cbv, mtt"):
        LoadImageStackd(channels=CHANNELS, missing_channels="zero")({"case_id": "a", "image": {}})
    with pytest.raises(ConfigError, match="missing_channels"):
        LoadImageStackd(channels=CHANNELS, missing_channels="mean")


def test_labels_and_predictions_go_back_by_invertd(tmp_path):
    drawn = RNG.integers(0, 2, SHAPE)
    keys = ["image", "label"]
    chain = Compose(
        [
            LoadImageStackd(channels=CHANNELS, labels=[1]),
            Orientationd(keys, "RAS", labels=None),
            Spacingd(keys, pixdim=(0.5, 0.6, 5.0), mode=("bilinear", "nearest")),
        ]
    )
    item = chain(make(tmp_path, drawn))
    item["pred"] = item["label"].clone()
    back = Invertd("pred", chain, orig_keys="label", nearest_interp=True)(item)["pred"]
    np.testing.assert_array_equal(back[0], drawn)
    np.testing.assert_allclose(back.affine, AFFINE)


@pytest.mark.parametrize("value", [5, ["a.nii.gz"], b"a.nii.gz", np.zeros(3)])
def test_what_is_no_path_is_refused_with_its_case(tmp_path, value):
    item, load = make(tmp_path, np.ones(SHAPE, np.uint8)), LoadImageStackd(channels=CHANNELS)
    named = {**item["image"], "cbv": value}
    for image in (named, list(named.values())):
        with pytest.raises(DataError, match=f"case sub-01: found {type(value).__name__} as cbv; expected a path"):
            load({**item, "image": image})
    with pytest.raises(DataError, match=f"case sub-01: found {type(value).__name__} as label; expected a path"):
        load({**item, "label": value})
    with pytest.raises(DataError, match="case sub-01"):
        load({**item, "image": value})


def test_a_failing_step_names_itself_case_and_file(tmp_path):
    item = make(tmp_path)
    Path(item["image"]["cbv"]).write_bytes(b"<html>")
    chain = Compose([LoadImageStackd(channels=CHANNELS)])
    with pytest.raises(RuntimeError, match="applying transform LoadImageStackd of cbf, cbv, mtt"):
        chain(item)  # what plain MONAI makes of it; the reason above it names case and file
    with pytest.raises(DataError, match=r"case sub-01, file .*cbv.*\(in LoadImageStackd\)") as caught:
        CasesOnDemand([item], chain)[0]
    assert "applying" not in str(caught.value)
    loader = DataLoader(CasesOnDemand([item], chain), num_workers=1)
    with pytest.raises(DataError, match=r"case sub-01, file .*cbv"):
        next(iter(loader))
    short = Compose([LoadImageStackd(channels=CHANNELS), Spacingd("mask", pixdim=1.0)])
    with pytest.raises(DataError, match=r"case sub-01.*\(in Spacingd\)"):
        CasesOnDemand([make(tmp_path)], short)[0]
