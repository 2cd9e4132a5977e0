"""Which cases an evaluation measures."""

import pytest

from pipeline.bundle.evaluation import _choose_part
from pipeline.errors import ConfigError


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
