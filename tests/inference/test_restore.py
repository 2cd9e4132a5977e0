from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, CropForegroundd, DivisiblePadd, LoadImaged, Orientationd, Spacingd
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from pipeline.errors import ConfigError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference import Restored, own_grid, restore_to_grid


def blobs(shape, seed=0, classes=3):
    """Smooth label map with ids 0..classes-1, (H, W, D)."""
    rng = np.random.default_rng(seed)
    where = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=-1)
    labels = np.zeros(shape, np.int16)
    for label in range(1, classes):
        centre, radii = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.4, 0.7, 3)
        labels[(((where - centre) / radii) ** 2).sum(-1) < 1] = label
    return labels


def oriented_affine(order, signs, spacing, degrees=0.0):
    affine = np.eye(4)
    axes = np.zeros((3, 3))
    axes[list(order), range(3)] = signs
    affine[:3, :3] = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True).as_matrix() @ axes
    affine[:3, :3] *= spacing
    affine[:3, 3] = (-31.5, 12.25, 7.75)
    return affine


def write(path, labels, affine):
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return str(path)


def one_hot_scores(image, classes=3):
    """The label map itself as logits of a perfect network."""
    return torch.stack([(image[0].as_tensor().round() == k).float() * 20 for k in range(classes)])


def dice(found, expected, label):
    a, b = found == label, expected == label
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_reoriented_labels_come_back_bit_for_bit(tmp_path, order, signs):
    labels = np.random.default_rng(1).integers(0, 3, (9, 7, 5), dtype=np.int16)
    affine = oriented_affine(order, signs, (0.9, 1.1, 5.0), degrees=11)
    path = write(tmp_path / "case.nii.gz", labels, affine)
    chain = Compose([LoadImaged("image", ensure_channel_first=True), Orientationd("image", axcodes="RAS", labels=None)])
    item = chain({"image": path})
    item["pred"] = one_hot_scores(item["image"])
    restored = Restored(probabilities_key="probabilities")(item)
    assert restored["pred"].dtype == torch.uint8
    np.testing.assert_array_equal(restored["pred"][0].numpy(), labels)
    np.testing.assert_array_equal(restored["probabilities"].argmax(0).numpy(), labels)
    np.testing.assert_allclose(restored["pred"].affine, nibabel.load(path).affine, atol=0)
    assert restored["pred"].meta["filename_or_obj"] == path


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize("slices", [40, 2, 1])
def test_resampled_labels_come_back_on_their_own_grid(tmp_path, order, degrees, slices):
    shape = [44, 50, slices]
    labels = blobs(shape)
    affine = oriented_affine(order, (-1, 1, -1), (0.8, 1.0, 2.0), degrees)
    path = write(tmp_path / "case.nii.gz", labels, affine)
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(0.7, 0.9, -1), mode="nearest"),
        ]
    )
    item = chain({"image": path})
    item["pred"] = one_hot_scores(item["image"])
    found = Restored()(item)["pred"]
    assert found.shape == (1, *shape)
    np.testing.assert_array_equal(found.affine, nibabel.load(path).affine)
    for label in np.unique(labels):
        assert dice(found[0].numpy(), labels, label) > 0.97


@pytest.mark.parametrize("spacing", [0.6, 0.8])
def test_probabilities_halved_in_plane_come_back_to_thick_slices(tmp_path, spacing):
    """Averaged down and interpolated back, only voxels at a class's very border may change."""
    labels = blobs((96, 90, 12))
    path = write(tmp_path / "case.nii.gz", labels, oriented_affine((0, 1, 2), (-1, -1, 1), (spacing, spacing, 6.0)))

    def as_probabilities(item):
        image = item["image"]
        planes = torch.stack([(image[0].as_tensor() == k).float() for k in range(3)])
        return {"image": MetaTensor(planes, meta=image.meta)}

    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            as_probabilities,
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.2, 1.2, -1)),
        ]
    )
    item = chain({"image": path})
    item["pred"] = item["image"].as_tensor()
    found = Restored(softmax=False)(item)["pred"][0].numpy()
    assert all(dice(found, labels, label) > 0.985 for label in range(3))


def test_a_batch_through_the_data_loader_comes_back_per_case(tmp_path):
    items, all_labels = [], []
    for i in range(2):
        labels = blobs((30, 28, 20), seed=i)
        affine = oriented_affine((0, 1, 2), (1, 1, 1), (1.0, 1.0, 2.0)) + np.eye(4, k=3) * i
        items.append({"image": write(tmp_path / f"case{i}.nii.gz", labels, affine)})
        all_labels.append(labels)

    def name(item):
        item["image"].meta["case_id"] = f"sub-{item['image'].meta['filename_or_obj'][-8]}"
        return item

    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="LPS", labels=None),
            Spacingd("image", pixdim=(0.8, 0.8, -1), mode="nearest"),
            name,
        ]
    )
    batch = next(iter(DataLoader(Dataset(items, chain), batch_size=2)))
    batch["pred"] = torch.stack([one_hot_scores(image) for image in batch["image"]])
    for i, item in enumerate(decollate_batch(batch)):
        found = Restored()(item)["pred"]
        assert found.meta["case_id"] == f"sub-{i}"
        np.testing.assert_allclose(found.affine, nibabel.load(items[i]["image"]).affine)
        assert dice(found[0].numpy(), all_labels[i], 1) > 0.97


