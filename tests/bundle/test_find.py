from __future__ import annotations

import pytest

from pipeline.bundle import find, find_bundle
from pipeline.errors import BundleError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A checkout in ``tmp_path`` with two bundles."""
    monkeypatch.setattr(find, "_PACKAGE", tmp_path / "pipeline")
    for name in ("hippocampus_mri_segmentation", "stroke_perfusion_segmentation"):
        (tmp_path / "bundles" / name / "configs").mkdir(parents=True)
        (tmp_path / "bundles" / name / "configs" / "bundle.yaml").touch()
    (tmp_path / "configs").mkdir()
    return tmp_path


def test_a_checkout_has_them_beside_the_package(package):
    assert find.shipped_configs() == package / "configs"
    assert find.shipped_bundles() == package / "bundles"


def test_a_wheel_has_its_own_copy_whatever_lies_in_site_packages(package):
    (package / "pipeline" / "_shipped" / "configs").mkdir(parents=True)
    assert find.shipped_configs() == package / "pipeline" / "_shipped" / "configs"


def test_by_name_by_path_and_neither(package, bundle, monkeypatch):
    assert find_bundle(bundle) == bundle.resolve()
    assert find_bundle("stroke_perfusion_segmentation").parent == package / "bundles"
    with pytest.raises(
        BundleError, match=r"nearest: stroke_perfusion_segmentation.*hippocampus_mri_segmentation, stroke"
    ):
        find_bundle("elsewhere/stroke_perfusion")
    with pytest.raises(BundleError, match=r"no bundle 'my_scans'.*by: pipeline init DATASET my_scans$"):
        find_bundle("my_scans")
    (package / "my_bundle" / "configs").mkdir(parents=True)
    (package / "my_bundle" / "configs" / "bundle.yaml").touch()
    (package / "my_bundles").mkdir()
    with pytest.raises(BundleError, match=r"nearest: \S+my_bundle\)") as refusal:
        find_bundle(package / "my_bundel")
    assert "pipeline init" not in str(refusal.value)
    with pytest.raises(BundleError, match="a folder that is no bundle"):
        find_bundle(package)


def test_nothing_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "_PACKAGE", tmp_path / "pipeline")
    with pytest.raises(BundleError, match="no shipped bundles"):
        find_bundle("stroke")


def test_the_bundle_of_a_record(package, tmp_path):
    name = "stroke_perfusion_segmentation"
    assert find.recorded_bundle({"bundle": {"name": name}}) == package / "bundles" / name
    assert find.recorded_bundle({"bundle": {"name": "of_another_machine"}, "weights": None}) is None
    assert find.recorded_bundle({"bundle": None}) is None
    # A run that was predicted with: no name leads to it, but its weights do.
    run = tmp_path / "runs" / "2026"
    (run / "configs").mkdir(parents=True)
    (run / "configs" / "train.json").touch()
    weights = [{"file": str(run / "models" / "model.pt")}]
    assert find.recorded_bundle({"bundle": {"name": "2026"}, "weights": weights}) == run
    assert find.recorded_bundle({"bundle": {"name": name}, "weights": weights}) == package / "bundles" / name
