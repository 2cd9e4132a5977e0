"""`pipeline report` as a user runs it: label maps and their references in, one page out."""

from __future__ import annotations

import json
import shutil
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from pipeline.bundle import find_bundle
from pipeline.cli.main import app
from pipeline.geometry import Grid
from pipeline.io import write_volume

GRID = Grid((12, 12, 8), np.diag([1.0, 1.0, 2.0, 1.0]))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        ids = np.zeros(GRID.shape, np.uint8)
        ids[2:6, 2:6, 2:6] = 1
        case = tmp_path / "scans" / f"sub-{number}"
        write_volume(case / "t1.nii.gz", rng.random(GRID.shape, np.float32), GRID)
        write_volume(case / "label.nii.gz", ids, GRID)
        ids[2 : 2 + number] = 0
        write_volume(tmp_path / "lesions" / f"sub-{number}.nii.gz", ids, GRID)
    return tmp_path


def report(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)], env={"COLUMNS": "200"}, prog_name="pipeline")


def test_label_maps_are_measured_and_shown(folders):
    result = report(folders / "lesions", "--data", folders / "scans")
    assert result.exit_code == 0, result.output
    file = folders / "lesions" / "report.html"
    assert f"Report: {file}" in result.stdout
    text = file.read_text(encoding="utf-8")
    # Dice 1, 6/7, 2/3
    assert f"mean Dice <strong>{(1 + 6 / 7 + 2 / 3) / 3:.3f}</strong>" in text
    assert "axial slice 3 of 8 of case sub-2" in text
    assert str(folders) not in text


def test_predictions_by_a_run_are_measured_by_its_classes(folders):
    run = folders / "runs" / "2026"
    shutil.copytree(find_bundle("hippocampus_mri_segmentation") / "configs", run / "configs")
    (run / "configs" / "bundle.yaml").unlink()  # as a run has it
    weights = {"file": str(run / "models" / "model.pt"), "digest": "ab" * 20}
    record = {"kind": "predict", "bundle": {"name": "2026"}, "weights": [weights]}
    (folders / "lesions" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    refused = report(folders / "lesions", "--data", folders / "scans")
    assert refused.exit_code == 2
    assert "(case, mri, label)" in refused.stderr.split("Error:")[1]
    assert ".png" not in refused.stderr  # these are volumes
    for scan in folders.glob("scans/*/t1.nii.gz"):
        scan.rename(scan.with_name("mri.nii.gz"))
    result = report(folders / "lesions", "--data", folders / "scans")
    assert result.exit_code == 0, result.output
    assert '<th scope="row">anterior</th>' in (folders / "lesions" / "report.html").read_text(encoding="utf-8")


def test_a_measurement_is_shown_with_the_label_maps_that_it_measured(folders):
    measured, lesions = folders / "measured", folders / "lesions"
    words = ["measure", str(lesions), str(folders / "scans"), "--out", str(measured)]
    assert CliRunner().invoke(app, words).exit_code == 0
    (lesions / "sub-2.nii.gz").unlink()
    result = report(measured, "--data", folders / "scans", "--predictions", lesions, "--out", folders / "page.html")
    assert result.exit_code == 0, result.output
    assert "no picture of sub-2: no prediction of its name" in result.stderr
    text = (folders / "page.html").read_text(encoding="utf-8")
    assert "No picture: no prediction of its name." in text
    assert "of case sub-1" in text


def test_a_page_on_another_dataset_takes_no_pages_place(folders):
    lesions, scans, others = folders / "lesions", folders / "scans", folders / "other scans"
    shutil.copytree(scans, others)
    assert report(lesions, "--data", scans).exit_code == 0
    page = (lesions / "report.html").read_bytes()
    refused = report(lesions, "--data", others)
    assert refused.exit_code == 2
    assert "a report on another dataset" in refused.stderr
    named = lesions / "report_other scans.html"
    assert f"--out '{named}'" in refused.stderr
    assert (lesions / "report.html").read_bytes() == page
    assert report(lesions, "--data", others, "--out", named).exit_code == 0
    assert named.is_file()
    again = report(lesions, "--data", scans / "." / ".." / "scans")  # the same by another name
    assert again.exit_code == 0, again.output


def test_it_is_served_to_this_machine(folders, monkeypatch):
    asked = []

    def one_reader(server, poll_interval=0.5):
        asked.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", one_reader)
    result = report(folders / "lesions", "--data", folders / "scans", "--serve")
    assert result.exit_code == 0, result.output
    address = urlsplit(result.stdout.split("At ")[1].split()[0])
    assert address.hostname == "127.0.0.1"
    assert asked[0].server_port == address.port
    with pytest.raises(ConnectionRefusedError):  # it has ended
        HTTPConnection("127.0.0.1", address.port, timeout=5).request("GET", "/")


def test_a_folder_that_is_none_is_refused(tmp_path):
    result = report(tmp_path / "none")
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


def test_a_folder_of_something_else_gets_no_page(tmp_path):
    (tmp_path / "notes.txt").write_text("no run")
    said = report(tmp_path)
    assert said.exit_code == 2
    assert "nothing to report" in said.stderr
    assert not (tmp_path / "report.html").exists()
