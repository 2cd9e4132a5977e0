"""What is known of each case in an output folder, whatever became of the runs that wrote into it.

The tables are written at a run's end. Until then every case has its lines in a journal: that it was begun, and how it
ended. So a run that is killed loses the cases that it was at, and the next one knows which they were.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.engines.cohort_result import CaseKey, CaseOutcome
from pipeline.errors import DataError
from pipeline.io.atomic import write_text
from pipeline.io.journal import Journal, read_journal
from pipeline.io.stream import cannot

_BEGUN = "begun"


class History:
    """The outcomes of earlier runs, and the journal of this one.

    Args:
        output_dir: is there.
        process: of several that work on one cohort, each has a journal of its own.
        pseudonymous: whether this run knows cases by pseudonyms. Then it takes along nothing of one that did not.

    Attributes:
        outcomes: the last one of each case.
        unfinished: cases that a run was at when it was killed.
    """

    def __init__(self, output_dir: Path, process: int = 0, pseudonymous: bool = False) -> None:
        self.output_dir, self.pseudonymous = output_dir, pseudonymous
        self.outcomes: dict[CaseKey, CaseOutcome] = {}
        self.unfinished: set[CaseKey] = set()
        self._journal = Journal(output_dir / _name(process))

    def read(self) -> None:
        """Read what all processes of all runs have left.

        Raises:
            DataError: a file that can't be read, or ``predictions.json`` that is none of this package's.
        """
        lines = _of_table(self.output_dir / "predictions.json")
        for path in sorted(self.output_dir.glob("predictions.*.jsonl")):  # that of process 0 first
            lines += read_journal(path)
        for outcome in map(CaseOutcome.read, lines):
            if self.pseudonymous and not outcome.pseudonymous:
                continue
            if outcome.status == _BEGUN:
                self.unfinished.add(outcome.key)
                self.outcomes.pop(outcome.key, None)
            else:
                self.unfinished.discard(outcome.key)
                self.outcomes[outcome.key] = outcome

    def settle(self) -> None:
        """Put all that was read into one journal, in the place of several: the lines of this run come behind it.

        Raises:
            DataError: it can't be written.
        """
        journals = sorted(self.output_dir.glob("predictions.*.jsonl"))
        if not journals:
            return
        lines = [asdict(outcome) for outcome in self.outcomes.values()]
        lines += [self._begun(key) for key in self.unfinished]
        write_text(self.output_dir / _name(0), "".join(f"{json.dumps(line)}\n" for line in lines))
        for path in journals:
            if path.name != _name(0):
                path.unlink()

    def begin(self, key: CaseKey) -> None:
        """A case is begun: what was known of it no longer holds."""
        self.outcomes.pop(key, None)
        self._journal.append(self._begun(key))

    def _begun(self, key: CaseKey) -> dict[str, Any]:
        return {"status": _BEGUN, "relative": key[0], "case": key[1], "pseudonymous": self.pseudonymous}

    def end(self, outcome: CaseOutcome) -> None:
        """A case has ended. It is known for good when this returns."""
        self._journal.append(asdict(outcome))

    def close(self) -> None:
        """Close the journal; it stays."""
        self._journal.close()

    def forget_journals(self) -> None:
        """Now that the tables hold all of it."""
        for path in self.output_dir.glob("predictions.*.jsonl"):
            with contextlib.suppress(OSError):  # read again the next time, and nothing in it is wrong
                path.unlink()


def _name(process: int) -> str:
    return f"predictions.{process}.jsonl"


def _of_table(path: Path) -> list[dict[str, Any]]:
    try:
        table = json.loads(path.read_bytes())
        return [*table.get("earlier", ()), *table["cases"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot(error, path, "read") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            "a file that no prediction has written", file=path, fix="move it away, or choose another folder"
        ) from error
