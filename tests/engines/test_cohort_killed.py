"""Processes that are killed, and several that share a cohort."""

import csv
import json
import sys
from pathlib import Path

import pytest

from pipeline.engines.cohort_history import History
from pipeline.io.journal import read_journal
from tests.commands import python, ranks
from tests.engines.small_cohort import whole, write_cases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs Unix's processes and signals"),
]


def test_a_kill_at_any_moment_costs_the_cases_under_way_and_no_more(tmp_path):
    lines = python(Path(__file__).with_name("killed_cohort.py"), tmp_path, "--moments", "6").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 6
    assert sum(row["killed"] for row in rows) >= 5  # the last calls may come in less of them than were counted
    assert any(0 < row["done"] < 6 for row in rows)
    for row in rows:
        assert row["partial"] == row["left_over"] == []
        assert row["under_way"] <= 4  # one is read, one is in the network, two are written
        assert (row["status_again"], row["kept"], row["lost"]) == (0, True, 0)


def test_two_processes_share_a_cohort_and_go_on_where_one_was_killed(tmp_path):
    items = write_cases(tmp_path / "scans", 7, broken=(2,))
    out, script = tmp_path / "out", Path(__file__).with_name("cohort_distributed.py")
    ranks(2, script, tmp_path, "killed", "case-5", fails=True)
    assert not list(out.glob("*.csv"))
    journals = sorted(out.glob("predictions.*.jsonl"))
    shares = [{line["case"] for line in read_journal(path)} for path in journals]
    assert len(shares) == 2
    assert all(shares)  # neither had nothing to do
    assert not shares[0] & shares[1]  # and no case was taken twice
    history = History(out)
    history.read()
    done = {case for (_, case), outcome in history.outcomes.items() if outcome.status == "done"}

    ranks(2, script, tmp_path, "again")
    reports = [json.loads((tmp_path / f"again-{rank}.json").read_text()) for rank in range(2)]
    cases = [item["case_id"] for item in items]
    for report in reports:  # each process has the whole result
        assert report["cases"] == cases
        assert report["kept"] == sorted(done)
        assert report["counts"] == {"done": 6, "refused": 1, "failed": 0}
    assert sum(report["calls"] for report in reports) == 6 - len(done)  # of the network: each case once
    with (out / "predictions.csv").open() as file:
        assert [(row["case"], row["status"]) for row in csv.DictReader(file)] == [
            (case, "refused" if case == "case-2" else "done") for case in cases
        ]
    assert all(whole(out / f"{case}.nii.gz", number) for number, case in enumerate(cases) if number != 2)
    assert sorted(path.name for path in out.glob("*.json*")) == ["predictions.json"]
