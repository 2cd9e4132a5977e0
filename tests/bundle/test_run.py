"""What training, evaluation and prediction have in common."""

import pytest

from pipeline.bundle import run
from pipeline.errors import DataError


@pytest.mark.parametrize("command", [run.train, run.evaluate])
def test_a_place_that_takes_no_results_is_refused_before_the_dataset_is_looked_at(command, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a folder for results"):
        command("hippocampus_mri_segmentation", tmp_path / "nowhere", out=tmp_path / "file")
    with pytest.raises(DataError, match="expected a folder for results"):
        run.predict("hippocampus_mri_segmentation", tmp_path / "nowhere", tmp_path / "file")
