import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, RandScaleIntensityd
from scipy import ndimage

from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.transforms import ForegroundIndicesd, RandSpatialPatchd, SpatialPatchParameters, put_back, sample_patch
from pipeline.transforms.elastic import control_shape, max_std_mm, sample_control_vectors
from pipeline.transforms.patch_map import border_index, rotation_matrix, source_coordinates

SPACING = (1.0, 1.0, 5.0)
AFFINE = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))


def case(shape=(30, 26, 9), channels=2, seed=0, affine=AFFINE):
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[0, 4:8, 20:24, 1:4] = 1
    label[0, 25, 3, 7] = 2
    image = torch.rand(channels, *shape, generator=generator)
    return {
        "case_id": "sub-01",
        "image": MetaTensor(image, affine=affine, meta={"case_id": "sub-01"}),
        "label": MetaTensor(label, affine=affine),
    }


def parameters(patch, spacing=SPACING, **more) -> SpatialPatchParameters:
    control_mm = (24.0, 24.0, 24.0)
    control = sample_control_vectors(
        np.random.RandomState(1), control_shape(patch, spacing, control_mm), 1.0, control_mm
    )
    values = {"start": (3, 2, 1), "rotation_degrees": (5, -8, 20), "scaling": (0.9, 1.1, 1.05)}
    return SpatialPatchParameters(**{**values, "control": control, "control_spacing_mm": control_mm, **more})


def test_border_continues_like_numpy_pad():
    for size in (1, 2, 5):
        for mode, numpy_mode in (("mirror", "reflect"), ("edge", "edge")):
            padded = np.pad(np.arange(size), 11, mode=numpy_mode)
            np.testing.assert_array_equal(border_index(-11, size + 22, size, mode), padded)


@pytest.mark.parametrize("border", ["mirror", "edge"])
def test_interpolation_equals_scipy(border):
    """The same coordinates through scipy's interpolation of the whole volume."""
    image, patch = case()["image"].as_tensor(), (12, 11, 15)
    drawn = parameters(patch)
    where = source_coordinates(drawn, patch, SPACING).numpy()
    assert where.min() < 0  # it reaches beyond the volume
    result = sample_patch(image, drawn, patch, SPACING, border)
    for channel in range(2):
        mode = {"mirror": "mirror", "edge": "nearest"}[border]
        expected = ndimage.map_coordinates(image[channel].numpy(), where, order=1, mode=mode)
        np.testing.assert_allclose(result[channel], expected, atol=2e-4)
    label = torch.randint(0, 5, (1, *image.shape[1:]), dtype=torch.uint8)
    looked_up = sample_patch(label, drawn, patch, SPACING, border, interpolation="nearest")
    expected = ndimage.map_coordinates(label[0].numpy(), where, order=0, mode=mode)
    assert looked_up.dtype == torch.uint8
    assert (looked_up[0].numpy() != expected).mean() < 1e-3  # ties are rounded to the other side


def test_rotation_is_rigid_in_space():
    """Two voxels look at points as far apart as they are themselves, in mm, whatever the spacing."""
    patch = (8, 9, 5)
    drawn = SpatialPatchParameters((2, 3, 1), rotation_degrees=(30, 20, -40))
    there = source_coordinates(drawn, patch, SPACING).double().reshape(3, -1).T * torch.tensor(SPACING)
    here = torch.cartesian_prod(*[torch.arange(float(n)) for n in patch]).double() * torch.tensor(SPACING)
    torch.testing.assert_close(torch.cdist(there, there), torch.cdist(here, here), atol=2e-4, rtol=0)
    np.testing.assert_allclose(there.mean(0), (np.array([2, 3, 1]) + (np.array(patch) - 1) / 2) * SPACING, atol=1e-4)


