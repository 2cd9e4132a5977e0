"""Kills predictions of one cohort at seeded moments, and lets each go on: run by test_cohort_killed, prints JSON lines.

    python tests/engines/killed_cohort.py FOLDER [--moments 5] [--seed 0] [--cases 6]

A moment is a call of a C function, counted over all threads: every write, sync and rename of a result or of the journal
lies between two of them, and all are as likely.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from pipeline.engines.cohort_history import History
from pipeline.io import read_volume
from tests.engines.small_cohort import predict, whole, write_cases


def counting(kill_at: int | None) -> itertools.count:
    """Counts this process's calls of C functions in threads that are yet to come, and ends it at one of them."""
    calls = itertools.count(1)

    def profile(frame, event: str, argument) -> None:
        if event == "c_call" and next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    threading.setprofile(profile)
    return calls


def child(items: list[dict], out: Path, kill_at: int | None, report: Path) -> int:
    """A prediction in a process of its own; its exit status, negative where it was killed."""
    pid = os.fork()
    if pid == 0:
        calls = counting(kill_at)
        result = predict(items, out)
        sys.setprofile(None)
        kept = [outcome.case for outcome in result.outcomes if outcome.kept]
        report.write_text(json.dumps({"calls": next(calls), "counts": result.counts, "kept": kept}))
        os._exit(result.exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=6)
    options = parser.parse_args()
    items = write_cases(options.folder / "scans", options.cases)
    report = options.folder / "report.json"
    child(items, options.folder / "unkilled", None, report)
    calls = json.loads(report.read_text())["calls"]
    random.seed(options.seed)
    for number in range(options.moments):
        kill_at = random.randrange(1, calls)
        out = options.folder / f"killed-{number}"
        status = child(items, out, kill_at, report)
        history = History(out)
        history.read()
        done = {case for _, case in history.outcomes}
        partial = [path.name for path in out.glob("*.nii.gz") if not path.name.startswith(".") and not reads(path)]
        again = child(items, out, None, report)
        after = json.loads(report.read_text())
        places = [out / f"case-{case}.nii.gz" for case in range(options.cases)]
        row = {
            "killed": status == -signal.SIGKILL,
            "share_of_the_calls": round(kill_at / calls, 3),
            "done": len(done),
            "under_way": len(history.unfinished),
            "partial": partial,
            "status_again": again,
            "kept": sorted(after["kept"]) == sorted(done),
            "lost": sum(not (path.is_file() and whole(path, case)) for case, path in enumerate(places)),
            "left_over": [path.name for path in out.iterdir() if path.name.startswith(".")],
        }
        print(json.dumps(row), flush=True)


def reads(path: Path) -> bool:
    try:
        read_volume(path)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
