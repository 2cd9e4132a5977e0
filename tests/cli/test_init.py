"""`pipeline init`: words to calls, what is printed, exit status."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import pipeline.bundle.create
import pipeline.data
from pipeline.cli.main import app
from pipeline.errors import BundleError


@pytest.fixture
def init(monkeypatch):
    """Runs ``pipeline init`` with the words given; returns the result and what `create` was called with."""
    description = SimpleNamespace(cases=[1, 2], channel_names=("ct", "pet"))
    calls: dict = {}

    def run(*words: str, refused: str | None = None, every: bool = False, refuse_place: Exception | None = None):
        whys = {"a": refused, "b": refused if every else None}
        cases = [SimpleNamespace(case_id=name, refusal=why) for name, why in whys.items()]
        usable = [case for case in cases if case.refusal is None]

        def create(fingerprint, folder, **given):
            calls.update(given, folder=folder)
            given["progress"]("2 patches of 8x8x8: 0.10 s")
            return SimpleNamespace(table="| cases | 2 |", yaml="patch_size: [8, 8, 8]")

        def require_writable(folder, force):
            if refuse_place:
                raise refuse_place

        def describe(dataset, channels=None, layout=None, settings=None):
            calls.update(channels=channels, layout=layout)
            return description, "ct is best"

        def fingerprint_dataset(description, jobs, progress, rules):
            calls.update(rules=rules)
            names = description.channel_names
            return SimpleNamespace(cases=cases, usable=usable, dataset_dir="scans", channel_names=names)

        monkeypatch.setattr(pipeline.bundle.create, "create", create)
        monkeypatch.setattr(pipeline.bundle.create, "require_writable", require_writable)
        monkeypatch.setattr(pipeline.bundle.create, "describe", describe)
        monkeypatch.setattr(pipeline.data, "fingerprint_dataset", fingerprint_dataset, raising=False)
        return CliRunner().invoke(app, ["init", *words], prog_name="pipeline"), calls

    return run


def test_it_hands_over_everything(init):
    words = ["--memory", "6", "--budget", "8h", "--channels", "pet, ct", "--classes", "1=core,2=penumbra"]
    result, calls = init("scans", "mine", *words, "--layout", "bids", "--force")
    assert result.exit_code == 0, result.output
    assert calls["folder"] == Path("mine")
    assert (calls["memory_gb"], calls["budget_s"]) == (6.0, 8 * 3600.0)
    assert (calls["channels"], calls["layout"]) == (["pet", "ct"], "bids")
    assert calls["classes"] == {1: "core", 2: "penumbra"}
    assert (calls["force"], calls["dry_run"]) == (True, False)


def test_it_says_what_it_found_and_what_comes_next(init):
    result, _ = init("scans", "mine")
    for words in (
        "2 cases; channels ct, pet (ct is best)",
        "measured: 2 patches of 8x8x8",
        "| cases | 2 |",
        "patch_size: [8, 8, 8]",
        "pipeline train mine --data scans",
    ):
        assert words in result.output


def test_a_dry_run_says_that_nothing_is_written(init):
    result, calls = init("scans", "mine", "--dry-run")
    assert calls["dry_run"]
    assert "Nothing is written" in result.output
    assert "patch_size" in result.output


def test_refused_cases_are_named_and_end_with_3(init):
    result, _ = init("scans", "mine", refused="case a, file a.nii.gz: found 2 NaN voxels")
    assert result.exit_code == 3
    assert "refused: case a, file a.nii.gz: found 2 NaN voxels" in result.output


def test_how_files_are_read_is_handed_to_the_reading_and_to_the_bundle(init):
    result, calls = init("scans", "mine", "volume=1", "assume_orientation=RAS")
    assert result.exit_code == 0, result.output
    assert calls["settings"] == {"volume": 1, "assume_orientation": "RAS"}
    assert (calls["rules"].policy.volume, calls["rules"].policy.assume_orientation) == (1, "RAS")


def test_a_refusal_that_names_a_setting_is_followed_by_what_to_type(init):
    refused = "case a, file a.nii.gz: found a 4D series; to fix it: name it: volume=0 is the first"
    result, _ = init("scans", "mine", "trust=sform", refused=refused)
    assert "To take them so: the same command with volume=0 at its end; the bundle then says so, too" in result.output


def test_where_no_case_is_left_the_command_to_type_is_the_last_word(init):
    refused = "case a, file a.nii.gz: found a 4D series; to fix it: name it: volume=0 is the first"
    result, calls = init("scans", "mine", refused=refused, every=True)
    assert result.exit_code == 2
    assert "folder" not in calls  # nothing was planned
    assert "Measuring" not in result.output
    assert result.output.strip().endswith("To take them so: the same command with volume=0 at its end")
    result, _ = init("scans", "mine", refused="case a: found 2 NaN voxels", every=True)
    assert result.output.strip().endswith("pipeline check scans says what is wrong with each")


def test_a_place_that_is_taken_is_refused_before_any_work(init):
    result, calls = init("scans", "mine", refuse_place=BundleError("a bundle", file="mine", fix="--force"))
    assert result.exit_code == 2
    assert not calls


@pytest.mark.parametrize(
    "words",
    [
        ["--classes", "1=a,b"],
        ["--classes", "1=a,1=b"],
        ["--classes", "0=background"],
        ["--channels", "ct,,pet"],
        ["--channels", "ct,CT"],
        ["--budget", "20"],
        ["--memory", "0"],
        ["patch_size=[8,8,8]"],
    ],
)
def test_wrong_words_end_with_2(init, words):
    result, calls = init("scans", "mine", *words)
    assert result.exit_code == 2
    assert not calls
