"""What may be chosen for weights that are trained: how a network answers, never what it is."""

import json

import pytest

from pipeline.bundle import find_bundle, resolve
from pipeline.bundle.publish import publish
from pipeline.bundle.run import evaluate
from pipeline.errors import BundleError, ConfigError

# Ignite's own import, on torch >= 2.13.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
BUNDLE = "hippocampus_mri_segmentation"


def test_what_shapes_weights_is_refused_and_what_shapes_answers_is_looked_up(tmp_path):
    with pytest.raises(ConfigError, match="trained otherwise"):
        evaluate(BUNDLE, tmp_path, overrides=["network_def#channels=[4,8]"])
    with pytest.raises(ConfigError, match="unknown key network_def#inference_depth"):  # a U-Net has one answer
        evaluate(BUNDLE, tmp_path, overrides=["network_def#inference_depth=2"])


@pytest.fixture
def folders(tmp_path):
    """A run of a U-Net++ without its weights' values, and a bundle of the same network that answers by a branch."""
    for name, choices in (("run", ()), ("bundle", ("network_def#inference_depth=2",))):
        (tmp_path / name / "configs").mkdir(parents=True)
        config = resolve(find_bundle(BUNDLE), "inference", "unet_plus_plus", choices)
        (tmp_path / name / "configs" / "inference.json").write_text(json.dumps(config))
    (tmp_path / "run" / "models").mkdir()
    for file in ("models/model.pt", "models/split.json", "run.json"):
        (tmp_path / "run" / file).write_bytes(b"{}")
    return tmp_path / "run", tmp_path / "bundle"


def test_weights_are_published_into_a_bundle_that_answers_by_a_branch(folders):
    run, bundle = folders
    assert publish(run, bundle).read_bytes() == b"{}"


def test_but_not_into_one_of_another_width(folders):
    run, bundle = folders
    config = resolve(find_bundle(BUNDLE), "inference", "unet_plus_plus", ["network_def#channels=[4,8,8,8]"])
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="other values of network_def"):
        publish(run, bundle)
    assert not (bundle / "models").exists()