def test_rotation_matrix_turns_as_documented():
    np.testing.assert_allclose(rotation_matrix((90, 0, 0)) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation_matrix((0, 90, 0)) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    combined = rotation_matrix((10, 20, 30))
    expected = rotation_matrix((0, 0, 30)) @ rotation_matrix((0, 20, 0)) @ rotation_matrix((10, 0, 0))
    np.testing.assert_allclose(combined, expected, atol=1e-12)


def test_a_quarter_turn_and_a_scaling_are_exact():
    volume = torch.rand(1, 9, 9, 3)
    turned = sample_patch(volume, SpatialPatchParameters((0, 0, 0), rotation_degrees=(0, 0, 90)), (9, 9, 3), (1, 1, 4))
    torch.testing.assert_close(turned, torch.rot90(volume, -1, (1, 2)), atol=1e-4, rtol=0)
    ramp = torch.arange(9.0).reshape(1, 9, 1, 1).expand(1, 9, 9, 3)
    scaled = sample_patch(ramp, SpatialPatchParameters((0, 0, 0), scaling=(2, 1, 1)), (9, 9, 3), (1, 1, 4))
    torch.testing.assert_close(scaled[0, :, 0, 0], torch.linspace(2, 6, 9))


def test_image_and_label_stay_together():
    """A sphere of radius 9 mm: the deformed label and the thresholded deformed image, 1 x 1 x 2 mm."""
    spacing, shape = (1.0, 1.0, 2.0), (40, 40, 20)
    offsets = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"
    )
    distance = torch.from_numpy(np.sqrt(sum(o**2 for o in offsets)))[None].float()
    drawn = parameters(shape, spacing, start=(0, 0, 0))
    image = sample_patch(distance, drawn, shape, spacing)[0]
    label = sample_patch((distance < 9).to(torch.uint8), drawn, shape, spacing, interpolation="nearest")[0] == 1
    assert int(label.sum()) == pytest.approx(int((image < 9).sum()), rel=0.02)
    voted = sample_patch((distance < 9).to(torch.uint8), drawn, shape, spacing, interpolation="majority")[0] == 1
    assert int((voted != (image < 9)).sum()) < 0.9 * int((label != (image < 9)).sum())
    # The nearest voxel lies within half a voxel's diagonal, 1.22 mm: further from the surface they must agree.
    assert ((image - 9).abs()[label != (image < 9)] < 1.23).all()


def test_a_deformed_label_is_the_deformed_image_thresholded():
    """A sphere of radius 48 voxels, known exactly: Dice at least 0.995 by majority, and less by the nearest voxel."""
    shape, radius = (116,) * 3, 48.0
    offsets = torch.meshgrid(*[torch.arange(float(n)) - (n - 1) / 2 for n in shape], indexing="ij")
    distance = torch.stack(offsets).norm(dim=0)[None]
    mask = (distance < radius).to(torch.uint8)
    drawn = parameters(shape, (1.0,) * 3, start=(0, 0, 0))
    expected = sample_patch(distance, drawn, shape, (1.0,) * 3) < radius
    dice = {}
    for interpolation in ("nearest", "majority"):
        label = sample_patch(mask, drawn, shape, (1.0,) * 3, interpolation=interpolation) == 1
        dice[interpolation] = 2 * int((label & expected).sum()) / int(label.sum() + expected.sum())
    assert dice["majority"] >= 0.995 > dice["nearest"]


def test_majority_is_the_argmax_of_linearly_interpolated_masks():
    label = torch.randint(0, 4, (1, 9, 8, 7))
    patch, drawn = (12, 11, 15), parameters((12, 11, 15))
    masks = torch.nn.functional.one_hot(label[0], 4).permute(3, 0, 1, 2).float()
    shares = sample_patch(masks, drawn, patch, SPACING)
    result = sample_patch(label, drawn, patch, SPACING, interpolation="majority")
    chosen, largest = shares.gather(0, result)[0], shares.amax(0)
    torch.testing.assert_close(chosen, largest, atol=1e-4, rtol=0)


def test_shear_is_by_the_angle_in_millimetres():
    """The line along y, 5 voxels of 1 mm, leans by 45 degrees; z, of 5 mm, by the angle whose tangent is 1 / 5."""
    volume = torch.rand(1, 21, 11, 7)
    drawn = SpatialPatchParameters((5, 2, 1), shear_degrees=(45.0, np.degrees(np.arctan(1 / 5)), 0.0))
    patch = sample_patch(volume, drawn, (9, 7, 5), SPACING)
    for j in range(7):
        for k in range(5):
            first = 5 + (j - 3) + (k - 2)
            torch.testing.assert_close(patch[0, :, j, k], volume[0, first : first + 9, 2 + j, 1 + k], atol=1e-4, rtol=0)


