"""What a prediction looks at before it begins."""

import numpy as np
import pytest

from pipeline.bundle import find_bundle
from pipeline.bundle.prediction import _refuse_to_overwrite, _unlike_training
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.errors import ConfigError
from pipeline.geometry import Grid


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
    caplog.clear()
    _unlike_training(cases[1:2], [weights])
    assert "1 of 1 case is unlike those" in caplog.text
    assert _unlike_training(cases, [weights.with_name("elsewhere") / "model.pt"]) == {}
