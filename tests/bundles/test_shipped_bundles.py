"""Every bundle that this package ships: freshly built, data only, complete by the zoo's rules."""

from __future__ import annotations

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
