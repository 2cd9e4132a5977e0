"""Every bundle that this package ships: freshly built, data only, complete by the zoo's rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import pipeline
from pipeline.bundle import KINDS, audit_bundle, build, is_bundle, resolve
from pipeline.bundle.verify import verify

# Ignite's own import, on torch >= 2.13.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

_FOLDER = Path(pipeline.__file__).parents[1] / "bundles"
BUNDLES = sorted(folder for folder in _FOLDER.glob("*") if is_bundle(folder))


@pytest.fixture(params=BUNDLES, ids=lambda folder: folder.name)
def shipped(request) -> Path:
    return request.param


def test_the_generated_files_are_fresh(shipped):
    result = build(shipped, check=True)
    assert [file.stem for file in result.files] == list(KINDS)


def test_it_is_data_only(shipped):
    assert audit_bundle(shipped) == []


def test_the_delta_is_short(shipped):
    assert len((shipped / "configs" / "bundle.yaml").read_text(encoding="utf-8").splitlines()) <= 60


def test_every_kind_takes_an_override(shipped):
    for kind in KINDS:
        assert resolve(shipped, kind, overrides=("output_dir=elsewhere",))["output_dir"] == "elsewhere"


def test_it_is_complete_by_the_zoos_rules(shipped):
    assert verify(shipped) == []


def test_all_that_is_random_in_its_training_can_be_put_off_to_the_device(shipped):
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser(resolve(shipped, "train", overrides=["augment_on=device"]))
    with torch.device("meta"):
        parser.get_parsed_content("network_def")
    assert parser.get_parsed_content("train#preprocessing").deferred


def test_another_optimiser_and_decay_are_a_matter_of_the_delta(shipped, tmp_path):
    from monai.bundle import ConfigParser

    bundle = tmp_path / "bundle"
    shutil.copytree(shipped, bundle, ignore=shutil.ignore_patterns("*.pt"))
    delta = bundle / "configs" / "bundle.yaml"
    if "\noptimizer:" in delta.read_text(encoding="utf-8"):
        pytest.skip("its delta has an optimiser of its own")
    lines = """
optimizer: {_replace_: true, _target_: torch.optim.SGD, params: "$@network.parameters()", lr: "@learning_rate",
            momentum: 0.99, nesterov: true, weight_decay: "@weight_decay"}
schedule: {decay: polynomial}
"""
    delta.write_text(delta.read_text(encoding="utf-8") + lines, encoding="utf-8")
    parser = ConfigParser(resolve(bundle, "train", overrides=["learning_rate=0.01"]))
    parser.parse()
    optimizer = parser.get_parsed_content("optimizer")
    schedule = parser.get_parsed_content("schedule")
    assert (type(optimizer).__name__, optimizer.defaults["nesterov"]) == ("SGD", True)
    assert schedule.peaks == [0.01]
    assert schedule.factor(0.51) == pytest.approx((1 - 0.49 / 0.98) ** 0.9)