def test_cropping_and_padding_are_undone_with_background_outside(tmp_path):
    labels = blobs((21, 23, 9))
    path = write(tmp_path / "case.nii.gz", labels, oriented_affine((1, 0, 2), (1, -1, 1), (1.0, 1.0, 3.0)))
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            CropForegroundd("image", source_key="image", allow_smaller=True),
            DivisiblePadd("image", k=8),
        ]
    )
    item = chain({"image": path})
    assert item["image"].shape[1:] != (23, 21, 9)
    item["pred"] = one_hot_scores(item["image"])
    np.testing.assert_array_equal(Restored()(item)["pred"][0].numpy(), labels)


def test_a_voxel_beyond_the_scores_is_background_and_the_border_is_continued_for_half_a_voxel():
    scores = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)])
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    grid_affine = np.eye(4)
    grid_affine[:3, 3] = (-4, 0, 0)
    labels, probabilities = restore_to_grid(scores, affine, Grid((12, 1, 1), grid_affine), keep_probabilities=True)
    # x runs from -4 to 7 mm; the scores' voxels lie at 0 and 4 mm and reach from -2 to 6
    assert labels[:, 0, 0].tolist() == [0, 0] + [1] * 9 + [0]
    inside = torch.softmax(torch.tensor([0.0, 1.0]), 0)
    torch.testing.assert_close(probabilities[:, 5, 0, 0], inside)
    assert probabilities[:, 0, 0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("slab_values", [1, 700, 2**25])
def test_interpolation_is_that_of_scipy_whatever_the_slab(degrees, slab_values):
    rng = np.random.default_rng(0)
    scores = torch.as_tensor(rng.normal(size=(4, 9, 8, 5)), dtype=torch.float32)
    affine = oriented_affine((0, 1, 2), (1, 1, 1), (1.5, 1.4, 3.0))
    own = oriented_affine((2, 0, 1), (-1, 1, 1), (0.8, 1.1, 1.3), degrees)
    shape = (13, 11, 12)
    # both grids share their centre
    centre = affine[:3, :3] @ (np.array([8, 7, 4]) / 2) + affine[:3, 3]
    own[:3, 3] = centre - own[:3, :3] @ ((np.array(shape) - 1) / 2)
    labels, found = restore_to_grid(scores, affine, Grid(shape, own), keep_probabilities=True, slab_values=slab_values)
    at = np.einsum("ij,j...->i...", np.linalg.inv(affine) @ own, np.stack([*np.indices(shape), np.ones(shape)]))[:3]
    probabilities = scores.softmax(0).numpy()
    expected = np.stack([map_coordinates(p, at, order=1, mode="nearest") for p in probabilities])
    last = np.array([8, 7, 4]).reshape(3, 1, 1, 1)
    outside = ((at < -0.5) | (at > last + 0.5)).any(0)
    expected[:, outside] = np.eye(4)[:, :1]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert (labels.numpy() == expected.argmax(0)).mean() > 0.999
    assert 0 < outside.mean() < 0.9


def test_probabilities_are_taken_as_they_are_and_in_half_precision():
    probabilities = torch.tensor([0.4, 0.6]).reshape(2, 1, 1, 1).expand(2, 4, 4, 4).to(torch.bfloat16)
    grid = Grid((7, 4, 4), np.diag([0.5, 1, 1, 1]))
    labels, kept = restore_to_grid(probabilities, np.eye(4), grid, softmax=False, keep_probabilities=True)
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept[1], torch.full(grid.shape, 0.6), atol=2e-3, rtol=0)
    assert labels.eq(1).all()


def test_more_classes_than_a_byte_holds():
    scores = torch.zeros(300, 2, 2, 2)
    scores[299] = 1
    labels, _ = restore_to_grid(scores, np.eye(4), Grid((2, 2, 2), np.eye(4)))
    assert labels.dtype == torch.int16
    assert labels.eq(299).all()


def test_two_keys_and_their_probabilities():
    image = MetaTensor(torch.zeros(1, 2, 3, 4), meta={"original_affine": np.eye(4), "spatial_shape": [2, 3, 4]})
    a, b = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    item = Restored(["a", "b"], probabilities_key=["pa", "pb"])({"image": image, "a": a, "b": b})
    assert torch.equal(item["a"][0].as_tensor(), a.argmax(0).to(torch.uint8))
    torch.testing.assert_close(item["pb"].as_tensor(), b.softmax(0))


