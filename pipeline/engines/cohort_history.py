"""What is known of each case in an output folder, whatever became of the runs that wrote into it.

The tables are written at a run's end. Until then every case has its lines in a journal: that it was begun, and how it
ended. So a run that is killed loses the cases that it was at, and the next one knows which they were.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.engines.cohort_kept import digest_of
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
        unfinished: cases that are begun, or that a run was at when it was killed -> what lay in their results' place
            then and was no run's work, as `pipeline.engines.cohort_kept.others_work` has it.
    """

    def __init__(self, output_dir: Path, process: int = 0, pseudonymous: bool = False) -> None:
        self.output_dir, self.pseudonymous = output_dir, pseudonymous
        self.outcomes: dict[CaseKey, CaseOutcome] = {}
        self.unfinished: dict[CaseKey, Mapping[str, str]] = {}
        self._journal = Journal(output_dir / _name(process))

    def read(self) -> None:
        """Read what all processes of all runs have left.

        Raises:
            DataError: a file that can't be read, or that is none of this package's.
        """
        outcomes = _of_table(self.output_dir / "predictions.json")
        for path in sorted(self.output_dir.glob("predictions.*.jsonl")):  # that of process 0 first
            outcomes += _outcomes(read_journal(path), path)
        for outcome in outcomes:
            if self.pseudonymous and not outcome.pseudonymous:
                continue
            if outcome.status == _BEGUN:
                self.unfinished[outcome.key] = outcome.files
                # What somebody made of an earlier result is still there: nothing has been written over it.
                if not any(self._lies(*file) for file in outcome.files.items()):
                    self.outcomes.pop(outcome.key, None)
            else:
                self.unfinished.pop(outcome.key, None)
                self.outcomes[outcome.key] = outcome

    def _lies(self, name: str, digest: str) -> bool:
        try:
            return digest_of(self.output_dir / name) == digest
        except DataError:  # not to be read: not known to be a run's
            return True

    def settle(self) -> None:
        """Put all that was read into one journal, in the place of several: the lines of this run come behind it.

        Raises:
            DataError: it can't be written.
        """
        journals = sorted(self.output_dir.glob("predictions.*.jsonl"))
        if not journals:
            return
        lines = [asdict(outcome) for outcome in self.outcomes.values()]
        self._write(lines + [self._begun(*case) for case in self.unfinished.items()])
        for path in journals:
            if path.name != _name(0):
                path.unlink()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.output_dir / _name(0), "".join(f"{json.dumps(line)}\n" for line in lines))

    def begin(self, key: CaseKey, others: Mapping[str, str]) -> None:
        """A case is begun: from now on, what is found in its results' place is a run's own work, but for ``others``."""
        self.unfinished[key] = others
        self._journal.append(self._begun(key, others))

    def _begun(self, key: CaseKey, others: Mapping[str, str]) -> dict[str, Any]:
        about = {"relative": key[0], "case": key[1], "pseudonymous": self.pseudonymous}
        return {"status": _BEGUN, **about} | ({"files": dict(others)} if others else {})

    def end(self, outcome: CaseOutcome) -> None:
        """A case has ended. It is known for good when this returns."""
        self._journal.append(asdict(outcome))

    def close(self) -> None:
        """Close the journal; it stays."""
        self._journal.close()

    def forget_journals(self, ended: Collection[CaseKey]) -> None:
        """Now that the tables hold all of it; what stays is which cases have been begun and are not among ``ended``."""
        begun = [self._begun(*case) for case in list(self.unfinished.items()) if case[0] not in ended]
        journals = list(self.output_dir.glob("predictions.*.jsonl"))
        with contextlib.suppress(OSError, DataError):  # read again the next time, and nothing in it is wrong
            if begun:
                self._write(begun)
            for path in journals:
                if not begun or path.name != _name(0):
                    path.unlink()


def _name(process: int) -> str:
    return f"predictions.{process}.jsonl"


def _of_table(path: Path) -> list[CaseOutcome]:
    try:
        table = json.loads(path.read_bytes())
        lines = [*table.get("earlier", ()), *table["cases"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot(error, path, "read") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _foreign(path) from error
    return _outcomes(lines, path)


def _outcomes(lines: list[Any], path: Path) -> list[CaseOutcome]:
    try:
        return [CaseOutcome.read(line) for line in lines]
    except (ValueError, TypeError) as error:
        raise _foreign(path) from error


def _foreign(path: Path) -> DataError:
    return DataError(
        "a file that no prediction has written, or that was damaged since",
        file=path,
        fix="move it away, or choose another folder",
    )
