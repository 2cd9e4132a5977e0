"""A new bundle: whole, verified, trained on without an edit; or refused before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.bundle import build, resolve, run, verify
from pipeline.bundle.create import create, describe, require_writable
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.strict_yaml import parse
from pipeline.data import describe_on_best_grid, fingerprint_dataset
from pipeline.data.phantom_dataset import write_dataset
from pipeline.errors import BundleError, ConfigError, DataError
from tests.planning.conftest import Machine


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_dataset(folder, 4, seed=5, workers=0)
    return folder


@pytest.fixture(scope="module")
def fingerprint(phantoms, tmp_path_factory):
    return fingerprint_dataset(describe_on_best_grid(phantoms)[0], kept_in=tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def bundle(fingerprint, tmp_path_factory) -> Path:
    """For a machine so slow that the smallest network is all it gets: a test's size."""
    folder = tmp_path_factory.mktemp("bundles") / "phantom_stroke"
    create(fingerprint, folder, memory_gb=4, instruments=Machine(1e8).instruments)
    return folder


def test_it_is_complete_and_up_to_date(bundle):
    assert verify(bundle) == []
    assert build(bundle, check=True).changed == ()
    assert not [path for path in bundle.parent.iterdir() if path != bundle]  # nothing temporary is left


def test_its_yaml_gives_a_reason_for_each_decision(bundle):
    text = (bundle / "configs" / "bundle.yaml").read_text(encoding="utf-8")
    delta = parse(text)
    assert delta["channels"] == ["cbf", "cbv", "mtt"]
    assert delta["normalization"]["cbf"]["scheme"] == "percentile"
    assert delta["spacing_mm"][2] == -1
    assert "'cbf' is a perfusion map" in text
    assert "median of 4 cases" in text
    assert max(map(len, text.splitlines())) <= 120
    files = [text, (bundle / "docs" / "README.md").read_text(encoding="utf-8")]
    assert not any(str(bundle.parent) in content for content in files)  # no path of the machine that made it


def test_its_readme_has_the_datasets_table(bundle):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    for row in ("| cases | 4 (4 with a label) |", "| `cbf`, values |", "| spacing, mm |", "foreground, ml (in"):
        assert row in text
    assert "sub-001" not in text  # a table of the whole: a case's id is nobody's business here


@pytest.mark.slow
def test_training_it_needs_no_edit(bundle, phantoms, tmp_path):
    summary = run.train(bundle, phantoms, out=tmp_path / "run", overrides=["max_epochs=1", "precision=float32"])
    assert summary.refused == []
    assert "foreground" in summary.table


def test_a_dry_run_writes_nothing(fingerprint, tmp_path):
    made = create(fingerprint, tmp_path / "new", memory_gb=4, instruments=Machine(1e8).instruments, dry_run=True)
    assert "patch_size" in made.yaml
    assert list(tmp_path.iterdir()) == []


def test_how_the_files_are_read_stands_in_the_bundle(fingerprint, tmp_path):
    settings = {"volume": {"cbf": 1}, "assume_orientation": "RAS", "spacing_limits_mm": [1e-05, 30]}
    made = create(
        fingerprint, tmp_path / "series", memory_gb=4, settings=settings, instruments=Machine(1e8).instruments
    )
    assert "volume: {cbf: 1}" in made.yaml
    policy = data_rules(resolve(made.folder, "inference")).stack
    assert (policy.policy_of("cbf").volume, policy.policy_of("mtt").volume) == (1, None)
    assert policy.policy.assume_orientation == "RAS"
    assert policy.policy.spacing_limits_mm[0] == 1e-05


def test_the_same_dataset_and_machine_make_the_same_bundle(fingerprint, bundle, tmp_path):
    create(fingerprint, tmp_path / bundle.name, memory_gb=4, instruments=Machine(1e8).instruments)
    files = [path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()]
    assert len(files) == 10
    for file in files:
        assert (tmp_path / bundle.name / file).read_bytes() == (bundle / file).read_bytes(), file


def test_a_bundle_is_replaced_by_force_alone_and_never_with_weights(fingerprint, tmp_path):
    folder = tmp_path / "mine"
    given = {"memory_gb": 4, "instruments": Machine(1e8).instruments}
    create(fingerprint, folder, **given)
    before = (folder / "configs" / "metadata.json").read_bytes()
    with pytest.raises(BundleError, match="--force"):
        create(fingerprint, folder, **given)
    create(fingerprint, folder, classes={1: "infarct"}, force=True, **given)
    after = json.loads((folder / "configs" / "metadata.json").read_bytes())
    assert before != after
    assert after["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "infarct"}
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"weights")
    with pytest.raises(BundleError, match="trained weights"):
        create(fingerprint, folder, force=True, **given)


@pytest.mark.parametrize("name", ["a b", "läsion", ".hidden", "a$b"])
def test_names_that_no_command_line_takes_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="letters, digits"):
        require_writable(tmp_path / name)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    require_writable(tmp_path / "thesis")  # empty: nothing is lost
    (tmp_path / "thesis" / "chapter.txt").write_text("years", encoding="utf-8")
    with pytest.raises(BundleError, match="no bundle"):
        require_writable(tmp_path / "thesis", force=True)


def test_without_labels_it_is_refused_before_a_voxel_is_read(tmp_path):
    for case in ("p1", "p2"):
        (tmp_path / case).mkdir()
        for name in ("cbf", "cbv"):
            (tmp_path / case / f"{case}_{name}.nii.gz").write_bytes(b"never read")
    with pytest.raises(DataError, match=r"2 cases of the channels cbf, cbv, none of them with a label.*put the label"):
        describe(tmp_path, ["cbf", "cbv"])
    shutil.rmtree(tmp_path / "p2")
    (tmp_path / "p1" / "p1_label.nii.gz").write_bytes(b"never read")
    with pytest.raises(DataError, match=r"1 case of the channels cbf, cbv, 1 of them with a label.*add cases"):
        describe(tmp_path, ["cbf", "cbv"])


def test_sections_are_refused_in_words(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"never read")
    with pytest.raises(DataError, match=r"sections \(PNG, TIFF\).*build membrane_em_\w+ --out.*nuclei_micro"):
        describe(tmp_path)
