"""What measuring two folders came to: how each pair ended, the rows and their summary, and the files that say so."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.data.provenance import RECORD, run_digests
from pipeline.io.atomic import write_text
from pipeline.metrics import Row, Summary, write_tables

DONE, REFUSED, MISSING, FAILED = "done", "refused", "no_prediction", "failed"


@dataclass(frozen=True)
class PairOutcome:
    """How one pair ended.

    Args:
        case_id: of the pair.
        status: ``done``; ``refused``, where ``reason`` says what to do about it; ``no_prediction`` for a reference that
            has none; ``failed`` after any other error.
        remarks: what was put right or assumed in reading.
        seconds: that it took.
        trace: of a failure.
    """

    case_id: str
    status: str
    reason: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    trace: str = ""


@dataclass(frozen=True)
class Measured:
    """Two folders, measured.

    Args:
        rows: of all pairs that are done; every class in each.
        summary: of the rows; None where there are none.
        outcomes: one per reference.
        extra: names of predictions that belong to no reference.
        out: where the tables are, if anywhere.
    """

    rows: tuple[Row, ...]
    summary: Summary | None
    outcomes: tuple[PairOutcome, ...]
    extra: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in (DONE, REFUSED, MISSING, FAILED)}

    @property
    def exit_code(self) -> int:
        """0 where every reference is measured, 3 where some are not, 1 where none is done."""
        done = self.counts[DONE]
        if not done:
            return 1
        return 0 if done == len(self.outcomes) else 3

    def written(self, out: Path, record: Mapping[str, Any]) -> Measured:
        """The same, with all its files in a folder.

        Raises:
            DataError: one can't be written.
        """
        log = out / "failures.log"
        log.unlink(missing_ok=True)
        if self.summary is not None:
            write_tables(self.rows, self.summary, out)
        text = StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("case_id", "status", "reason", "seconds", "remarks"))
        for o in self.outcomes:
            table.writerow((o.case_id, o.status, o.reason, f"{o.seconds:.3f}", "; ".join(o.remarks)))
        write_text(out / "pairs.csv", text.getvalue())
        traces = [f"case {outcome.case_id}\n{outcome.trace}\n" for outcome in self.outcomes if outcome.trace]
        if traces:
            write_text(log, "".join(traces))
        complete = {**record, "files": run_digests(out)}
        write_text(out / RECORD, json.dumps(complete, indent=1, ensure_ascii=False) + "\n")
        return replace(self, out=out)
