"""Which image, reference and prediction a report shows of a case, and what it says where one can't be shown."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.bundle.shown_cases import shown_cases
from pipeline.data.file_digests import file_digest
from pipeline.errors import ConfigError
from pipeline.geometry import Grid
from pipeline.io import write_volume

GRID = Grid((8, 9, 5), np.diag([1.0, 1.0, 3.0, 1.0]))


@pytest.fixture
def folders(tmp_path):
    """Two cases of two channels, and a prediction of the first."""
    for number, name in enumerate(("sub-1", "sub-2")):
        case = tmp_path / "data" / name
        for channel in ("t1", "t2"):
            write_volume(case / f"{name}_{channel}.nii.gz", np.full(GRID.shape, number + 1.0, np.float32), GRID)
        ids = np.zeros(GRID.shape, np.uint8)
        ids[2:4, 2:4, 2] = 1
        write_volume(case / f"{name}_label.nii.gz", ids, GRID)
    write_volume(tmp_path / "out" / "sub-1.nii.gz", np.full(GRID.shape, 2, np.uint8), GRID)
    return tmp_path


def test_files_are_found_by_the_case(folders):
    done = []
    ids = ["sub-1", "sub-2", "sub-3"]
    shown = shown_cases(folders / "out", {}, ids, folders / "data", channel="T2", progress=lambda *n: done.append(n))
    case = shown.volumes["sub-1"]
    assert (case.channel, case.image.max(), int(case.reference.sum()), case.prediction.min()) == ("t2", 1, 4, 2)
    assert case.grid.same_grid(GRID)
    assert shown.problems == {"sub-2": "no prediction of its name", "sub-3": "not in the dataset"}
    assert not shown.predicted_again
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_predictions_of_another_tool_are_paired_by_name(folders):
    (folders / "out" / "sub-1.nii.gz").rename(folders / "out" / "sub-1_pred.nii.gz")
    (folders / "measured").mkdir()
    shown = shown_cases(
        folders / "measured", {"kind": "measure"}, ["sub-1"], folders / "data", predictions=folders / "out"
    )
    assert shown.volumes["sub-1"].prediction.min() == 2


def test_a_prediction_on_another_grid_is_no_picture_and_names_no_folder(folders):
    write_volume(folders / "out" / "sub-2.nii.gz", np.ones((8, 9, 6), np.uint8), Grid((8, 9, 6), GRID.affine))
    shown = shown_cases(folders / "out", {}, ["sub-2"], folders / "data")
    assert "another grid" in shown.problems["sub-2"]
    assert str(folders) not in shown.problems["sub-2"]


def test_a_channel_that_there_is_not(folders):
    with pytest.raises(ConfigError, match="one of t1, t2"):
        shown_cases(folders / "out", {}, ["sub-1"], folders / "data", channel="flair")


def test_pseudonyms_lead_to_the_files_and_stand_for_them(folders):
    names = folders / "names.csv"
    names.write_text("id,pseudonym\nsub-1,P1\nsub-2,P2\n")
    (folders / "out" / "sub-1.nii.gz").rename(folders / "out" / "P1.nii.gz")
    shown = shown_cases(folders / "out", {"kind": "predict"}, ["P1"], folders / "data", pseudonyms=names)
    assert shown.volumes["P1"].case_id == "P1"


def test_sections_whose_files_hold_other_values_than_ids(tmp_path):
    """Cells are 255 in the files of the membrane bundle: in the references, and in what it predicts."""
    for folder, value in (("data/images", 90), ("data/labels", 255), ("out", 255)):
        pixels = np.zeros((20, 30), np.uint8)
        pixels[4:12, 4:12] = value
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "07.png")
    record = {"kind": "predict", "bundle": {"name": "membrane_em_segmentation"}}
    shown = shown_cases(tmp_path / "out", record, ["07"], tmp_path / "data")
    assert shown.problems == {}
    case = shown.volumes["07"]
    assert shown.classes == {1: "cell"}
    for ids in (case.reference, case.prediction):
        assert (sorted(np.unique(ids)), int(ids.sum())) == ([0, 1], 64)


def test_figures_of_one_reference_get_no_picture_of_another(folders):
    """The same ids in another dataset: the page would show what was not measured."""
    label = folders / "data" / "sub-1" / "sub-1_label.nii.gz"
    record = {"kind": "measure", "inputs": {"sub-1": {"prediction": "any", "label": file_digest(label)}}}
    assert shown_cases(folders / "out", record, ["sub-1"], folders / "data").problems == {}
    write_volume(label, np.ones(GRID.shape, np.uint8), GRID)
    shown = shown_cases(folders / "out", record, ["sub-1"], folders / "data")
    assert shown.problems == {"sub-1": "its reference in this dataset is another file than the one that was measured"}