def test_thick_slices_are_turned_in_their_plane():
    transform = RandSpatialPatchd(patch_size=(8, 8, 4), affine_probability=1, rotation_degrees=40, shear_degrees=20)
    transform.set_random_state(0)
    for spacing, thick in ((SPACING, True), ((1.0, 1.0, 2.5), False)):
        drawn = [transform.randomize((30, 26, 9), spacing, {}) for _ in range(50)]
        turns, shears = (np.abs([getattr(p, f"{name}_degrees") for p in drawn]) for name in ("rotation", "shear"))
        assert (turns[:, :2].max() <= 5) == (shears[:, 1:].max() <= 5) == thick
        assert turns[:, 2].max() > 35
        assert shears[:, 0].max() > 18
    free = RandSpatialPatchd(
        patch_size=(8, 8, 4), affine_probability=1, confine_thick_slices=False, rotation_degrees=40
    )
    free.set_random_state(0)
    assert max(abs(free.randomize((30, 26, 9), SPACING, {}).rotation_degrees[0]) for _ in range(50)) > 35


def test_a_patch_is_replayed_from_its_record():
    item = case(shape=(30, 26, 12))
    transform = RandSpatialPatchd(
        patch_size=(16, 12, 8), affine_probability=1, elastic_probability=1, shear_degrees=8, flip_axes=(0, 2)
    ).set_random_state(3)
    for patch in (transform(item) for _ in range(3)):
        again = transform.replay(item, patch["spatial_parameters"])
        assert set(again) == set(patch)
        assert torch.equal(again["image"], patch["image"])
        assert torch.equal(again["label"], patch["label"])
        record = SpatialPatchParameters.from_json(patch["spatial_parameters"])
        assert record.to_json() == patch["spatial_parameters"]
    for wrong in ("", "[1]", '{"control": null}', '{"start": [1, 2, 3], "control": {"shape": [2]}}'):
        with pytest.raises(DataError, match="not a patch's parameters"):
            SpatialPatchParameters.from_json(wrong)


@pytest.mark.parametrize("elastic", [True, False])
def test_a_patch_is_put_back_where_it_came_from(elastic):
    """A smooth volume comes back from its patch, and a point of it to its own place."""
    spacing, shape, patch = (1.0, 1.2, 2.0), (40, 36, 24), (32, 28, 18)
    random = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    volume = torch.from_numpy(ndimage.gaussian_filter(random.numpy(), (0, 4, 4, 4))) * 20
    drawn = parameters(patch, spacing, start=(5, 3, 4), flips=(True, False, False), shear_degrees=(6, 0, -4))
    if not elastic:
        drawn = SpatialPatchParameters((5, 3, 4), (True, False, False), (20, 10, 0), (0.9, 1.1, 1))
    back, covered = put_back(sample_patch(volume, drawn, patch, spacing), drawn, shape, spacing)
    assert covered.float().mean() > 0.2
    assert not back[0][~covered].any()
    assert float((back - volume)[0][covered].abs().mean()) < 0.02 * float(volume.std())
    crop = SpatialPatchParameters((-2, 3, 4), (True, False, True))
    back, covered = put_back(sample_patch(volume, crop, patch, spacing), crop, shape, spacing)
    assert int(covered.sum()) == 30 * 28 * 18
    torch.testing.assert_close(back[0][covered], volume[0][covered], atol=1e-3, rtol=0)
    label = (volume > 0).to(torch.uint8)
    back, covered = put_back(
        sample_patch(label, crop, patch, spacing, interpolation="nearest"), crop, shape, spacing, "nearest"
    )
    assert back.dtype == torch.uint8
    assert torch.equal(back[0][covered], label[0][covered])