def test_an_image_that_forgot_its_grid_is_refused():
    with pytest.raises(ConfigError, match="without original_affine and spatial_shape"):
        Restored()({"image": torch.zeros(1, 2, 2, 2), "pred": torch.zeros(2, 2, 2, 2)})


def test_scores_of_another_shape_and_flat_images_are_refused():
    meta = {"original_affine": np.eye(4), "spatial_shape": [4, 4, 4], "case_id": "sub-7"}
    image = MetaTensor(torch.zeros(1, 4, 4, 4), meta=meta)
    with pytest.raises(GeometryError, match="case sub-7"):
        Restored()({"image": image, "pred": torch.zeros(2, 4, 4, 3)})
    image.meta["spatial_shape"] = [4, 4]
    with pytest.raises(GeometryError, match="2 axes"):
        own_grid(image)


def test_whole_axes_need_no_product_of_orientations():
    """All 48 orientations of a random volume, without files: the affine alone decides."""
    values = torch.randn(3, 4, 5, 6)
    labels = values.argmax(0).numpy()
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        # the grid of an array that is `labels` transposed by `order` and flipped where the sign is negative
        turned = np.transpose(labels, order)[tuple(slice(None, None, s) for s in signs)]
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            affine[source, axis] = sign
            affine[source, 3] = 0 if sign > 0 else labels.shape[source] - 1
        found, _ = restore_to_grid(values, np.eye(4), Grid(turned.shape, affine))
        np.testing.assert_array_equal(found.numpy(), turned)


def test_the_scores_are_left_as_they_were():
    scores = torch.randn(2, 3, 3, 1)
    before = scores.clone()
    grid = Grid((3, 3, 1), np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]))  # wholly outside
    labels, _ = restore_to_grid(scores, np.eye(4), grid)
    assert labels.eq(0).all()
    restore_to_grid(scores, np.eye(4), Grid((3, 3, 1), np.eye(4)))
    assert torch.equal(scores, before)


def test_regions_may_overlap_and_later_ones_lie_over_earlier_ones():
    logits = torch.full((3, 6, 1, 1), -4.0)
    logits[0, :5] = 4  # whole tumour
    logits[1, 1:4] = 4  # core
    logits[2, 2:3] = 4  # enhancing
    logits[1, 5] = 0  # a half
    labels, probabilities = restore_to_grid(
        logits, np.eye(4), Grid((6, 1, 1), np.eye(4)), regions=[2, 1, 4], keep_probabilities=True
    )
    assert labels.flatten().tolist() == [2, 1, 4, 1, 2, 1]
    torch.testing.assert_close(probabilities, logits.sigmoid())
    labels, _ = restore_to_grid(
        logits.sigmoid(), np.eye(4), Grid((6, 1, 1), np.eye(4)), regions=[2, 1, 4], softmax=False
    )
    assert labels.flatten().tolist() == [2, 1, 4, 1, 2, 1]


def test_a_regions_probability_is_interpolated_not_its_mask():
    """Probabilities 0.9 and 0.3 at 0 and 2 mm: a half is passed between 1 mm (0.6) and 1.5 mm (0.45)."""
    probabilities = torch.tensor([0.9, 0.3]).reshape(1, 2, 1, 1)
    grid = Grid((5, 1, 1), np.diag([0.5, 1, 1, 1]))
    labels, _ = restore_to_grid(probabilities, np.diag([2.0, 1, 1, 1]), grid, softmax=False, regions=[300])
    assert labels.flatten().tolist() == [300, 300, 300, 0, 0]
    assert labels.dtype == torch.int16
    with pytest.raises(ConfigError, match="scores of 1 regions; expected 2"):
        restore_to_grid(probabilities, np.eye(4), grid, regions=[1, 2])


@pytest.mark.parametrize("minimum", [-1.0, float("nan")])
def test_a_smallest_volume_below_nothing_is_refused(minimum):
    with pytest.raises(ConfigError, match=r"minimum_component_ml=.*expected 0"):
        Restored("pred", minimum_component_ml=minimum)


@pytest.mark.parametrize("degrees", [0.0, 9.0])
def test_of_many_classes_those_left_out_would_have_won_nowhere(degrees):
    """Two classes that take turns, and a third that is never the first and wins between them; and 97 far below."""
    logits = torch.randn((100, 9, 8, 7), generator=torch.Generator().manual_seed(2)) - 9
    logits[40], logits[41], logits[7] = 0, 0, -0.4
    logits[40, ::2], logits[41, 1::2] = -9, -9
    affine, grid = np.eye(4), Grid((17, 13, 12), oriented_affine((0, 1, 2), (1, 1, 1), (0.5, 0.6, 0.55), degrees))
    grid.affine[:3, 3] = 0.1
    labels, _ = restore_to_grid(logits, affine, grid)
    expected, probabilities = restore_to_grid(logits, affine, grid, keep_probabilities=True)
    assert torch.equal(labels, expected)
    assert {7, 40, 41} <= set(labels.unique().tolist())
    assert torch.equal(probabilities.max(0).indices.to(labels.dtype), expected)
