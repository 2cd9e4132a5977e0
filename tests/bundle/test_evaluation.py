"""Which cases an evaluation measures."""

import pytest

from pipeline.bundle.evaluation import _choose_part, evaluate
from pipeline.errors import BundleError, ConfigError


def test_a_fold_that_the_weights_were_not_trained_with_is_refused(tmp_path):
    weights = tmp_path / "model.pt"
    config = {"part": "unseen", "split_file": "from the config"}
    (tmp_path / "split.json").write_text("{}")
    _choose_part(config, weights, [])
    assert config == {"part": "unseen", "split_file": str(tmp_path / "split.json")}
    with pytest.raises(ConfigError, match="leave fold and folds out"):
        _choose_part(dict(config), weights, ["fold=1"])
    config["part"] = "validate"  # as the override has it
    _choose_part(config, weights, ["fold=1", "part=validate"])
    assert config == {"part": "validate", "split_file": None}


def test_weights_of_unknown_training_are_measured_on_all_cases(tmp_path, caplog):
    config = {"part": "unseen", "split_file": "from the config"}
    _choose_part(config, tmp_path / "model.pt", [])
    assert config == {"part": "all", "split_file": None}
    assert "not known" in caplog.text


@pytest.mark.parametrize("weights", [None, "other.pt"])
def test_weights_that_are_not_there_are_refused_before_any_case_is_looked_for(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"no trained weights.*the run's folder in the bundle's place") as refusal:
        evaluate("membrane_em_segmentation", tmp_path / "nowhere", weights=weights)
    assert (weights or "membrane_em_segmentation/models/model.pt") in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
