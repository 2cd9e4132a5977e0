"""Predictions and references by their names, as tools write them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.pairs import find_pairs, renamed
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def paired(predictions: Path, references: Path) -> dict[str, str | None]:
    pairs = find_pairs(predictions, references).pairs
    return {pair.case_id: pair.prediction and pair.prediction.relative_to(predictions).as_posix() for pair in pairs}


@pytest.mark.parametrize(
    ("prediction", "reference", "case_id"),
    [
        ("a.nii.gz", "a.nii.gz", "a"),
        ("a.nii", "a.nii.gz", "a"),
        ("a_pred.nii.gz", "a_seg.nii.gz", "a"),
        ("a-prediction.nii.gz", "a.nii.gz", "a"),
        ("a/a.nii.gz", "a/a_lesion.nii.gz", "a"),
        ("a/pred.nii.gz", "a/label.nii.gz", "a"),
        ("out/a_mask.nii.gz", "label/a_gt.nii.gz", "a"),
        ("x_label.nii.gz", "x_label.nii.gz", "x"),
    ],
)
def test_names_of_one_case(tmp_path, prediction, reference, case_id):
    p, r = touch(tmp_path / "p", prediction), touch(tmp_path / "r", reference)
    assert paired(p, r) == {case_id: prediction}


def test_sections(tmp_path):
    p, r = touch(tmp_path / "p", "00.png", "01.png"), touch(tmp_path / "r", "00.tif", "01.tif")
    assert paired(p, r) == {"00": "00.png", "01": "01.png"}


def test_equal_names_in_other_folders_are_told_apart(tmp_path):
    files = ("a/lesion.nii.gz", "b/lesion.nii.gz")
    assert paired(touch(tmp_path / "p", *files), touch(tmp_path / "r", *files)) == {"a": files[0], "b": files[1]}
    visits = ("s1/v1/seg.nii.gz", "s2/v1/seg.nii.gz")
    ids = {name.removesuffix(".nii.gz"): name for name in visits}
    assert paired(touch(tmp_path / "p2", *visits), touch(tmp_path / "r2", *visits)) == ids


def test_what_is_not_certain_is_not_paired(tmp_path):
    p = touch(tmp_path / "p", "a_pred.nii.gz", "sub/a_seg.nii.gz", "b.nii.gz", "z.nii.gz")
    r = touch(tmp_path / "r", "a.nii.gz", "b.nii.gz", "c.nii.gz")
    found = find_pairs(p, r)
    by_id = {pair.case_id: pair for pair in found.pairs}
    assert by_id["a"].prediction is None
    assert by_id["a"].problem == "several predictions of its name: a_pred.nii.gz, a_seg.nii.gz"
    assert by_id["b"].prediction == p / "b.nii.gz"
    assert (by_id["c"].prediction, by_id["c"].problem) == (None, None)
    assert found.extra == ("z",)


def test_one_prediction_is_not_the_result_of_two_references(tmp_path):
    p = touch(tmp_path / "p", "a.nii.gz")
    r = touch(tmp_path / "r", "x/a_seg.nii.gz", "y/a_gt.nii.gz")
    assert [pair.problem for pair in find_pairs(p, r).pairs] == [
        "a prediction that fits another reference too: a.nii.gz"
    ] * 2


def test_a_dataset_s_labels_are_its_references_and_probabilities_no_prediction(tmp_path):
    r = tmp_path / "r"
    for case in ("sub-1", "sub-2"):
        for name in ("cbf", "mtt", "label"):
            write_volume(r / case / f"{case}_{name}.nii.gz", np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    p = touch(tmp_path / "p", "sub-1/sub-1.nii.gz", "sub-1/sub-1_probability_lesion.nii.gz", "sub-2/sub-2.nii.gz")
    found = find_pairs(p, r)
    assert [pair.reference.name for pair in found.pairs] == ["sub-1_label.nii.gz", "sub-2_label.nii.gz"]
    assert paired(p, r) == {"sub-1": "sub-1/sub-1.nii.gz", "sub-2": "sub-2/sub-2.nii.gz"}
    assert found.extra == ()


def test_two_files(tmp_path):
    p, r = touch(tmp_path, "anything.nii.gz", "b_label.nii.gz"), tmp_path
    [pair] = find_pairs(p / "anything.nii.gz", r / "b_label.nii.gz").pairs
    assert (pair.case_id, pair.prediction) == ("b", p / "anything.nii.gz")


def test_under_pseudonyms_no_name_is_left(tmp_path):
    p = touch(tmp_path / "p", "smith.nii.gz", "smith_seg.nii.gz", "roe.nii.gz", "poe.nii.gz")
    r = touch(tmp_path / "r", "smith_gt.nii.gz", "roe.nii.gz")
    found = renamed(find_pairs(p, r), Pseudonyms({"smith": "P1", "roe": "P2"}))
    assert {pair.case_id for pair in found.pairs} == {"P1", "P2"}
    assert not any(name in f"{pair.problem}{found.extra}" for pair in found.pairs for name in ("smith", "roe", "poe"))
    with pytest.raises(DataError, match="1 of 2 cases without a pseudonym: smith"):
        renamed(find_pairs(p, r), Pseudonyms({"roe": "P2"}))


def test_what_is_refused(tmp_path):
    p, r, empty = touch(tmp_path / "p", "x.nii.gz"), touch(tmp_path / "r", "a.nii.gz"), tmp_path / "empty"
    empty.mkdir()
    for predictions, references, message in (
        (p, r, r"no file with the name of a reference \(x\.\.\.\).*names such as a"),
        (p, tmp_path / "nowhere", "no such file or folder"),
        (p, p, "the same folder twice"),
        (empty, r, "no label map"),
        (p, empty, "no label map"),
    ):
        with pytest.raises(DataError, match=message):
            find_pairs(predictions, references)
