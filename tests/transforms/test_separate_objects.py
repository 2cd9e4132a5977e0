"""Objects and the border between them, from labels drawn by hand."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, GeometryError, LabelError
from pipeline.transforms import BorderWeightsd, SeparateObjectsd
from pipeline.transforms.separate_objects import find_objects, separate


def drawn(text):
    return np.array([[int(c) if c.isdigit() else 0 for c in line] for line in text.split()])


def discs(*centres, shape=(30, 60), radius=9):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return np.logical_or.reduce(
        [sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True)) <= radius**2 for centre in centres]
    ).astype(np.uint8)


def test_components_touch_by_faces_and_classes_are_apart():
    label = drawn("""
        11.22
        1.1.2
        .111.""")
    assert (
        find_objects(label).tolist()
        == drawn("""
        11.33
        1.2.3
        .222.""").tolist()
    )


def test_the_border_is_taken_from_the_larger_object():
    # Sizes 8, 2, 2: object 1 gives voxels to both others, and of the equal ones the later gives to the earlier.
    objects = drawn("""
        1112
        1112
        1133""")
    assert (
        separate(objects).tolist()
        == drawn("""
        11.2
        11.2
        1.3.""").tolist()
    )


def test_classes_go_where_they_are_asked_to():
    item = {"label": torch.ones(1, 1, 4), "numbers": torch.tensor([[[3, 3, 5, 5]]])}
    step = SeparateObjectsd("numbers", instances_key="numbers", classes_key="label", label_holds="instances")
    done = step(item)
    assert done["numbers"].tolist() == [[[3, 3, 0, 5]]]
    assert done["label"].tolist() == [[[1, 1, 0, 1]]]


def test_no_two_objects_share_a_face_afterwards_and_nothing_else_changes():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 6, (6, 7, 4))
    objects = np.repeat(np.repeat(np.repeat(seeds, 4, 0), 4, 1), 3, 2)
    result = separate(objects)
    for axis in range(3):
        a, b = np.moveaxis(result, axis, 0)[:-1], np.moveaxis(result, axis, 0)[1:]
        assert not ((a != b) & (a > 0) & (b > 0)).any()
    removed = (result == 0) & (objects > 0)
    assert (result[~removed] == objects[~removed]).all()
    # Every removed voxel had a face neighbour of another object.
    padded = np.pad(objects, 1)
    near = [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for shift in (1, -1)]
    touched = np.logical_or.reduce([(n > 0) & (n != objects) for n in near])
    assert touched[removed].all()


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0)])
def test_erosion_splits_two_touching_discs_where_the_neck_is(spacing):
    label = discs((15, 18), (15, 34))  # 16 apart, radius 9: a neck about 8 high at column 26
    assert find_objects(label).max() == 1
    objects = find_objects(label, erosion=5, spacing=spacing)
    assert sorted(np.unique(objects)) == [0, 1, 2]
    assert ((objects > 0) == (label > 0)).all()
    columns = np.arange(label.shape[1])[None]
    assert set(objects[(label > 0) & (columns < 26)]) == {1}
    assert set(objects[(label > 0) & (columns > 26)]) == {2}
    border = (separate(objects) == 0) & (label > 0)
    assert set(np.nonzero(border)[1]) <= {25, 26, 27}


def test_erosion_keeps_an_object_that_is_too_small_for_it():
    label = discs((15, 15)) | discs((15, 50), radius=2)
    assert find_objects(label, erosion=5).max() == 2


def test_erosion_counts_in_the_units_of_the_spacing():
    # A bridge of 2 x 2 voxels: all of it lies 1 mm deep, whatever the slices measure.
    label = np.zeros((20, 12, 6), int)
    label[1:8, 1:11, 1:5] = label[12:19, 1:11, 1:5] = 1
    label[8:12, 5:7, 2:4] = 1
    assert find_objects(label, erosion=1.0, spacing=(1.0, 1.0, 5.0)).max() == 2
    assert find_objects(label, erosion=0.5, spacing=(1.0, 1.0, 5.0)).max() == 1


def test_the_transform_separates_instances_and_leaves_its_input_alone():
    ids = torch.as_tensor(
        drawn("""
        1122
        1122
        11..""")
    )[None].float()
    item = {"case_id": "a", "label": ids}
    result = SeparateObjectsd(label_holds="instances")(item)
    assert item["label"] is ids
    assert result["instances"].dtype == torch.int32
    assert result["label"].dtype == torch.uint8
    assert result["instances"][0].tolist() == drawn("1.22 1.22 11..").tolist()
    assert torch.equal(result["label"] > 0, result["instances"] > 0)
    # Between the two d_1 + d_2 = 2, the figure of the paper's defaults; the rest of the border counts less.
    weight = BorderWeightsd(class_weights=None)(result)["weight"][0]
    assert weight[0, 1] == pytest.approx(1 + 9.2312, abs=1e-4)


def test_numbers_beyond_32_bits_stay_objects_apart():
    label = np.zeros((1, 6, 8), np.int64)
    label[0, 1:3, 1:3] = 2**32  # 0 in 32 bits
    label[0, 1:3, 5:7] = 2**32 + 1  # 1 in 32 bits
    label[0, 4:6, 1:3] = 1
    result = SeparateObjectsd(label_holds="instances")({"label": label})
    assert np.unique(result["instances"], return_counts=True)[1].tolist() == [36, 4, 4, 4]
    assert np.array_equal(result["label"] > 0, label > 0)


def test_objects_that_a_step_has_left_behind_are_refused():
    def entry(affine):
        return MetaTensor(torch.ones((1, 4, 4, 2), dtype=torch.int32), affine=affine)

    step = SeparateObjectsd("label_instances", "label_instances", "label", "instances")
    straight, turned = torch.eye(4), torch.diag(torch.tensor([-1.0, -1, 1, 1]))
    step({"label": entry(straight), "label_instances": entry(straight)})
    with pytest.raises(GeometryError, match=r"case c: .*key label_instances too"):
        step({"case_id": "c", "label": entry(turned), "label_instances": entry(straight)})
    with pytest.raises(GeometryError, match=r"expected one grid"):
        step({"label": entry(straight)[..., :1], "label_instances": entry(straight)})


def test_the_transform_keeps_the_class_ids_of_a_semantic_label():
    label = drawn("""
        11122
        11122""")[None]
    result = SeparateObjectsd()({"label": label})
    assert result["label"][0].tolist() == drawn("11.22 11.22").tolist()
    assert result["instances"][0].tolist() == drawn("11.22 11.22").tolist()


def test_objects_that_touch_nobody_are_left_as_they_are():
    label = drawn("1.1. .1.1 11..")[None]
    result = SeparateObjectsd()({"label": label})
    assert np.array_equal(result["label"], label)
    empty = SeparateObjectsd()({"label": np.zeros((1, 4, 4), np.uint8)})
    assert not np.any(empty["instances"])


@pytest.mark.parametrize(
    "options",
    [{"label_holds": "masks"}, {"erosion": -1}, {"label_holds": "instances", "erosion": 2}, {"keys": ["a", "b"]}],
)
def test_contradicting_arguments_are_refused(options):
    with pytest.raises(ConfigError):
        SeparateObjectsd(**options)


def test_a_label_of_probabilities_is_refused_with_its_case():
    with pytest.raises(LabelError, match=r"case c: found labels that are not whole numbers"):
        SeparateObjectsd()({"case_id": "c", "label": torch.full((1, 4, 4), 0.3)})
