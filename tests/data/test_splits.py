import json

import nibabel as nib
import numpy as np
import pytest

from pipeline.data import Split, data_list, k_fold, patient_of, read_split, write_split
from pipeline.data.label_volumes import label_volumes
from pipeline.data.splits import fingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_section, write_volume

IDS = [f"sub-{i:02}_ses-{s}" for i in range(11) for s in (1, 2)]


def test_folds_partition_the_patients():
    splits = [k_fold(IDS, folds=5, fold=fold, seed=3) for fold in range(5)]
    assert sorted(case for split in splits for case in split.validate) == IDS
    for split in splits:
        assert sorted(split.train + split.validate) == IDS
        assert not {patient_of(c) for c in split.train} & {patient_of(c) for c in split.validate}
        assert len({patient_of(c) for c in split.validate}) in (2, 3)


def test_split_is_pinned_and_independent_of_order():
    """A literal: it must not change with platform, library version or file order, or old runs can't be compared."""
    names = ["a", "b", "c", "d", "e", "f"]
    expected = Split(train=("a", "b", "c", "d"), validate=("e", "f"))
    assert k_fold(names, folds=3, fold=0, seed=0) == expected
    assert k_fold(reversed(names), folds=3, fold=0, seed=0) == expected
    assert len({k_fold(names, folds=3, fold=0, seed=seed) for seed in range(10)}) > 1


def test_few_patients():
    assert {k_fold(["a", "b", "c"], folds=5, fold=fold).validate for fold in range(3)} == {("a",), ("b",), ("c",)}
    with pytest.raises(ConfigError, match="0 to 2"):
        k_fold(["a", "b", "c"], folds=5, fold=3)
    with pytest.raises(ConfigError, match="at least 2"):
        k_fold(["a", "b", "c"], folds=1)
    with pytest.raises(DataError, match=r"2 case\(s\) of 1 patient\(s\)"):
        k_fold(["a_ses-1", "a_ses-2"])


def stack_of(name, number):
    return {f"{name}_{i:03d}": (name, i) for i in range(number)}


@pytest.mark.parametrize("names", [["one"], ["one", "two", "sub-01"]])
def test_few_stacks_are_cut_into_blocks(names, tmp_path):
    stacks = {case: place for name in names for case, place in stack_of(name, 1100).items()}
    validated = []
    for fold in range(4):
        split = k_fold(stacks, folds=4, fold=fold, stacks=stacks)
        assert sorted(split.train + split.validate) == sorted(stacks)
        validated += split.validate
        in_part = set(split.validate)
        borders = [c for c, (n, i) in stacks.items() if i and (c in in_part) != (f"{n}_{i - 1:03d}" in in_part)]
        assert len(borders) <= 2
        assert sum(case.startswith("sub-01_") for case in in_part) in (0, 1100)
        write_split(tmp_path / "split.json", split)
        assert read_split(tmp_path / "split.json") == split
    assert sorted(validated) == sorted(stacks)


def test_stacks_are_whole_where_there_are_enough(tmp_path):
    stacks = {case: place for name in ("a", "b_ses-1", "b_ses-2", "c") for case, place in stack_of(name, 5).items()}
    cases = [*stacks, "d"]
    for fold in range(4):
        split = k_fold(cases, folds=4, fold=fold, stacks=stacks)
        assert not {case.split("_")[0] for case in split.train} & {case.split("_")[0] for case in split.validate}
        write_split(tmp_path / "split.json", split)
        assert read_split(tmp_path / "split.json") == split
    with pytest.raises(DataError, match=r"5 case\(s\) of 1 patient"):
        k_fold(stack_of("sub-01", 5), stacks=stack_of("sub-01", 5))


@pytest.mark.parametrize("ids", [IDS, ["a\udcff", "läs", "c", "d"]])  # the first holds a byte that is no letter
def test_round_trip(tmp_path, ids):
    split = k_fold(ids, seed=1)
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"train": ["a_ses-1"], "validate": ["a_ses-2"]}, "patients in both parts: a"),
        ({"train": ["a"]}, "another form"),
        ({"train": "a", "validate": []}, "another form"),
        ([], "another form"),
        (None, "not JSON"),
    ],
)
def test_refuses_other_files(tmp_path, content, found):
    (tmp_path / "split.json").write_text("{" if content is None else json.dumps(content))
    with pytest.raises(DataError, match=found):
        read_split(tmp_path / "split.json")
    with pytest.raises(DataError, match="can't be read"):
        read_split(tmp_path / "missing.json")


