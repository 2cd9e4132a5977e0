"""The data doctor on small datasets with one planted fault each; what it says of clean ones, and of all cases alike."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.data import check_dataset, check_headers, describe_dataset, find_cases
from pipeline.data.check import Check
from pipeline.data.fingerprint_store import FingerprintStore
from pipeline.data.stack_rules import StackRules
from pipeline.data.summary import as_json, summary, summary_lines
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import read_volume, write_volume

GRID = Grid((20, 24, 16), np.diag([1.0, 1.0, 2.0, 1.0]))
CASES = 9


def image(seed: int) -> np.ndarray:
    """Something without any symmetry: brighter to the right, the front and the top, a block in one corner."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(0, 1, side) for side in GRID.shape), indexing="ij")
    volume = 100 + 60 * x + 30 * y + 20 * z + rng.normal(0, 4, GRID.shape)
    volume[12:18, 3:9, 9:14] += 150
    return volume.astype(np.float32)


def label(seed: int) -> np.ndarray:
    ids = np.zeros(GRID.shape, np.uint8)
    ids[12:17, 3 : 8 + seed % 2, 9:13] = 1
    ids[4:7, 14:18, 3:6] = 2
    return ids


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "scans"
    for number in range(CASES):
        case = folder / f"sub-{number:02d}"
        write_volume(case / f"{case.name}_t1.nii.gz", image(number), GRID)
        write_volume(case / f"{case.name}_label.nii.gz", label(number), GRID)
    return folder


@pytest.fixture
def dataset(clean, tmp_path) -> Path:
    return shutil.copytree(clean, tmp_path / "scans")


def checked(folder: Path, kept: Path | None = None, rules: StackRules | None = None) -> Check:
    description = describe_dataset(folder, ["t1"])
    return check_dataset(description, jobs=2, kept_in=kept or folder.parent / "kept", rules=rules or StackRules())


def of_sub_04(folder: Path) -> tuple[Path, Path]:
    return folder / "sub-04" / "sub-04_t1.nii.gz", folder / "sub-04" / "sub-04_label.nii.gz"


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = of_sub_04(folder)[0]
        volume = read_volume(path)
        array = change(volume.array)
        nibabel.save(nibabel.Nifti1Image(array, volume.grid.affine), path)

    return plant


def one_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 3, 3] = value
        return array

    return change


def relabelled(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        write_volume(of_sub_04(folder)[1], change(label(0)), GRID)

    return plant


def another_grid(folder: Path) -> None:
    for path in of_sub_04(folder):
        write_volume(path, read_volume(path).array, Grid(GRID.shape, np.diag([1.0, 1.0, 3.0, 1.0])))


def label_elsewhere(folder: Path) -> None:
    affine = GRID.affine.copy()
    affine[0, 3] = 7
    write_volume(of_sub_04(folder)[1], label(0), Grid(GRID.shape, affine))


def stored_mirrored(folder: Path) -> None:
    """The same anatomy, stored from right to left, and its header says so."""
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = GRID.shape[0] - 1
    for path in of_sub_04(folder):
        write_volume(path, read_volume(path).array[::-1], Grid(GRID.shape, affine))


def truncated(folder: Path) -> None:
    path = of_sub_04(folder)[0]
    path.write_bytes(path.read_bytes()[:-500])


def bit_flipped(folder: Path) -> None:
    path = of_sub_04(folder)[0]
    plain = bytearray(gzip.decompress(path.read_bytes()))
    whole = gzip.compress(bytes(plain), 0)  # stored, not compressed: a flipped bit decompresses without complaint
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))


def no_space(folder: Path) -> None:
    path = of_sub_04(folder)[0]
    array = read_volume(path).array
    volume = nibabel.Nifti1Image(array, None)
    volume.header["qform_code"] = volume.header["sform_code"] = 0
    nibabel.save(volume, path)


def copied(folder: Path) -> None:
    shutil.copy(folder / "sub-07" / "sub-07_t1.nii.gz", of_sub_04(folder)[0])


def bigger(ids: np.ndarray) -> np.ndarray:
    ids[1:19, 1:12, 5:15] = 1
    return ids


def with_id_7(ids: np.ndarray) -> np.ndarray:
    ids[0, 0, :2] = 7
    return ids


def without_2(ids: np.ndarray) -> np.ndarray:
    ids[ids == 2] = 0
    return ids


