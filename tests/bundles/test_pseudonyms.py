"""A training and a prediction under pseudonyms: nothing that they leave or say has an id or a case's path in it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.bundles.conftest import BUNDLE, SMALL
from tests.commands import command

pytestmark = pytest.mark.slow

IDS = ["smith-john", "doe_jane", "roe1", "poe.e"]


@pytest.fixture
def scans(phantoms, tmp_path) -> Path:
    """Four phantoms under names of people; one of them is broken."""
    root = tmp_path / "scans"
    for number, name in enumerate(IDS, start=1):
        (root / name).mkdir(parents=True)
        for file in (phantoms / f"sub-00{number}").iterdir():
            shutil.copyfile(file, root / name / file.name.replace(f"sub-00{number}", name))
    broken = root / "roe1" / "roe1_cbv.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    return root


def leaks(folder: Path) -> list[str]:
    """Where in a folder an id stands: in the name of a file, or in what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    named = [str(path) for path in folder.rglob("*") if any(name in str(path.relative_to(folder)) for name in IDS)]
    return named + [str(path) for path in files if any(name.encode() in path.read_bytes() for name in IDS)]


def test_nothing_that_is_left_knows_an_id(scans, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("id,pseudonym\n" + "".join(f"{name},P{i}\n" for i, name in enumerate(IDS)), encoding="utf-8")
    run, out = tmp_path / "run", tmp_path / "out"
    common = ("--pseudonyms", names, *SMALL)
    said = [
        command(
            "pipeline", "train", BUNDLE, "--data", scans, "--out", run, *common, "max_epochs=1", "folds=2", status=3
        )
    ]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert [(case["case"], "<cbv of P2>" in case["reason"]) for case in record["refused"]] == [("P2", True)]
    split = json.loads((run / "models" / "split.json").read_text(encoding="utf-8"))
    assert sorted(split["train"] + split["validate"]) == ["P0", "P1", "P3"]
    inference = json.loads((run / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert (inference["pseudonyms"], inference["layout"]) == (None, None)  # it may predict others' scans

    said.append(command("pipeline", "predict", run, scans, out, "--pseudonyms", names, "--layout", "folders", status=3))
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert {case: row["status"] for case, row in rows.items()} == {
        "P0": "done",
        "P1": "done",
        "P2": "refused",
        "P3": "done",
    }
    assert rows["P0"]["output"] == "P0.nii.gz"
    assert any(b"validate/P" in file.read_bytes() for file in run.rglob("*tfevents*"))  # read as they are: no archive
    assert leaks(run) == leaks(out) == []
    for result in said:
        assert not [name for name in IDS if name in result.stdout + result.stderr]
