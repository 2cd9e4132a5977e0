"""How the cases of a cohort ended, and the tables that say so."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path

from pipeline.io.atomic import write_text

DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended.

    Args:
        case: its id.
        status: ``done``; ``refused``, where the input can't be used and ``reason`` says what to do about it; ``failed``
            after any other error, whose trace stands in ``failures.log``.
        seconds: wall clock that the case added to the run.
        repairs: what the reader put right in its files, and said so.
        volumes_ml: volume of each class in the result, by the class's name.
        output: file of the result.
    """

    case: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    repairs: tuple[str, ...] = ()
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True)
class CohortResult:
    """The outcomes of a run, in the order of the cases.

    Args:
        outcomes: one per case.
        complete: False after an interruption.
        unwritten: why the tables could not be written, if they could not.
    """

    outcomes: tuple[CaseOutcome, ...]
    complete: bool = True
    unwritten: str = ""

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in (DONE, REFUSED, FAILED)}

    @property
    def exit_code(self) -> int:
        """0 where every case is done, 3 where some were refused or failed, 1 where none is done or no table written."""
        done = self.counts[DONE]
        if not done or self.unwritten:
            return 1
        return 0 if done == len(self.outcomes) else 3

    def write(self, output_dir: str | Path) -> None:
        """Write ``predictions.csv`` and ``predictions.json``, each whole or not at all.

        Raises:
            DataError: one can't be written.
        """
        names = list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.volumes_ml))
        columns = ["case", "status", "reason", "seconds", "repairs", *(f"{name}_ml" for name in names), "output"]
        text = StringIO(newline="")
        table = csv.writer(text)
        table.writerow(columns)
        for o in self.outcomes:
            volumes = [f"{o.volumes_ml[name]:.6g}" if name in o.volumes_ml else "" for name in names]
            row = [o.case, o.status, o.reason, f"{o.seconds:.3f}", "; ".join(o.repairs), *volumes, o.output]
            table.writerow(row)
        write_text(Path(output_dir) / "predictions.csv", text.getvalue())
        cases = [asdict(outcome) for outcome in self.outcomes]
        record = {"complete": self.complete, "counts": self.counts, "cases": cases}
        write_text(Path(output_dir) / "predictions.json", json.dumps(record, indent=2))
