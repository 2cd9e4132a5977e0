"""Labels that number objects: the class and the numbers, by hand, for training, checking, measuring and reporting."""

import numpy as np
import pytest

from pipeline.bundle.measure import _Asked, _label_map
from pipeline.data.case_label import load_case_label, require_numbered
from pipeline.data.case_volumes import read_case_volumes
from pipeline.data.cases import Case
from pipeline.data.examine import examine_voxels
from pipeline.data.stack_rules import StackRules
from pipeline.errors import ConfigError, LabelError
from pipeline.geometry import Grid
from pipeline.io import write_section, write_volume
from pipeline.io.section import section_grid
from pipeline.transforms import LoadImageStackd

NUCLEI = np.array([[0, 7, 7, 300], [0, 7, 0, 300], [300, 0, 0, 0]])
RULES = StackRules(labels=(1,), label_holds="instances")


@pytest.fixture
def case(tmp_path) -> Case:
    write_section(tmp_path / "image.png", np.arange(12).reshape(3, 4))
    write_section(tmp_path / "label.png", NUCLEI)
    return Case("a", {"microscopy": tmp_path / "image.png"}, tmp_path / "label.png")


def test_every_number_is_an_object_of_the_one_class(case):
    label = load_case_label(case.label, section_grid(NUCLEI.shape), RULES)
    np.testing.assert_array_equal(label.classes.array[0], NUCLEI > 0)
    np.testing.assert_array_equal(label.instances[0], NUCLEI)
    assert label.classes.array.dtype == np.uint8
    classes = load_case_label(case.label, section_grid(NUCLEI.shape), StackRules(labels=(7, 300)))
    np.testing.assert_array_equal(classes.classes.array[0], NUCLEI)
    assert classes.instances is None


def test_the_doctor_counts_the_objects(case):
    found = examine_voxels(case, ["microscopy"], RULES)
    assert found.refusal is None
    assert found.label.voxels == {0: 6, 1: 6}
    assert found.label.components == {1: 2}  # one of them in two pieces


def test_maps_of_numbers_and_of_classes_are_shown_and_measured_alike(case, tmp_path):
    by_number, by_class = tmp_path / "numbers.png", tmp_path / "classes.png"
    write_section(by_number, NUCLEI)
    write_section(by_class, NUCLEI > 0)
    for prediction in (by_number, by_class, NUCLEI, (NUCLEI > 0).astype(np.uint8)):
        volumes = read_case_volumes(case, "microscopy", RULES, prediction)
        np.testing.assert_array_equal(volumes.prediction, NUCLEI > 0)
        np.testing.assert_array_equal(volumes.reference, NUCLEI > 0)
    asked = _Asked({1: "nucleus"}, RULES, 1.0, 0.0, False)
    for path in (by_number, by_class):
        np.testing.assert_array_equal(_label_map(path, section_grid(NUCLEI.shape), asked).array[0], NUCLEI > 0)


def test_numbers_below_0_and_several_classes_are_refused(tmp_path):
    grid = Grid((2, 2, 1), np.eye(4))
    write_volume(tmp_path / "label.nii.gz", np.array([[[0], [-3]], [[1], [0]]], np.int16), grid)
    with pytest.raises(LabelError, match="objects down to -3"):
        load_case_label(tmp_path / "label.nii.gz", grid, RULES)
    for wrong in ({"labels": (1, 2)}, {"labels": None}, {"labels": (1,), "label_values": {1: 255}}):
        with pytest.raises(ConfigError, match="expected one class"):
            StackRules(label_holds="instances", **wrong)
    with pytest.raises(ConfigError, match="expected classes or instances"):
        StackRules(label_holds="objects")


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_in_place_of_numbers_is_refused(case, value):
    mask = np.zeros((3, 8), np.uint8)
    mask[0, ::2] = value
    for pieces, columns in ((2, 4), (4, 8)):
        write_section(case.image["microscopy"], np.arange(3 * columns).reshape(3, columns))
        write_section(case.label, mask[:, :columns])
        refusal = examine_voxels(case, ["microscopy"], RULES).refusal
        item = {"image": str(case.image["microscopy"]), "label": str(case.label)}
        load = LoadImageStackd(channels=["microscopy"], labels=[1], label_holds="instances")
        if pieces == 2:  # one object with a gap
            assert refusal is None
            assert load(item)["label_instances"].max() == value
        else:
            assert f"one number, {value}, for 4 pieces" in refusal
            with pytest.raises(LabelError, match="a number of its own for each object"):
                load(item)
    empty = load_case_label(case.label, section_grid(mask.shape), RULES)
    empty.instances[:] = 0
    require_numbered(empty, case.label)