def mirrored_label(ids: np.ndarray) -> np.ndarray:
    return ids[::-1]


PLANTED = {
    "NaN": (changed(one_voxel(np.nan)), "refused", "1 voxel"),
    "constant": (changed(np.zeros_like), "refused", "no contrast"),
    "truncated": (truncated, "refused", "found"),
    "bit flip": (bit_flipped, "refused", "gzip"),
    "no space": (no_space, "refused", "neither qform nor sform"),
    "label elsewhere": (label_elsewhere, "refused", "a label on another grid"),
    "label of 0.7": (relabelled(lambda ids: ids * np.float32(0.7)), "refused", "no integer"),
    "one absurd voxel": (changed(one_voxel(1e30)), "warning", "1 voxel far from all others"),
    "other intensities": (changed(lambda array: array * 1000), "warning", "t1: values"),
    "other voxel size": (another_grid, "warning", "voxel size 1x1x3 mm"),
    "mirrored voxels": (changed(lambda array: np.ascontiguousarray(array[::-1])), "warning", "left and right"),
    "turned over": (changed(lambda array: np.ascontiguousarray(array[:, :, ::-1])), "warning", "top and bottom"),
    "stored mirrored": (stored_mirrored, "warning", "stored as LAS: a mirror image"),
    "mirrored label": (relabelled(mirrored_label), "warning", "left and right"),
    "a large label": (relabelled(bigger), "warning", "volume of id 1:"),
    "another id": (relabelled(with_id_7), "warning", "label id 7"),
    "image as label": (
        lambda folder: write_volume(of_sub_04(folder)[1], image(4).astype(np.uint16), GRID),
        "refused",
        "an image in the label's place",
    ),
    "a class missing": (relabelled(without_2), "warning", "no voxel of id 2"),
    "a label missing": (lambda folder: of_sub_04(folder)[1].unlink(), "warning", "no label"),
    "an empty label": (relabelled(np.zeros_like), "info", "1 of 9 labels are empty"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(dataset, name):
    plant, severity, words = PLANTED[name]
    plant(dataset)
    found = checked(dataset)
    right = [f for f in found.findings if f.cases == ("sub-04",) and f.severity == severity and words in f.found]
    assert right, found.findings
    assert found.refused == (("sub-04",) if severity == "refused" else ())
    # no other case is blamed for it
    assert {case for finding in found.findings for case in finding.cases} == {"sub-04"}


def test_two_ids_with_the_same_voxels_are_named_together(dataset):
    copied(dataset)
    (finding,) = (finding for finding in checked(dataset).findings if finding.topic == "copies")
    assert finding.cases == ("sub-04", "sub-07")


def test_a_clean_dataset_has_no_finding(dataset):
    found = checked(dataset)
    assert found.findings == ()
    numbers = summary(found.fingerprint)
    assert numbers["cases"] == CASES
    assert numbers["shape"]["median"] == [20, 24, 16]
    assert numbers["spacing_mm"]["maximum"] == [1, 1, 2]
    assert numbers["orientations"] == {"RAS": CASES}
    assert numbers["labels"]["id 2"]["median"] == pytest.approx(0.072)
    assert numbers["channels"]["t1"]["stored"] == {"float32": CASES}
    assert ("voxel size", "1x1x2 mm") in summary_lines(found)


def test_ids_that_number_objects_are_not_compared_as_classes(dataset):
    for number, path in enumerate(sorted(dataset.rglob("*_label.nii.gz"))):
        ids = np.zeros(GRID.shape, np.uint16)
        ids[::4, ::4, ::4].flat[: 20 + number] = np.arange(1, 21 + number)
        write_volume(path, ids, GRID)
    (finding,) = checked(dataset).findings
    assert (finding.severity, finding.cases) == ("info", ())
    assert finding.found == "labels of up to 28 ids without names: objects, not compared as classes"


def test_what_all_cases_share_is_said_once(dataset):
    for path in dataset.rglob("*_t1.nii.gz"):
        volume = nibabel.load(path)
        volume.header.set_xyzt_units(0)
        nibabel.save(nibabel.Nifti1Image(np.asarray(volume.dataobj), volume.affine, volume.header), path)
    found = checked(dataset)
    (finding,) = found.findings
    assert (finding.severity, len(finding.cases)) == ("repaired", CASES)
    assert finding.found == "t1: units not stated: taken as millimetres"
    assert found.shared == (finding,)
    assert found.of_case("sub-00") == ()
    assert found.counts == {"clean": 0, "warning": 0, "repaired": CASES, "refused": 0}
    assert {line.verdict for line in found.lines()} == {"repaired"}


def test_ids_that_a_bundle_does_not_know_are_refused_by_its_rules(dataset):
    relabelled(with_id_7)(dataset)
    found = checked(dataset, rules=StackRules(labels=(1, 2)))
    assert found.refused == ("sub-04",)
    (finding,) = found.findings
    assert "label ids 7 (2 voxels)" in finding.found


def test_all_reasons_of_a_case_are_given_at_once(dataset):
    changed(np.zeros_like)(dataset)
    label_elsewhere(dataset)
    found = checked(dataset)
    assert found.refused == ("sub-04",)
    label_reason, image_reason = (f.found for f in found.of_case("sub-04") if f.severity == "refused")
    assert "a label on another grid" in label_reason
    assert "no contrast: every voxel of channel t1 is 0" in image_reason


def test_another_reference_that_would_refuse_fewer_cases_is_named(tmp_path):
    small = Grid((10, 10, 10), np.diag([1.0, 1.0, 1.0, 1.0]))
    for number in range(4):
        case = tmp_path / "scans" / f"sub-{number}"
        write_volume(case / "ct.nii.gz", image(number), GRID)
        write_volume(case / "mr.nii.gz", image(number)[:10, :10, :10], small)
    found = check_dataset(describe_dataset(tmp_path / "scans", ["ct", "mr"]), kept_in=tmp_path / "kept")
    assert len(found.refused) == 4
    assert any("with mr first it would be none" in finding.found for finding in found.findings)


def test_a_second_check_reads_only_what_has_changed(dataset, monkeypatch):
    import pipeline.data.fingerprinting as fingerprinting

    read = []
    examine = fingerprinting.examine_voxels

    def counted(case, *rest):
        read.append(case.case_id)
        return examine(case, *rest)

    monkeypatch.setattr(fingerprinting, "examine_voxels", counted)
    first = checked(dataset)
    assert len(read) == CASES
    read.clear()
    second = checked(dataset)
    assert read == []
    assert as_json(second) == as_json(first)
    changed(one_voxel(1e30))(dataset)
    assert checked(dataset).findings != first.findings
    assert read == ["sub-04"]


def test_no_refusal_is_kept(dataset, monkeypatch):
    import pipeline.data.examine as examine

    def gone(*args, **options):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(examine, "read_image", gone)
        assert len(checked(dataset).refused) == CASES
    assert checked(dataset).findings == ()


def test_a_file_that_is_something_else_now_is_read_again(dataset, tmp_path):
    write_volume(dataset / "sub-00" / "t2.nii.gz", label(1), GRID)
    listed = tmp_path / "cases.csv"
    for number, names in enumerate(("t1,t2,label", "t1,label,t2")):
        files = ",".join(f"scans/sub-00/{name}.nii.gz" for name in ("sub-00_t1", "t2", "sub-00_label"))
        listed.write_text(f"case,{names}\na,{files}\n")
        description = describe_dataset(listed, ["t1", "t2"])
        (case,) = check_dataset(description, kept_in=tmp_path / "kept").fingerprint.cases
        assert Path(case.label.file).name == ("sub-00_label.nii.gz", "t2.nii.gz")[number]


def test_other_voxels_under_the_same_size_and_time_are_read_again(dataset):
    path = dataset / "sub-02" / "sub-02_t1.nii"
    path.with_suffix(".nii.gz").unlink()
    write_volume(path, image(2), GRID)
    assert checked(dataset).refused == ()
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(352)
        file.write(bytes(before.st_size - 352))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert checked(dataset).refused == ("sub-02",)


def test_an_interruption_keeps_what_was_read(dataset, monkeypatch):
    kept = dataset.parent / "kept"
    description = describe_dataset(dataset, ["t1"])

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(description, jobs=1, progress=interrupt, kept_in=kept)
    calls: list[int] = []
    check_dataset(description, jobs=1, progress=lambda done, total: calls.append(done), kept_in=kept)
    assert calls[0] == 3


@pytest.mark.parametrize("content", ["", "{", '{"format": 0, "cases": []}', '{"format": 2, "cases": [{}]}'])
def test_what_was_kept_and_is_damaged_is_said_and_read_again(dataset, caplog, content):
    kept = dataset.parent / "kept"
    checked(dataset)
    (file,) = kept.iterdir()
    file.write_text(content)
    assert checked(dataset).findings == ()
    assert "can't be used" in caplog.text
    assert len(json.loads(file.read_text())["cases"]) == CASES


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("label", "voxels", "1"), "12"),
        (("channels", "t1", "all_voxels", "mean"), "high"),
        (("channels", "t1", "all_voxels", "percentiles"), [1.0]),
        (("repairs",), [3]),
        (("refusal",), 3),
        (("body_shape",), "no"),
    ],
)
def test_what_was_kept_with_values_of_another_type_is_said_and_read_again(dataset, caplog, path, value):
    kept = dataset.parent / "kept"
    checked(dataset)
    (file,) = kept.iterdir()
    content = json.loads(file.read_text())
    part = content["cases"][3]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_text(json.dumps(content))
    assert checked(dataset).findings == ()
    assert "can't be used" in caplog.text


