"""A channel that some cases lack: from files to a result, with the network that is made for it."""

import shutil

import pytest

from pipeline.bundle import run
from pipeline.errors import DataError
from pipeline.io import read_grid
from tests.bundles.conftest import BUNDLE, SMALL

WITHOUT_MTT = ("network=multi_encoder_unet", "missing_channels=zero", *SMALL)


@pytest.mark.slow
def test_cases_that_lack_a_channel_are_trained_on_measured_and_predicted(phantoms, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    files = sorted(data.glob("*/*_mtt.nii.gz"))
    for file in files[::2]:
        file.unlink()
    summary = run.train(BUNDLE, data, out=tmp_path / "run", overrides=["max_epochs=1", *WITHOUT_MTT])
    assert summary.refused == []
    assert run.evaluate(tmp_path / "run", data, out=tmp_path / "evaluation").refused == []

    for file in files[1::2]:
        file.unlink()  # now no case has it
    result = run.predict(tmp_path / "run", data, tmp_path / "predictions")
    assert result.counts == {"done": len(files), "refused": 0, "failed": 0}
    assert all("mtt: absent, 0 everywhere" in outcome.repairs for outcome in result.outcomes)
    cbf = read_grid(data / "sub-001" / "sub-001_cbf.nii.gz")
    assert read_grid(tmp_path / "predictions" / result.outcomes[0].output).same_grid(cbf)
    with pytest.raises(DataError, match="mtt"):
        run.predict(tmp_path / "run", data, tmp_path / "refused", overrides=["missing_channels=refuse"])
