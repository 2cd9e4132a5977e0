"""What a bundle's config asks of a dataset, as its transform does; refusal before any work."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bundle import resolve, run, shipped_bundles
from pipeline.bundle.data_rules import data_rules
from pipeline.data import Case
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume

STROKE = "stroke_perfusion_segmentation"


def rules(*overrides: str, kind: str = "train"):
    return data_rules(resolve(shipped_bundles() / STROKE, kind, overrides=overrides))


def test_references_are_followed():
    found = rules("missing_channels=zero", "assume_orientation=RAS", "label_values={1: 255}")
    assert found.channels == ("cbf", "cbv", "mtt")
    assert found.classes == {1: "lesion"}
    assert found.stack.labels == (1,)
    assert found.stack.label_values == {1: 255}
    assert found.stack.missing_channels == "zero"
    assert found.stack.policy.assume_orientation == "RAS"


def test_they_are_the_transform_s_own():
    from monai.bundle import ConfigParser

    config = resolve(shipped_bundles() / STROKE, "train", overrides=["missing_channels=zero", "volume={mtt: 1}"])
    parser = ConfigParser(config)
    parser.parse()
    assert parser.get_parsed_content("load").rules == data_rules(config).stack


def test_a_prediction_loads_no_label(tmp_path):
    case = Case("sub-01", {}, tmp_path / "label.nii.gz")
    assert rules(kind="inference").loaded(case).label is None
    assert rules().loaded(case) == case


def test_a_reference_to_nothing_is_refused():
    config = resolve(shipped_bundles() / STROKE, "train")
    config["load"] = {**config["load"], "trust": "@nothing"}
    with pytest.raises(ConfigError, match="@nothing"):
        data_rules(config)


def test_training_refuses_all_unusable_cases_at_once_before_anything_is_written(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    for number in range(4):
        case = tmp_path / "scans" / f"sub-{number}"
        for name in ("cbf", "cbv", "mtt", "label"):
            array = np.zeros(grid.shape, np.uint8) if name == "label" else np.ones(grid.shape, np.float32)
            write_volume(case / f"{name}.nii.gz", array, grid)
    (tmp_path / "scans" / "sub-1" / "cbv.nii.gz").write_bytes(b"")
    write_volume(
        tmp_path / "scans" / "sub-3" / "label.nii.gz", np.zeros((8, 8, 4), np.uint8), Grid((8, 8, 4), np.eye(4))
    )
    with pytest.raises(DataError) as refused:
        run.train(STROKE, tmp_path / "scans", out=tmp_path / "run", overrides=["on_refusal=raise", "max_epochs=1"])
    assert "2 of 4 cases" in str(refused.value)
    assert "sub-1" in str(refused.value)
    assert "sub-3" in str(refused.value)
    assert not (tmp_path / "run").exists()