def test_a_folder_that_can_not_keep_anything_stops_nothing(dataset, caplog):
    blocked = dataset.parent / "kept"
    blocked.write_text("a file")
    assert checked(dataset).findings == ()
    assert caplog.text.count("can't be kept") == 1


def test_nothing_is_written_into_the_dataset(dataset):
    before = sorted(dataset.rglob("*"))
    checked(dataset)
    assert sorted(dataset.rglob("*")) == before


def test_a_fingerprint_survives_being_kept(dataset, tmp_path):
    found = checked(dataset)
    store = FingerprintStore({"dataset": "x"}, tmp_path / "other")
    store.write(found.fingerprint.cases)
    again = store.read()
    for case in found.fingerprint.cases:
        kept = again[case.case_id]
        assert kept.channels["t1"].all_voxels == case.channels["t1"].all_voxels
        assert kept.channels["t1"].miniature == case.channels["t1"].miniature
        assert kept.label == case.label or vars(kept.label) == vars(case.label)
        assert kept.file_state == case.file_state
        assert kept.grid.same_grid(case.grid, tolerance_mm=0)


def test_headers_alone_refuse_all_bad_cases_at_once(dataset):
    no_space(dataset)
    (dataset / "sub-06" / "sub-06_t1.nii.gz").write_bytes(b"")
    cases = find_cases(dataset, ["t1"])
    with pytest.raises(DataError) as refused:
        check_headers(cases, ["t1"])
    message = str(refused.value)
    assert message.startswith("found 2 of 9 cases that can't be used")
    assert all(word in message for word in ("sub-04", "neither qform nor sform", "sub-06", "0 bytes", "pipeline check"))


