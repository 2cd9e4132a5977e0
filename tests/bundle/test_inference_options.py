"""What may be chosen for weights that are trained: how a network answers, never what it is."""

import json

import pytest

from pipeline.bundle import build, find_bundle, resolve
from pipeline.bundle.inference import Inference
from pipeline.bundle.publish import publish
from pipeline.bundle.run import evaluate
from pipeline.engines.weights import require_weights
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


@pytest.mark.parametrize("status", ["prepared", "running"])
def test_but_not_those_of_a_run_that_has_not_ended(folders, status):
    run, bundle = folders
    (run / "run.json").write_text(json.dumps({"status": status}))
    with pytest.raises(BundleError, match=r"still at work(.|\n)*--resume"):
        publish(run, bundle)
    assert not (bundle / "models").exists()


def test_but_not_into_one_of_another_width(folders):
    run, bundle = folders
    config = resolve(find_bundle(BUNDLE), "inference", "unet_plus_plus", ["network_def#channels=[4,8,8,8]"])
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="other values of network_def"):
        publish(run, bundle)
    assert not (bundle / "models").exists()


def test_an_evaluation_replaces_no_other(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "summary.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"an evaluation in .*tables already(.|\n)*another --out"):
        evaluate(BUNDLE, tmp_path / "nowhere", out=tmp_path / "tables")
    assert [file.name for file in (tmp_path / "tables").iterdir()] == ["summary.json"]


def test_a_run_that_ended_before_its_first_weights_is_said_to_be_one(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BundleError, match=r"before its first validation(.|\n)*--resume"):
        require_weights(tmp_path / "models" / "model.pt")


def test_weights_of_a_run_with_other_settings_are_refused(tmp_path):
    """Of equal shapes, they would load and answer for another input."""
    run = tmp_path / "run"
    build(find_bundle("hippocampus_mri_segmentation"), out=run)
    (run / "configs" / "bundle.yaml").unlink()  # a run has the resolved configs alone
    (run / "run.json").write_text("{}")
    (run / "models").mkdir()
    weights = run / "models" / "model.pt"
    weights.touch()
    Inference("hippocampus_mri_segmentation", weights=weights, overrides=["patch_size=[24,24,24]"])
    config = json.loads((run / "configs" / "inference.json").read_text())
    (run / "configs" / "inference.json").write_text(json.dumps(config | {"spacing_mm": [2.0, 2.0, 2.0]}))
    with pytest.raises(BundleError, match=r"other values of spacing_mm: spacing_mm \[2\.0(.|\n)*name the run's folder"):
        Inference("hippocampus_mri_segmentation", weights=weights)
    with pytest.raises(BundleError, match="other values of spacing_mm"):
        evaluate("hippocampus_mri_segmentation", tmp_path, weights=weights)
    Inference("hippocampus_mri_segmentation", weights=tmp_path / "from_elsewhere.pt")
