"""What a command decides before anything is trained or measured."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.bundle import find_bundle, run
from pipeline.bundle.run import _choose_part, _refuse_to_overwrite, _unlike_training, train
from pipeline.bundle.run_folder import _known_to
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume


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


class _Parsed(Exception):
    """Raised where a config is parsed, with it: what comes before is under test."""


@pytest.fixture
def crops(tmp_path):
    folder = tmp_path / "crops"
    for case in "ab":
        for name, dtype in (("mri", np.float32), ("label", np.uint8)):
            write_volume(folder / case / f"{case}_{name}.nii.gz", np.ones((9, 9, 9), dtype), Grid((9, 9, 9), np.eye(4)))
    return folder


def test_a_budgets_clock_starts_when_what_is_compiled_once_is_ready(crops, tmp_path, monkeypatch):
    def parsed(config, metadata):
        raise _Parsed(config)

    monkeypatch.setattr(run, "parsed", parsed)
    started = []
    for compiling_s in (0.0, 1000.0):
        monkeypatch.setattr(run, "compile_ahead", lambda seconds=compiling_s: seconds)
        with pytest.raises(_Parsed) as caught:
            train("hippocampus_mri_segmentation", crops, out=tmp_path / "run", budget_s=40)
        started.append(caught.value.args[0]["started_at"])
    assert 1000 <= started[1] - started[0] < 2000


def test_a_handful_of_steps_is_said_to_be_no_training(caplog):
    state = SimpleNamespace(iteration=20, elapsed_s=100.0, prepared_s=70.0, steps_before=0)
    run._warn_of_few_steps(state)
    assert not caplog.records
    state.iteration, state.steps_before = 10, 4
    run._warn_of_few_steps(state)
    assert "iterations: only 10, which is no training: preparing took 70 s, and each step about 5.0 s" in caplog.text


@pytest.mark.parametrize("command", [train, run.evaluate])
def test_a_place_that_takes_no_results_is_refused_before_the_dataset_is_looked_at(command, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a folder for results"):
        command("hippocampus_mri_segmentation", tmp_path / "nowhere", out=tmp_path / "file")
    with pytest.raises(DataError, match="expected a folder for results"):
        run.predict("hippocampus_mri_segmentation", tmp_path / "nowhere", tmp_path / "file")