def test_headers_alone_report_and_go_on(dataset, caplog):
    no_space(dataset)
    cases = find_cases(dataset, ["t1"])
    check_headers(cases, ["t1"], on_refusal="skip")
    assert "1 of 9 cases that can't be used" in caplog.text
    (only,) = (case for case in cases if case.case_id == "sub-04")
    with pytest.raises(DataError):
        check_headers([only], ["t1"], on_refusal="skip")
    check_headers([only], ["t1"], on_refusal="report")


def test_clean_headers_say_nothing(dataset, caplog):
    cases = find_cases(dataset, ["t1"])
    caplog.clear()
    check_headers(cases, ["t1"])
    assert caplog.text == ""


def test_json_holds_every_case_and_finding(dataset):
    no_space(dataset)
    content = json.loads(json.dumps(as_json(checked(dataset))))
    assert set(content) == {"dataset", "layout", "why", "channels", "classes", "summary", "findings", "cases"}
    assert content["summary"]["refused"] == 1
    assert [case["case_id"] for case in content["cases"] if case["refusal"]] == ["sub-04"]
    assert content["findings"][0]["severity"] == "refused"
    assert content["cases"][0]["channels"]["t1"]["all_voxels"]["count"] == 20 * 24 * 16


def test_one_labelled_case_is_too_few_to_train_on(dataset):
    for case in sorted(dataset.iterdir())[1:]:
        shutil.rmtree(case)
    assert any(finding.found.startswith("one case has a label: no training") for finding in checked(dataset).findings)
