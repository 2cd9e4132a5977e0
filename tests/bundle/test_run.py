"""What a command decides before anything is trained or measured."""

import numpy as np
import pytest

from pipeline.bundle import find_bundle
from pipeline.bundle.run import _choose_part, _refuse_to_overwrite, _unlike_training, train
from pipeline.bundle.run_folder import _known_to
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.errors import ConfigError
from pipeline.geometry import Grid


def test_values_that_are_valid_together_alone_reach_every_config_of_the_run():
    together = [
        "channels=[cbf,mtt]",
        "in_channels=2",
        "normalization={_replace_: true, cbf: {scheme: z_score}, mtt: {scheme: z_score}}",
    ]
    overrides = [*together, "learning_rate=0.1", "max_epochs=1"]
    assert _known_to(find_bundle("stroke_perfusion_segmentation"), "inference", overrides) == together


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


@pytest.mark.parametrize("epochs", ["0", "-1", "two", ""])
def test_epochs_are_a_positive_number(epochs, tmp_path):
    with pytest.raises(ConfigError, match="a whole number of epochs, at least 1"):
        train("hippocampus_mri_segmentation", tmp_path, overrides=[f"max_epochs={epochs}"])


def test_a_resumed_run_keeps_its_network(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    with pytest.raises(ConfigError, match=r"network_def#norm=group for weights that were trained otherwise"):
        train("hippocampus_mri_segmentation", tmp_path, resume=tmp_path, overrides=["network_def#norm=group"])


def test_a_result_never_takes_the_place_of_an_input_and_a_link_to_itself_is_no_obstacle(tmp_path):
    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to("loop.nii.gz")
    items = [
        {"case_id": "loop", "relative": ".", "image": {"mri": str(loop)}},
        {"case_id": "a", "relative": ".", "image": {"mri": str(tmp_path / "a.nii.gz")}},
    ]
    _refuse_to_overwrite(items, tmp_path / "out", ".nii.gz")
    with pytest.raises(ConfigError, match=r"take the place of loop\.nii\.gz"):
        _refuse_to_overwrite(items, tmp_path, ".nii.gz")
    with pytest.raises(ConfigError, match=r"take the place of a\.nii\.gz"):
        _refuse_to_overwrite(items[1:], tmp_path, ".nii.gz")


def test_a_scan_unlike_the_training_cases_is_said_to_be_so(caplog):
    weights = find_bundle("hippocampus_mri_segmentation") / "models" / "model.pt"
    cases = [
        CaseFingerprint("crop", Grid((36, 50, 40), np.eye(4))),
        CaseFingerprint("head", Grid((180, 220, 180), np.eye(4))),
        CaseFingerprint("coarse", Grid((2, 3, 2), np.diag([20.0, 20.0, 20.0, 1.0]))),
        CaseFingerprint("refused", None),
    ]
    remarks = _unlike_training(cases, [weights, weights])
    assert sorted(remarks) == ["coarse", "head"]
    assert len(remarks["head"]) == 1
    assert "2 of 4 cases are unlike" in caplog.text
    assert "case head: unlike the training cases: a volume of 180x220x180 mm" in caplog.text
    assert _unlike_training(cases, [weights.with_name("elsewhere") / "model.pt"]) == {}
