"""Files that are named after another channel than the one asked for are refused, named or mentioned."""

import logging
from pathlib import Path

import pytest

from pipeline.bundle.check import check
from pipeline.data import describe_dataset, find_cases
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.errors import DataError


def touch(root: Path, *stems: str) -> Path:
    for stem in stems:
        path = root / f"{stem}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def in_folders(*names: str, number: int = 3) -> list[str]:
    return [f"h_{i:03d}/h_{i:03d}_{name}" for i in range(number) for name in names]


@pytest.mark.parametrize(
    ("stems", "channels"),
    [
        (in_folders("t1", "label"), "t1"),
        (in_folders("cbf", "cbv", "mtt"), "cbf, cbv, mtt"),
        (in_folders("early", "late"), "early, late"),
        (["p1/t1", "p1/lesion", "p2/t1"], "t1"),
        (["p1_t1", "p1_label", "p2_t1", "p2_label"], "t1"),
        (["p1_cbf", "p1_cbv", "p2_cbf", "p3_mtt"], "cbf, cbv"),  # nothing that all share, but two maps of one patient
        (["cbf", "mtt"], "cbf, mtt"),
        (["images/p1_t1", "images/p1_t2", "labels/p1"], "t1, t2"),
        (["images/p1_t1", "images/p2_t1", "labels/p1", "labels/p2"], "t1"),
    ],
)
@pytest.mark.parametrize("list_of", [describe_dataset, lambda root, names: find_cases(root, names, False)])
def test_what_is_named_after_other_channels_is_not_taken_for_the_only_one(tmp_path, stems, channels, list_of):
    with pytest.raises(DataError, match=f"the channels {channels}; expected mri, the only channel") as refusal:
        list_of(touch(tmp_path / "d", *stems), ["mri"])
    assert "cases.csv" in str(refusal.value)


@pytest.mark.parametrize(
    ("stems", "ids"),
    [
        (["h_001", "h_003", "h_001_label", "h_003_label"], ["h_001", "h_003"]),
        (["h_001_0000", "h_003_0000"], ["h_001_0000", "h_003_0000"]),
        (["in/alice", "in/bob"], ["alice", "bob"]),
        (["smith_john", "doe_john", "li", "wu", "wu_label"], ["doe_john", "li", "smith_john", "wu"]),
        (["a_left", "a_left_label", "a_right", "a_right_label"], ["a_left", "a_right"]),  # cases by their labels
        (["images/a_left", "images/a_right", "labels/a_left", "labels/a_right"], ["a_left", "a_right"]),
        (["p1/scan", "p1/label", "p2/scan", "p2/label"], ["p1_scan", "p2_scan"]),
    ],
)
def test_what_is_named_after_its_case_alone_is(tmp_path, stems, ids):
    cases = find_cases(touch(tmp_path / "d", *stems), ["mri"], require_label=False)
    assert [case.case_id for case in cases] == ids
    labels = sum(name.endswith("label") or name.startswith("labels") for name in stems)
    assert sum(case.label is not None for case in cases) == labels


def test_a_case_of_which_no_file_is_named_after_a_channel_is_refused_by_name(tmp_path):
    touch(tmp_path, *in_folders("t1", "label", number=11), "h_900/h_900_T1w", "h_900/h_900_label", "h_901/h_901_T1w")
    touch(tmp_path, "atlas/mni", "template")
    found = describe_dataset(tmp_path)
    problems = {case.case_id: case.problem for case in found.cases if case.problem}
    assert problems == {f"h_{i}": f"no t1; found h_{i}_T1w.nii.gz" for i in (900, 901)}
    assert "of no case, and not read: template.nii.gz, mni.nii.gz" in found.announcement
    assert sum(case.problem is not None for case in find_cases(tmp_path, ["t1"], True, keep_incomplete=True)) == 1
    with pytest.raises(DataError, match=r"h_900: no t1; found h_900_T1w\.nii\.gz"):
        find_cases(tmp_path, ["t1"])
    flat = touch(tmp_path / "flat", *(f"p{i}_t1" for i in range(5)), "q_T1w", "q_label")
    assert describe_dataset(flat, ["t1"]).cases[-1].problem == "no t1; found q_T1w.nii.gz"


def test_under_a_pseudonym_no_file_is_named(tmp_path):
    touch(tmp_path / "d", *in_folders("t1"), "smith/smith_T1w")
    ids = ["h_000", "h_001", "h_002", "smith"]
    names = tmp_path / "names.csv"
    names.write_text("id,pseudonym\n" + "".join(f"{case_id},P{n}\n" for n, case_id in enumerate(ids)))
    cases = find_cases(tmp_path / "d", ["t1"], False, keep_incomplete=True, pseudonyms=Pseudonyms.read(names))
    assert [case.problem for case in cases] == [None, None, None, "no t1"]
    checked = check(tmp_path / "d", pseudonyms=names)
    assert "smith" not in str([checked.findings, checked.lines()])


def test_columns_that_are_not_read_are_named_and_a_reference_is_a_label(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    touch(tmp_path, "1", "2", "3")
    table = tmp_path / "cases.csv"
    table.write_text("case,mri,pet,reference,age\na,1.nii.gz,3.nii.gz,2.nii.gz,61\n")
    (case,) = find_cases(table, ["mri"])
    assert case.label == tmp_path / "2.nii.gz"
    assert "not read: the columns pet, age" in caplog.text
    assert describe_dataset(table).channel_names == ("mri", "pet")


@pytest.mark.parametrize("key", ["modality", "channel_names"])
def test_the_fix_names_the_key_that_is_there(tmp_path, key):
    touch(tmp_path, "imagesTr/a_0000")
    (tmp_path / "dataset.json").write_text(f'{{"{key}": {{"0": "MRI"}}, "labels": {{}}}}')
    with pytest.raises(DataError, match=f'correct "{key}" in dataset'):
        find_cases(tmp_path, ["ct"])