def test_images_that_differ_behind_their_first_mebibyte_have_other_fingerprints(tmp_path):
    empty_slices = bytes(2**20 + 352)
    for name, voxels in (("a", b"\x01"), ("b", b"\x02"), ("c", b"\x01")):
        (tmp_path / name).write_bytes(empty_slices + voxels * 2**20)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == c != b
    (tmp_path / "short").write_bytes(b"one")
    assert fingerprint(tmp_path / "short").endswith("-3")


def test_stratified_folds_resemble_each_other():
    volumes = {f"p{i:03d}": {1: 0.0 if i % 4 == 0 else float(i)} for i in range(100)}
    for seed in range(3):
        splits = [k_fold(volumes, folds=5, fold=fold, seed=seed, volumes=volumes) for fold in range(5)]
        assert sorted(case for split in splits for case in split.validate) == sorted(volumes)
        for split in splits:
            found = sorted(volumes[case][1] for case in split.validate)
            assert found.count(0.0) == 5
            assert abs(sum(found) / 20 - 37.5) < 2  # the mean of all
    assert splits[0] != k_fold(volumes, folds=5, fold=0, seed=0, volumes=volumes)
    assert splits[0].validate == k_fold(sorted(volumes, reverse=True), folds=5, seed=2, volumes=volumes).validate


def test_rare_classes_are_spread_over_the_folds():
    """Two patients of twenty have class 2, with small volumes: each fold of two gets one of them."""
    volumes = {f"p{i:02d}": {1: float(i), 2: 0.1 if i in (3, 17) else 0.0} for i in range(20)}
    for seed in range(5):
        for fold in range(2):
            split = k_fold(volumes, folds=2, fold=fold, seed=seed, volumes=volumes)
            assert len({"p03", "p17"} & set(split.validate)) == 1


def test_stratified_folds_keep_patients_together_and_count_them_by_all_their_cases():
    volumes = {f"sub-{i}_ses-{s}": {1: float(i)} for i in range(8) for s in (1, 2)}
    for fold in range(4):
        split = k_fold(volumes, folds=4, fold=fold, volumes=volumes)
        assert len(split.validate) == 4
        assert len({patient_of(case) for case in split.validate}) == 2
    assert k_fold([*volumes, "sub-9"], folds=4, volumes=volumes)  # a case without a label counts as empty


def test_patients_that_the_ids_do_not_name(tmp_path):
    patients = {"scan1": "smith", "scan2": "smith", "scan3": "doe"}
    for fold in range(3):
        split = k_fold([*patients, "scan4"], folds=3, fold=fold, patients=patients)
        assert len({"scan1", "scan2"} & set(split.validate)) in (0, 2)
        assert split.patients == patients
        write_split(tmp_path / "split.json", split)
        assert read_split(tmp_path / "split.json") == split
    write_split(tmp_path / "split.json", Split(("scan1",), ("scan2",), patients=patients))
    with pytest.raises(DataError, match="patients in both parts: smith"):
        read_split(tmp_path / "split.json")


def test_a_list_of_folds_as_nnunet_writes_it(tmp_path):
    (tmp_path / "splits_final.json").write_text(
        json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}])
    )
    assert read_split(tmp_path / "splits_final.json") == Split(("a", "b"), ("c",))
    assert read_split(tmp_path / "splits_final.json", fold=1).validate == ("a",)
    with pytest.raises(ConfigError, match=r"0 to 1, the folds of splits_final\.json"):
        read_split(tmp_path / "splits_final.json", fold=2)


def test_the_split_without_volumes_is_the_one_of_earlier_versions():
    """The shipped bundles were measured on it."""
    hippocampus = [f"hippocampus_{i:03d}" for i in (1, 3, 4, 6, 7, 8, 11, 14, 15, 17)]
    assert k_fold(hippocampus, folds=5).validate == ("hippocampus_006", "hippocampus_014")


