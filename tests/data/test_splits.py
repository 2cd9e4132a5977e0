import json

import pytest

from pipeline.data import Split, k_fold, patient_of, read_split, write_split
from pipeline.data.splits import fingerprint
from pipeline.errors import ConfigError, DataError

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


def test_round_trip(tmp_path):
    split = k_fold(IDS, seed=1)
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
