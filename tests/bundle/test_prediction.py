"""What a prediction looks at before it begins."""

import numpy as np
import pytest
from monai.inferers import SliceInferer

from pipeline.bundle import find_bundle, shipped_bundles
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.inference import Inference
from pipeline.bundle.load import load_bundle
from pipeline.bundle.prediction import _refuse_to_overwrite, _trained_on, _unlike_training, predict
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.data.splits import TRAINED_ON, Split, fingerprint, write_split
from pipeline.errors import ConfigError
from pipeline.geometry import Grid
from pipeline.inference import SlidingWindowInferer
from pipeline.inference.fitting import require_window
from pipeline.io import write_volume
from pipeline.networks import UNet


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


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("patch_size=[30,30,30]", "use a patch or window of 24 x 24 x 24 or 32 x 32 x 32"),
        ("patch_size=[8,8,8]", "one voxel at the network's deepest level"),
        ("patch_size=[24.5,24,24]", "whole numbers of voxels"),
        ("overlap=[0.5,0.5]", "3 entries for 3D inputs"),
    ],
)
def test_windows_that_fit_no_case_are_refused_once_before_the_first(tmp_path, setting, said):
    grid = Grid((20, 24, 18), np.eye(4))
    for name in ("a", "b"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", np.random.default_rng(0).random(grid.shape, "f4"), grid)
    with pytest.raises(ConfigError, match=said) as refused:
        predict("hippocampus_mri_segmentation", tmp_path / "scans", tmp_path / "out", overrides=[setting])
    assert refused.value.case is None
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=said):
        load_bundle("hippocampus_mri_segmentation", overrides=[setting])


def test_a_window_of_a_size_left_open_is_the_cases(tmp_path):
    network = UNet(3, 1, 2, channels=(2, 4))
    for window in ((None, 8, 8), (8, 8, 8), 0):
        require_window(SlidingWindowInferer(window), network, 1, 3)
    with pytest.raises(ConfigError, match="7 x 8 x 8"):
        require_window(SlidingWindowInferer((7, 8, 8)), network, 1, 3)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_of_an_inferer_from_elsewhere_nothing_is_known():
    network, seen = UNet(2, 1, 2, [4, 8], [3, 3], [1, 2]), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    require_window(SliceInferer(2, (32, 32)), network, 1, 3)
    assert seen == []


@pytest.mark.parametrize("name", sorted(folder.name for folder in shipped_bundles().iterdir()))
def test_the_window_of_a_shipped_bundle_fits_its_network(name):
    inference = Inference(name)
    from monai.bundle import ConfigParser

    parser = ConfigParser(inference.config)
    parser.parse()
    network = parser.get_parsed_content("network_def").eval()
    asked, answers = data_rules(inference.config), []
    network.register_forward_hook(lambda _, inputs, answer: answers.append((inputs[0].shape[2:], answer.shape[1])))
    require_window(inference["inferer"], network, len(asked.channels), asked.spatial_dims)
    assert answers == [(tuple(inference.config["patch_size"]), len(asked.classes) + 1)]


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


def test_cases_that_the_weights_were_trained_on_are_known_by_their_images(tmp_path, caplog):
    items = []
    for number, name in enumerate(["old", "new", "renamed"]):
        write_volume(tmp_path / f"{name}.nii.gz", np.full((4, 4, 4), number, np.float32), Grid((4, 4, 4), np.eye(4)))
        items.append({"case_id": name, "image": {"t1": str(tmp_path / f"{name}.nii.gz")}})
    prints = {
        "old": fingerprint(tmp_path / "old.nii.gz"),
        "a": fingerprint(tmp_path / "renamed.nii.gz"),
        "new": "other",
    }
    write_split(tmp_path / "models" / "split.json", Split(("a", "new", "old"), (), prints))
    weights = tmp_path / "models" / "model.pt"
    items.append({"case_id": "without", "image": {}})
    assert _trained_on(items, [weights, weights]) == {"old": [TRAINED_ON], "renamed": [TRAINED_ON]}
    assert "2 of 4 cases are some that these weights were trained on" in caplog.text
    caplog.clear()
    assert _trained_on(items[1:2], [weights]) == _trained_on(items, [tmp_path / "model.pt"]) == {}
    assert not caplog.text
