"""`pipeline check` as a user runs it: what it prints and writes, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.geometry import Grid
from pipeline.io import write_volume

GRID = Grid((12, 12, 8), np.eye(4))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        case = tmp_path / "scans" / f"sub-{number}"
        for name in ("cbf", "cbv", "mtt"):
            write_volume(case / f"{name}.nii.gz", rng.random(GRID.shape, np.float32), GRID)
        ids = np.zeros(GRID.shape, np.uint8)
        ids[2:6, 2:6, 2:6] = 1 + (number == 2)
        write_volume(case / "label.nii.gz", ids, GRID)
    return tmp_path / "scans"


def check(tmp_path: Path, *words: str | Path) -> Result:
    environment = {"PIPELINE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    return CliRunner().invoke(app, ["check", *map(str, words)], env=environment, prog_name="pipeline")


def test_a_usable_dataset_ends_with_0(scans, tmp_path):
    result = check(tmp_path, scans)
    assert result.exit_code == 0
    assert "3 cases: 3 clean, 0 with warnings, 0 repaired, 0 refused" in result.stdout
    assert "channel cbv" in result.stdout
    assert "12x12x8, 1x1x1 mm, RAS" in result.stdout


def test_a_refused_case_ends_with_1_and_is_named_with_its_reason(scans, tmp_path):
    (scans / "sub-1" / "cbv.nii.gz").write_bytes(b"")
    result = check(tmp_path, scans, "--json", tmp_path / "out" / "check.json", "--html", tmp_path / "check.html")
    assert result.exit_code == 1
    assert "sub-1: file sub-1/cbv.nii.gz: found an empty file (0 bytes)" in result.stdout
    content = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert [case["case_id"] for case in content["cases"] if case["refusal"]] == ["sub-1"]
    assert "sub-1" in (tmp_path / "check.html").read_text(encoding="utf-8")


def test_a_setting_that_a_refusal_names_is_said_where_it_goes(scans, tmp_path):
    assert "bundle.yaml" not in check(tmp_path, scans).stdout
    series = nib.Nifti1Image(np.random.default_rng(0).random((*GRID.shape, 2), np.float32), np.eye(4))
    nib.save(series, scans / "sub-1" / "cbv.nii.gz")
    result = check(tmp_path, scans)
    assert result.exit_code == 1
    assert "To take them so: the same command with volume=0 at its end, and likewise" in result.stdout
    taken = check(tmp_path, scans, "volume=0")
    assert taken.exit_code == 0
    assert "sub-1: cbv: a series: volume 0 of 0 to 1 is taken" in taken.stdout
    by_bundle = check(tmp_path, scans, "--bundle", "stroke_perfusion_segmentation", "volume={cbv: 1}")
    assert "sub-1: cbv: a series: volume 1 of 0 to 1 is taken" in by_bundle.stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("volum=0", "(nearest: volume); expected what concerns how files are read: non_finite, "),
        ("patch_size=[8,8,8]", "to fix it: other settings go to the end of `pipeline train`"),
        ("volume=first", "volume=first; expected a whole number from 0"),
        ("volume={t9: 0}", "volume of t9; expected channels out of cbf, cbv, mtt"),
        ("assume_orientation=7", "expected three axis codes"),
        ("spacing_limits_mm=30", "expected two sides in mm"),
    ],
)
def test_a_setting_that_says_nothing_of_files_is_refused(scans, tmp_path, setting, said):
    result = check(tmp_path, scans, setting)
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_is_alike_of_many_cases_is_said_once_and_each_is_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        grid = Grid((12, 12, 8), np.diag([2.0, 2.0, 2.0 + number / 100, 1.0]) if number < 5 else np.eye(4))
        write_volume(tmp_path / "scans" / f"sub-{number:02d}_t1.nii", rng.random(grid.shape, np.float32), grid)
    result = check(tmp_path, tmp_path / "scans", "--json", tmp_path / "check.json")
    text = " ".join(result.stdout.split())
    assert text.count("voxel size 2x2") == 1
    assert "5 cases, such as sub-00: t1: voxel size 2x2x2 mm; expected 1x1x1 mm (median) → check the header " in text
    assert "(alike: sub-01, sub-02, sub-03, sub-04)" in text
    assert "30 cases: 25 clean, 5 with warnings" in text
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))["findings"]
    sizes = [one["found"] for one in found if "voxel size" in one["found"]]
    assert len(sizes) == 5
    assert [size for size in sizes if "2x2x2.04" in size]


def test_a_bundle_asks_for_its_own_classes(scans, tmp_path):
    result = check(tmp_path, scans, "--bundle", "stroke_perfusion_segmentation")
    assert result.exit_code == 1
    assert "label ids 2 (64 voxels)" in result.stdout
    assert "label lesion" in result.stdout


@pytest.mark.parametrize("words", [["gone"], [], ["scans", "--jobs", "0"], ["scans", "--layout", "shelf"]])
def test_what_can_not_run_ends_with_2(scans, tmp_path, words):
    words = [tmp_path / word if word in ("gone", "scans") else word for word in words]
    assert check(tmp_path, *words).exit_code == 2


def test_under_pseudonyms_no_id_and_no_file_is_said_or_written(scans, tmp_path):
    (scans / "sub-1" / "cbv.nii.gz").write_bytes(b"")
    names = tmp_path / "names.csv"
    names.write_text("id,pseudonym\nsub-0,P7\nsub-1,P8\nsub-2,P9\n")
    files = tmp_path / "check.json", tmp_path / "check.html"
    result = check(tmp_path, scans, "--pseudonyms", names, "--json", files[0], "--html", files[1])
    assert result.exit_code == 1
    for text in (result.stdout, *(file.read_text(encoding="utf-8") for file in files)):
        assert "P8" in text
        assert "cbv of P8" in text
        assert "sub-" not in text
    names.write_text("id,pseudonym\nsub-0,P7\n")
    result = check(tmp_path, scans, "--pseudonyms", names)
    assert result.exit_code == 2
    assert "2 of 3 cases without a pseudonym: sub-1, sub-2" in result.stderr


def test_of_many_cases_the_clean_ones_are_only_counted(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        write_volume(tmp_path / "scans" / f"sub-{number:02d}_t1.nii", rng.random(GRID.shape, np.float32), GRID)
    short, long = check(tmp_path, tmp_path / "scans"), check(tmp_path, tmp_path / "scans", "--all")
    assert "sub-07" not in short.stdout
    assert "30 cases: 30 clean" in short.stdout
    assert "sub-07" in long.stdout


def test_a_warning_on_many_cases_is_counted_beside_the_clean_ones(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        array = rng.random(GRID.shape, np.float32) * (1 if number % 3 else 100)
        write_volume(tmp_path / "scans" / f"sub-{number:02d}_t1.nii", array, GRID)
    result = check(tmp_path, tmp_path / "scans")
    assert "values of 4 of 12 cases far from the others'" in " ".join(result.stdout.split())
    assert "12 cases: 12 clean, 0 with warnings, 0 repaired, 0 refused; 1 warning on many cases" in result.stdout


def test_a_fault_of_the_package_is_no_refused_case(scans, tmp_path, monkeypatch):
    import pipeline.bundle.check

    def broken(*args, **options):
        raise TypeError("a fault")

    monkeypatch.setattr(pipeline.bundle.check, "check_dataset", broken)
    result = check(tmp_path, scans)
    assert result.exit_code == 2
    assert "TypeError: a fault" in result.stderr


def test_an_interruption_keeps_what_was_read(scans, tmp_path, monkeypatch):
    import pipeline.bundle.check

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.bundle.check, "check_dataset", interrupted)
    result = check(tmp_path, scans)
    assert result.exit_code == 130
    assert "the cases that were read are kept" in result.stderr
