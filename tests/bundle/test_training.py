"""What a training decides before anything is trained, and says after."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.bundle import find_bundle, training
from pipeline.bundle.run_folder import _known_to
from pipeline.bundle.training import train
from pipeline.errors import ConfigError
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


@pytest.mark.parametrize("epochs", ["0", "-1", "two", ""])
def test_epochs_are_a_positive_number(epochs, tmp_path):
    with pytest.raises(ConfigError, match="a whole number of epochs, at least 1"):
        train("hippocampus_mri_segmentation", tmp_path, overrides=[f"max_epochs={epochs}"])


def test_a_resumed_run_keeps_its_network(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    with pytest.raises(ConfigError, match=r"network_def#norm=group for weights that were trained otherwise"):
        train("hippocampus_mri_segmentation", tmp_path, resume=tmp_path, overrides=["network_def#norm=group"])


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

    monkeypatch.setattr(training, "parsed", parsed)
    started = []
    for compiling_s in (0.0, 1000.0):
        monkeypatch.setattr(training, "compile_ahead", lambda seconds=compiling_s: seconds)
        with pytest.raises(_Parsed) as caught:
            train("hippocampus_mri_segmentation", crops, out=tmp_path / "run", budget_s=40)
        started.append(caught.value.args[0]["started_at"])
    assert 1000 <= started[1] - started[0] < 2000


def test_a_handful_of_steps_is_said_to_be_no_training(caplog):
    state = SimpleNamespace(iteration=20, elapsed_s=100.0, prepared_s=70.0, steps_before=0)
    training._warn_of_few_steps(state)
    assert not caplog.records
    state.iteration, state.steps_before = 10, 4
    training._warn_of_few_steps(state)
    assert "iterations: only 10, which is no training: preparing took 70 s, and each step about 5.0 s" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["patch_size=[20,16,16]"], r"an input of 20 x 16 x 16 voxels(.|\n)*use a patch or window of"),
        (["network=unet_published"], r"an input of 40 x 56 x 40 voxels(.|\n)*92 x 92 x 92"),
        (["network=deeplab_v3_plus", "network_def#rates=6"], "rates 6; expected a list"),
        (["network=deeplab_v3_plus", "network_def#norm=batch", "batch_size=1"], "batches of 1 of 1 training cases"),
        (["network=fcn", "network_def#dropout=1.0"], "dropout 1.0; expected a share"),
    ],
)
def test_what_the_network_can_not_take_is_refused_before_anything_is_written(crops, tmp_path, overrides, said):
    with pytest.raises(ConfigError, match=said):
        train(
            "hippocampus_mri_segmentation",
            crops,
            out=tmp_path / "run",
            overrides=["max_epochs=1", "folds=2", *overrides],
        )
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "models").exists()