def test_the_same_deformation_in_space_whatever_the_order_of_the_axes():
    """Axes and parameters permuted together: the patch is the same, permuted."""
    volume, patch, order = torch.rand(1, 30, 26, 12), (14, 12, 8), (2, 0, 1)
    drawn = parameters(patch, rotation_degrees=(0, 0, 20), scaling=(0.9, 1.1, 1.05))
    other = SpatialPatchParameters(
        tuple(drawn.start[axis] for axis in order),
        rotation_degrees=(20, 0, 0),
        scaling=tuple(drawn.scaling[axis] for axis in order),
        control=np.ascontiguousarray(drawn.control[list(order)].transpose(0, *[1 + axis for axis in order])),
        control_spacing_mm=drawn.control_spacing_mm,
    )
    # The order is cyclic, so handedness stays, and z, about which it turns, has become the first axis.
    expected = sample_patch(volume, drawn, patch, SPACING).permute(0, *[1 + axis for axis in order])
    moved = volume.permute(0, *[1 + axis for axis in order])
    result = sample_patch(moved, other, [patch[a] for a in order], [SPACING[a] for a in order])
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_same_deformation_in_space_whichever_way_an_axis_runs(axis):
    """A mirrored volume, and parameters mirrored with it: the mirrored patch."""
    volume, patch = torch.rand(1, 30, 26, 12), (14, 12, 8)
    drawn = parameters(patch, shear_degrees=(6, -4, 3))
    sign = np.where(np.arange(3) == axis, -1.0, 1.0)
    control = np.flip(drawn.control, axis + 1) * sign[:, None, None, None].astype(np.float32)
    start = list(drawn.start)
    start[axis] = volume.shape[axis + 1] - patch[axis] - start[axis]
    other = SpatialPatchParameters(
        tuple(start),
        rotation_degrees=tuple(turn * -side for turn, side in zip(drawn.rotation_degrees, sign, strict=True)),
        scaling=drawn.scaling,
        control=np.ascontiguousarray(control),
        control_spacing_mm=drawn.control_spacing_mm,
        shear_degrees=tuple(
            angle * sign[first] * sign[second]
            for angle, (first, second) in zip(drawn.shear_degrees, ((0, 1), (0, 2), (1, 2)), strict=True)
        ),
    )  # fmt: skip
    expected = sample_patch(volume, drawn, patch, SPACING).flip(axis + 1)
    torch.testing.assert_close(sample_patch(volume.flip(axis + 1), other, patch, SPACING), expected, atol=2e-4, rtol=0)


def test_no_patch_folds_at_the_largest_displacement_that_is_allowed():
    """Rotation, shear, scaling, flips and displacement together, on voxels much finer than the control points."""
    transform = RandSpatialPatchd(
        patch_size=(14, 13, 12), affine_probability=1, shear_degrees=10, flip_axes=(0, 1, 2), elastic_probability=1,
        elastic_spacing_mm=8, elastic_std_mm=max_std_mm(8), confine_thick_slices=False,
    ).set_random_state(0)  # fmt: skip
    spacing, smallest = (1.0, 1.0, 2.5), []
    for _ in range(200):
        drawn = transform.randomize((30, 30, 20), spacing, {})
        where = source_coordinates(drawn, transform.patch_size, spacing).double().numpy()
        steps = np.stack([np.stack(np.gradient(where[i] * spacing[i], *spacing)) for i in range(3)])
        determinants = np.linalg.det(np.moveaxis(steps, (0, 1), (-2, -1))) * np.prod(np.where(drawn.flips, -1, 1))
        smallest.append(determinants.min())
    assert 0 < min(smallest) < 0.5  # it deforms, and does not fold


def test_a_constant_image_stays_constant():
    patch = sample_patch(torch.full((1, 10, 10, 4), 3.25), parameters((16, 16, 9)), (16, 16, 9), SPACING)
    torch.testing.assert_close(patch, torch.full((1, 16, 16, 9), 3.25))