def test_volumes_are_read_from_the_labels(tmp_path, caplog):
    for i in range(6):
        label = np.zeros((4, 4, 4), np.uint8)
        label[: i // 2] = 2
        write_volume(tmp_path / f"p{i}_label.nii.gz", label, Grid((4, 4, 4), np.diag([10.0, 10.0, 10.0, 1.0])))
        (tmp_path / f"p{i}_mri.nii.gz").touch()
    (tmp_path / "p5_label.nii.gz").write_bytes(b"")
    volumes = label_volumes({f"p{i}": tmp_path / f"p{i}_label.nii.gz" for i in range(6)})
    assert {case: list(found) for case, found in volumes.items()} == {
        "p0": [],
        "p1": [],
        "p2": [2],
        "p3": [2],
        "p4": [2],
    }
    assert [volumes[case][2] for case in ("p2", "p3", "p4")] == pytest.approx([16, 16, 32])  # ml: voxels of 10 mm
    assert "p5" in caplog.text
    for fold in range(2):
        ids = tuple(i["case_id"] for i in data_list(tmp_path, ["mri"], "validate", folds=2, fold=fold, stratify=True))
        assert ids == k_fold([f"p{i}" for i in range(6)], folds=2, fold=fold, volumes=volumes).validate


def test_folds_resemble_each_other_in_how_many_objects_their_labels_number(tmp_path):
    """Whatever the numbers are: by them as classes, no two images would be alike."""
    objects = [0, 1, 1, 6, 6, 0]
    for i, number in enumerate(objects):
        section = np.zeros((8, 8), np.uint8)
        section[0, :number] = np.arange(number) + 1 + 10 * i
        section[1, : 8 - number] = section[0, 0]  # the fewer, the larger
        write_section(tmp_path / "labels" / f"p{i}.png", section)
        write_section(tmp_path / "images" / f"p{i}.png", section)
    labels = {f"p{i}": tmp_path / "labels" / f"p{i}.png" for i in range(6)}
    volumes = label_volumes(labels, label_holds="instances")
    assert volumes == {f"p{i}": {1: float(number)} if number else {} for i, number in enumerate(objects)}
    options = {"folds": 2, "spatial_dims": 2, "stratify": True, "label_holds": "instances"}
    for fold in range(2):
        ids = [item["case_id"] for item in data_list(tmp_path, ["em"], "validate", fold=fold, **options)]
        assert sorted(objects[int(case_id[1:])] for case_id in ids) == [0, 1, 6]


def test_what_a_bundle_may_take_on_trust_of_a_label_does_not_make_it_empty(tmp_path, caplog):
    header = nib.Nifti1Header()
    header["pixdim"][1:4] = 1, 2, 40  # neither qform nor sform, and slices that spacing_limits_mm would have to allow
    nib.save(nib.Nifti1Image(np.ones((4, 4, 2), np.uint8), None, header), tmp_path / "p1_label.nii.gz")
    assert label_volumes({"p1": tmp_path / "p1_label.nii.gz"}) == {"p1": {1: pytest.approx(32 * 80 / 1000)}}
    assert not caplog.text


def test_patients_from_a_file(tmp_path):
    for i in range(4):
        (tmp_path / f"p{i}_mri.nii.gz").touch()
        (tmp_path / f"p{i}_label.nii.gz").touch()
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\np0,x\np3,x\np1,y\n")
    (tmp_path / "patients.json").write_text('{"p0": "x", "p3": "x"}')
    for file in (table, tmp_path / "patients.json"):
        parts = {
            tuple(i["case_id"] for i in data_list(tmp_path, ["mri"], "validate", folds=3, fold=fold, patients=file))
            for fold in range(3)
        }
        assert parts == {("p0", "p3"), ("p1",), ("p2",)}
    table.write_text("case,patient\np0,x\np0,y\n")
    with pytest.raises(DataError, match=r"case p0.*two patients"):
        data_list(tmp_path, ["mri"], "train", patients=table)
