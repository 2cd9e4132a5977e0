"""A run on disk whose figures are known: three cases of two classes, voxels of 1 x 2 x 4 mm, odd names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from pipeline.data.case_volumes import CaseVolumes
from pipeline.geometry import Grid
from pipeline.metrics import Row, diagonal_mm, measure_case, summarise, write_tables

SPACING = (1.0, 2.0, 4.0)
GRID = Grid((24, 20, 10), np.diag([*SPACING, 1.0]))
CLASSES = {1: "core", 2: "rim <b>"}
WORST = "<img src=x onerror=alert(1)>"


def label_map(core: slice, rim: slice = slice(0, 0)) -> np.ndarray:
    ids = np.zeros(GRID.shape, np.uint8)
    ids[core, 4:12, 2:6] = 1
    ids[rim, 4:12, 2:6] = 2
    return ids


@pytest.fixture(scope="session")
def volumes() -> dict[str, CaseVolumes]:
    rng = np.random.default_rng(0)
    pairs = {  # reference, prediction
        "good": (label_map(slice(4, 8), slice(10, 12)),) * 2,
        "half": (label_map(slice(4, 8), slice(10, 12)), label_map(slice(4, 6), slice(10, 12))),
        WORST: (label_map(slice(4, 8), slice(10, 12)), label_map(slice(6, 10))),
    }
    return {
        name: CaseVolumes(name, "t1", rng.normal(100, 20, GRID.shape).astype(np.float32), GRID, *both)
        for name, both in pairs.items()
    }


@pytest.fixture(scope="session")
def rows(volumes) -> list[Row]:
    diagonal = diagonal_mm(GRID.shape, SPACING)
    return [
        Row(name, diagonal, result)
        for name, case in volumes.items()
        for result in measure_case(case.prediction, case.reference, SPACING, CLASSES)
    ]


@pytest.fixture(scope="session")
def run_dir(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a & b"
    folder.mkdir()
    write_tables(rows, summarise(rows), folder)
    (folder / "metrics.csv").write_text("iteration,epoch,elapsed_s,dice,dice_core\n10,1,5.0,0.5,0.4\n20,2,9.0,0.75,\n")
    record = {
        "kind": "train",
        "status": "completed",
        "seed": 7,
        "iterations": 20,
        "epochs": 2,
        "device": "cpu",
        "commands": [["pipeline", "train", "b", "--data", "/home/SMITH^JOHN/scans"]],
        "bundle": {"name": "organ_mri_task", "version": "0.1.0", "configs": {"train.json": "ab" * 20}},
        "weights": [{"file": "/home/SMITH^JOHN/model.pt", "digest": "cd" * 20}],
        "refused": [
            {"part": "train", "case": "odd", "reason": "case odd, file /home/SMITH^JOHN/t1.nii.gz: found 2 NaN voxels"}
        ],
        "inputs": {"good": {"t1": "ef" * 20}},
        "versions": {"torch": "2.9"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    writer = SummaryWriter(folder / "tensorboard")
    for step in range(1, 501):
        writer.add_scalar("train/loss", 1 / step, step)
        writer.add_scalar("train/loss_dice", 0.5 / step, step)
    writer.add_scalar("train/learning_rate", 0.002, 1)
    writer.add_scalar("train/seconds_per_iteration", 0.1, 1)
    writer.close()
    return folder