def test_undeformed_patches_are_crops_bit_for_bit():
    item = case()
    transform = RandSpatialPatchd(patch_size=(12, 10, 5), affine_probability=0, elastic_probability=0).set_random_state(
        0
    )
    windows = item["image"].as_tensor().unfold(1, 12, 1).unfold(2, 10, 1).unfold(3, 5, 1)
    for _ in range(10):
        patch = transform(item)["image"]
        assert type(patch) is torch.Tensor
        assert patch.is_contiguous()
        assert (windows == patch[:, None, None, None]).all(dim=(0, 4, 5, 6)).any()
    drawn = SpatialPatchParameters((1, 2, 3), flips=(True, False, True))
    expected = item["image"].as_tensor()[:, 1:13, 2:12, 3:8].flip(1, 3)
    assert torch.equal(sample_patch(item["image"].as_tensor(), drawn, (12, 10, 5), SPACING), expected)


def test_a_flip_is_the_same_for_both_ways_of_sampling():
    volume = torch.rand(1, 12, 12, 6)
    flipped = SpatialPatchParameters((2, 1, 0), flips=(True, True, False))
    nearly = SpatialPatchParameters((2, 1, 0), flips=(True, True, False), scaling=(1 + 1e-7, 1, 1))
    crop, resampled = (sample_patch(volume, p, (8, 8, 6), SPACING) for p in (flipped, nearly))
    torch.testing.assert_close(crop, resampled, atol=1e-4, rtol=0)


def test_volume_smaller_than_the_patch_is_mirrored_with_its_label():
    image = torch.rand(2, 5, 30, 2)
    label = (image[:1] > 0.5).to(torch.uint8)
    item = {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label, affine=AFFINE)}
    transform = RandSpatialPatchd(patch_size=(16, 16, 8), affine_probability=0, elastic_probability=0).set_random_state(
        3
    )
    for _ in range(5):
        patch = transform(item)
        assert torch.equal(patch["label"] == 1, patch["image"][:1] > 0.5)
        assert {tuple(v.flatten().tolist()) for v in patch["image"].unbind(3)} <= {
            tuple(v.flatten().tolist()) for v in patch["image"].unbind(3)[:2]
        }
    deformed = RandSpatialPatchd(patch_size=(16, 16, 8), affine_probability=1, elastic_probability=1).set_random_state(
        3
    )
    assert torch.isfinite(deformed(item)["image"]).all()


def test_one_slice_is_continued():
    image = MetaTensor(torch.rand(1, 20, 20, 1), affine=AFFINE)
    transform = RandSpatialPatchd(
        "image", patch_size=(8, 8, 4), affine_probability=1, elastic_probability=1, rotation_degrees=(0, 0, 30)
    ).set_random_state(0)
    patch = transform({"image": image})["image"]
    assert patch.std((1, 2)).min() > 0.05
    still = sample_patch(image.as_tensor(), SpatialPatchParameters((3, 3, -1)), (8, 8, 4), SPACING)
    assert torch.equal(still, image.as_tensor()[:, 3:11, 3:11].expand(1, 8, 8, 4))


def test_foreground_patches_hold_each_class_equally_often():
    item = ForegroundIndicesd()(case())
    transform = RandSpatialPatchd(
        patch_size=(5, 5, 3), foreground_share=1.0, affine_probability=0, elastic_probability=0
    ).set_random_state(0)
    labels = [transform(item)["label"] for _ in range(200)]
    hits = [sum(bool((label == k).any()) for label in labels) for k in (1, 2)]
    assert sum(hits) == 200
    assert 70 < hits[1] < 130  # 48 voxels against one, drawn alike
    nowhere = RandSpatialPatchd(
        patch_size=(5, 5, 3), foreground_share=0.0, affine_probability=0, elastic_probability=0
    ).set_random_state(0)
    assert sum(bool(nowhere(item)["label"].any()) for _ in range(200)) < 60


def test_without_prepared_indices_or_label_it_works_too():
    item = case()
    fast = RandSpatialPatchd(patch_size=(8, 8, 4)).set_random_state(5)(ForegroundIndicesd()(item))
    slow = RandSpatialPatchd(patch_size=(8, 8, 4)).set_random_state(5)(item)
    assert torch.equal(fast["image"], slow["image"])
    assert set(fast) == {"case_id", "image", "label", "spatial_parameters", "spacing_mm"}
    assert fast["spacing_mm"].tolist() == list(SPACING)
    del item["label"]
    assert set(RandSpatialPatchd(patch_size=(8, 8, 4))(item)) == set(fast) - {"label"}


