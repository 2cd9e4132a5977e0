"""One case looked at: pieces, centres and boxes of its label by hand, foreground intensities on any grid."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from pipeline.data.cases import Case
from pipeline.data.examine import examine_headers, examine_voxels
from pipeline.data.stack import load_stack
from pipeline.data.stack_rules import StackRules
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume

GRID = Grid((10, 8, 6), np.diag([1.0, 2.0, 3.0, 1.0]))


def ramp() -> np.ndarray:
    return np.arange(480, dtype=np.float32).reshape(10, 8, 6)


def case(tmp_path, ids: np.ndarray, grid: Grid = GRID) -> Case:
    write_volume(tmp_path / "t1.nii.gz", ramp(), GRID)
    write_volume(tmp_path / "label.nii.gz", ids, grid)
    return Case("sub-01", {"t1": tmp_path / "t1.nii.gz"}, tmp_path / "label.nii.gz")


def test_pieces_centres_and_box_of_a_label(tmp_path):
    ids = np.zeros(GRID.shape, np.uint8)
    ids[1, 1, 1] = ids[2, 2, 2] = 1  # touch at a corner: one piece
    ids[9, 7, 5] = 1
    ids[5, 4, 3] = 2
    found = examine_voxels(case(tmp_path, ids), ["t1"], StackRules())
    assert found.refusal is None
    assert found.label.voxels == {0: 476, 1: 3, 2: 1}
    assert found.label.components == {1: 2, 2: 1}
    assert found.label.box_mm == (9, 14, 15)
    assert found.label.centres[2] == pytest.approx((5.5 / 10, 4.5 / 8, 3.5 / 6))
    assert found.channels["t1"].foreground.count == 4
    assert found.channels["t1"].foreground.mean == pytest.approx(ramp()[ids > 0].mean())
    assert found.channels["t1"].stored == "float32"


def test_centres_are_those_of_the_world_not_of_the_file(tmp_path):
    ids = np.zeros(GRID.shape, np.uint8)
    ids[1, 6, 5] = 1
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    grid = Grid(GRID.shape, affine)
    write_volume(tmp_path / "t1.nii.gz", ramp(), grid)
    write_volume(tmp_path / "label.nii.gz", ids, grid)
    one = Case("sub-01", {"t1": tmp_path / "t1.nii.gz"}, tmp_path / "label.nii.gz")
    found = examine_voxels(one, ["t1"], StackRules())
    assert found.label.centres[1] == pytest.approx((1 - 1.5 / 10, 6.5 / 8, 5.5 / 6))


def test_foreground_of_a_channel_on_another_grid_is_interpolated(tmp_path):
    ids = np.zeros(GRID.shape, np.uint8)
    ids[4, 4, 2:4] = 1
    one = case(tmp_path, ids)
    finer = Grid((20, 16, 12), np.diag([0.5, 1.0, 1.5, 1.0]))
    z = np.broadcast_to(np.arange(12, dtype=np.float32) * 1.5, finer.shape)
    write_volume(tmp_path / "pet.nii.gz", np.ascontiguousarray(z), finer)
    two = Case("sub-01", {**one.image, "pet": tmp_path / "pet.nii.gz"}, one.label)
    found = examine_voxels(two, ["t1", "pet"], StackRules())
    assert found.channels["pet"].foreground.mean == pytest.approx((6 + 9) / 2)  # the slices' heights in mm
    assert [repair for repair in found.repairs if repair.startswith("pet: resampled")]


def test_an_absent_channel_may_be_zero_by_the_rules(tmp_path):
    one = case(tmp_path, np.zeros(GRID.shape, np.uint8))
    assert "no pet" in examine_voxels(one, ["t1", "pet"], StackRules()).refusal
    found = examine_voxels(one, ["t1", "pet"], StackRules(missing_channels="zero"))
    assert found.refusal is None
    assert found.repairs == ("pet: absent, 0 everywhere",)


@pytest.mark.parametrize("look", [examine_headers, examine_voxels])
def test_headers_and_voxels_say_the_same_of_grids(tmp_path, look):
    ids = np.zeros(GRID.shape, np.uint8)
    one = case(tmp_path, ids, Grid(GRID.shape, np.diag([2.0, 2.0, 3.0, 1.0])))
    assert "a label on another grid" in look(one, ["t1"], StackRules()).refusal
    same = Case("sub-01", one.image, one.image["t1"])
    assert "one file as image and as label" in look(same, ["t1"], StackRules()).refusal
    gone = Case("sub-01", {"t1": tmp_path / "gone.nii.gz"})
    found = look(gone, ["t1"], StackRules())
    assert "no such file" in found.refusal
    assert found.file_state == {f"image t1: {tmp_path / 'gone.nii.gz'}": ""}


def test_of_hundreds_of_ids_only_the_voxels_are_counted(tmp_path):
    found = examine_voxels(case(tmp_path, ramp().astype(np.uint16)), ["t1"], StackRules())
    assert len(found.label.voxels) == 480
    assert found.label.components == {}


@pytest.mark.parametrize("make", [os.link, shutil.copy])
def test_a_copy_is_no_label_and_no_second_channel(tmp_path, make):
    one = case(tmp_path, np.ones(GRID.shape, np.uint8))
    make(one.image["t1"], tmp_path / "copy.nii.gz")
    as_label = Case("sub-01", one.image, tmp_path / "copy.nii.gz")
    for look in (examine_headers, examine_voxels):
        assert "one file as image and as label" in look(as_label, ["t1"], StackRules()).refusal
    as_channel = Case("sub-01", {**one.image, "t2": tmp_path / "copy.nii.gz"})
    found = examine_voxels(as_channel, ["t1", "t2"], StackRules())
    assert (found.refusal, found.warnings) == (None, ("t2: the same file as t1",))


def both(tmp_path, t2: np.ndarray, grid: Grid, rules: StackRules | None = None) -> list[str]:
    """What looking at a case of two channels, and what loading it, refuses or remarks."""
    write_volume(tmp_path / "t1.nii.gz", ramp(), GRID)
    write_volume(tmp_path / "t2.nii.gz", t2, grid)
    paths = {"t1": tmp_path / "t1.nii.gz", "t2": tmp_path / "t2.nii.gz"}
    found = examine_voxels(Case("sub-01", paths), ["t1", "t2"], rules or StackRules())
    try:
        loaded = "; ".join(load_stack(paths, rules).repairs)
    except DataError as error:
        loaded = str(error)
    return [found.refusal or "; ".join(found.repairs), loaded]


def test_a_channel_without_contrast_where_the_reference_lies_is_refused_by_its_name(tmp_path):
    grid = Grid((20, 8, 6), np.diag([1.0, 2.0, 3.0, 1.0]))
    t2 = np.zeros(grid.shape, np.float32)
    t2[12:] = 7
    for text in both(tmp_path, t2, grid):
        assert "no contrast: every voxel of channel t2 inside the box of t1 is 0" in text
        assert "t2.nii.gz" in text
    for text in both(tmp_path, t2, grid, StackRules(missing_channels="zero")):
        assert "t2: 0 everywhere inside the box of t1, so it counts as absent" in text
    t2[4:6, 2, 2] = 1
    for text in both(tmp_path, t2, grid):
        assert "no contrast" not in text


def test_a_channel_of_one_voxel_is_refused(tmp_path):
    t2 = np.zeros(GRID.shape, np.float32)
    t2[3, 3, 3] = 9
    for text in both(tmp_path, t2, GRID):
        assert "no contrast: every voxel but one of channel t2 is 0" in text


def exchanged(tmp_path, image: np.ndarray, ids: np.ndarray) -> str:
    grid = Grid(image.shape, np.eye(4))
    write_volume(tmp_path / "t1.nii.gz", image, grid)
    write_volume(tmp_path / "label.nii.gz", ids, grid)
    found = examine_voxels(Case("x", {"t1": tmp_path / "t1.nii.gz"}, tmp_path / "label.nii.gz"), ["t1"], StackRules())
    return found.refusal or ""


@pytest.mark.parametrize("seed", range(3))
def test_an_image_in_the_labels_place_is_refused_and_objects_are_not(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shape = (24, 20, 12)
    brain = np.zeros(shape)
    brain[4:20, 4:16, 2:10] = 300 + rng.normal(0, 20, (16, 12, 8))
    lesion = np.zeros(shape, np.int16)
    lesion[8:12, 8:12, 4:7] = 1
    text = exchanged(tmp_path, lesion.astype(np.float32), brain.astype(np.int16))
    assert "an image in the label's place" in text
    assert "channel t1 holds a few whole numbers" in text
    assert "an image in the label's place" in exchanged(tmp_path, rng.random(shape, np.float32), brain.astype(np.int16))
    # blocks of 2 x 2 x 1 voxels that fill the volume, and specks of a voxel
    numbers = np.arange(12 * 10 * 12, dtype=np.int32).reshape(12, 10, 12)
    blocks = np.repeat(np.repeat(numbers, 2, axis=0), 2, axis=1)
    assert exchanged(tmp_path, brain.astype(np.float32), blocks) == ""
    specks = np.zeros(shape, np.int32)
    specks[::4, ::4, ::2] = np.arange(6 * 5 * 6).reshape(6, 5, 6)
    assert exchanged(tmp_path, brain.astype(np.float32), specks) == ""
