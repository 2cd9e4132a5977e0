"""The bundles on real scans, where PIPELINE_REAL_DATA names the folder that holds them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from pipeline.io import read_grid, read_image_grid
from tests.commands import command

FOLDER = Path(os.environ.get("PIPELINE_REAL_DATA", ""))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif("PIPELINE_REAL_DATA" not in os.environ, reason="PIPELINE_REAL_DATA is not set"),
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_hippocampus_from_training_to_prediction(tmp_path):
    data, run = FOLDER / "hippocampus", tmp_path / "run"
    small = ("network_def#channels=[8,16,16,16]", "precision=float32", "max_epochs=1")
    command("pipeline", "train", "hippocampus_mri_segmentation", "--data", data, "--out", run, *small)
    assert len(rows(run / "cases.csv")) == 2 * 40
    assert float(rows(run / "metrics.csv")[-1]["dice"]) > 0.2  # eighty steps of a small network from nothing
    command("pipeline", "evaluate", run, "--data", data, "--out", tmp_path / "evaluation")
    assert len(rows(tmp_path / "evaluation" / "cases.csv")) == 2 * 40
    case = data / "imagesTr" / "hippocampus_001.nii.gz"
    command("pipeline", "predict", run, case, tmp_path / "prediction")
    (written,) = (tmp_path / "prediction").rglob("*.nii.gz")
    assert read_grid(written).same_grid(read_grid(case))


def test_perfusion_maps_of_patients_keep_their_grids(tmp_path):
    scans = FOLDER / "ct_perfusion"
    command("pipeline", "predict", "stroke_perfusion_segmentation", scans, tmp_path)
    assert [row["status"] for row in rows(tmp_path / "predictions.csv")] == ["done"] * 3
    for case in ("sub-01", "sub-02", "sub-03"):
        own = read_grid(scans / case / f"{case}_cbf.nii.gz")
        assert read_grid(tmp_path / case / f"{case}.nii.gz").same_grid(own)


def test_membranes_from_training_to_prediction(tmp_path):
    data, run = FOLDER / "membrane", tmp_path / "run"
    small = ("network_def#features=8", "network_def#depth=2", "patch_size=[204,204]", "precision=float32")
    short = ("max_epochs=6", "train#steps#spatial#elastic_std_mm=5.0")
    command("pipeline", "train", "membrane_em_segmentation", "--data", data, "--out", run, *small, *short)
    measured = rows(run / "membranes.csv")
    assert len(measured) == 5
    assert all(float(row["pixel_error"]) < 0.4 for row in measured)  # membranes are a fifth of the pixels
    assert all(100 < int(row["cells_reference"]) < 250 for row in measured)
    command("pipeline", "predict", run, data / "images" / "00.png", tmp_path / "prediction")
    assert read_image_grid(tmp_path / "prediction" / "00.png").shape == (512, 512)


def test_nuclei_from_training_to_prediction(tmp_path):
    data, run = FOLDER / "nuclei", tmp_path / "run"
    small = ("network_def#channels=[8,16,16]", "patch_size=[128,128]", "precision=float32", "max_epochs=2", "folds=8")
    command("pipeline", "train", "nuclei_microscopy_segmentation", "--data", data, "--out", run, *small)
    measured = rows(run / "instances.csv")
    assert len(measured) == 10
    assert all(int(row["instances_reference"]) >= 3 for row in measured)
    command("pipeline", "predict", run, data / "images" / "001.png", tmp_path / "prediction")  # in colour
    assert read_image_grid(tmp_path / "prediction" / "001.png").shape == (256, 320)