def test_reproducible_and_input_untouched():
    item = ForegroundIndicesd()(case())
    before = {key: item[key].clone() for key in ("image", "label")}
    transform = RandSpatialPatchd(
        patch_size=(8, 8, 4), num_samples=3, affine_probability=1, elastic_probability=1, flip_axes=(0, 1)
    )
    first, second = (transform.set_random_state(7)(item) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
    assert not torch.equal(first[0]["image"], first[1]["image"])
    for key, value in before.items():
        assert torch.equal(item[key], value)
    assert "foreground" in item
    whole = RandSpatialPatchd(patch_size=(30, 26, 9), affine_probability=0, elastic_probability=0)(item)
    whole["image"].zero_()
    assert torch.equal(item["image"], before["image"])


def test_in_a_chain_with_monai_workers_and_pickle():
    chain = Compose(
        [
            ForegroundIndicesd(),
            RandSpatialPatchd(patch_size=(8, 8, 4), num_samples=2, affine_probability=1, elastic_probability=1),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=0.5),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
        ]
    )
    dataset = Dataset([case(seed=seed) for seed in range(4)], pickle.loads(pickle.dumps(chain)))
    images = []
    for workers in (0, 2):
        loader = DataLoader(dataset, batch_size=2, num_workers=workers)
        for batch in loader:
            assert batch["image"].shape == (4, 2, 8, 8, 4)
            assert batch["label"].shape == (4, 1, 8, 8, 4)
            assert batch["image"].dtype == torch.float32
            assert batch["case_id"] == ["sub-01"] * 4
            images += list(batch["image"])
    assert len({float(image.sum()) for image in images}) == len(images)


@pytest.mark.parametrize(
    "arguments",
    [
        {"patch_size": (8,)},
        {"patch_size": (8, 8), "rotation_degrees": (15, 15, 15)},
        {"padding_mode": "zeros"},
        {"num_samples": 0},
        {"foreground_share": 1.5},
        {"flip_axes": (3,)},
        {"scaling": (0, 1)},
        {"scaling": ((0.9, 1.1), (0.9, 1.1))},
        {"rotation_degrees": ((10, -10), 0, 0)},
        {"elastic_std_mm": 3.0, "elastic_spacing_mm": 32.0},
        {"elastic_std_mm": 1.0, "elastic_spacing_mm": 0},
        {"shear_degrees": 75.0},
        {"label_interpolation": "linear"},
    ],
)
def test_refuses_contradictions(arguments):
    with pytest.raises(ConfigError):
        RandSpatialPatchd(**{"patch_size": (8, 8, 8), **arguments})


def test_refuses_other_items():
    transform, item = RandSpatialPatchd(patch_size=(4, 4, 4)), case()
    with pytest.raises(GeometryError, match=r"sub-01.*shapes"):
        transform({**item, "label": item["label"][..., 1:]})
    with pytest.raises(DataError, match="without an affine"):
        transform({key: v.as_tensor() if isinstance(v, MetaTensor) else v for key, v in item.items()})


def test_arguments_as_json_gives_them():
    transform = RandSpatialPatchd(
        ["image"], patch_size=[4, 4, 4], rotation_degrees=[0, [-5, 10], 30], scaling=[[1, 1], [0.9, 1.1], [1, 1]],
        elastic_spacing_mm=[40, 40, 60], elastic_std_mm=1,
    )  # fmt: skip
    assert transform.rotation_degrees == ((0, 0), (-5, 10), (-30, 30))
    assert transform.scaling == ((1, 1), (0.9, 1.1), (1, 1))
    assert transform.elastic_spacing_mm == (40, 40, 60)


def test_a_patch_of_which_nearly_nothing_is_labelled_is_warned_about(caplog):
    RandSpatialPatchd("image", patch_size=[132, 132, 116], margin=44)
    assert not caplog.records
    RandSpatialPatchd("image", patch_size=[92, 92, 92], margin=44)
    assert "labels only 4x4x4 voxels of each patch of 92x92x92" in caplog.text
