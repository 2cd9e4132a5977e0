"""A small phantom dataset and one short training on it, shared by the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.data.phantom_dataset import write_dataset
from tests.commands import fresh_python

# Small enough for a test, and still the bundle's own chain, network and engines.
SMALL = (
    "spacing_mm=[3.0,3.0,-1.0]",
    "patch_size=[32,32,8]",
    "overlap=0.0",
    "network_def#channels=[4,8,8,8]",
    "precision=float32",
)
BUNDLE = "stroke_perfusion_segmentation"


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_dataset(folder, 6, seed=3, workers=0)
    return folder


@pytest.fixture(scope="session")
def run(phantoms, tmp_path_factory) -> Path:
    """A training of two epochs by our own command, in an interpreter of its own as people have it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    fresh_python(
        "-m", "pipeline", "train", BUNDLE, "--data", phantoms, "--out", folder, "max_epochs=2", "val_interval=1", *SMALL
    )
    return folder


@pytest.fixture(scope="session")
def split(run) -> dict[str, list[str]]:
    return json.loads((run / "models" / "split.json").read_text(encoding="utf-8"))
