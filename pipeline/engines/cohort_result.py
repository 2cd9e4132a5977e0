"""How the cases of a cohort ended, and the tables that say so."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.geometry import Grid
from pipeline.io.atomic import write_text

DONE, REFUSED, FAILED = "done", "refused", "failed"

CaseKey = tuple[str, str]
"""Folder below the output folder, and id: together they are one case's alone."""


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended.

    Args:
        case: its id.
        status: ``done``; ``refused``, where the input can't be used and ``reason`` says what to do about it; ``failed``
            after any other error, whose trace stands in ``failures.log``.
        reason: of a case that is not done; of one that is done, what one should know of its result.
        seconds: that the case was worked on; other cases were worked on at the same time.
        repairs: what the reader put right in its files, and said so; how a lack of memory was got over.
        volumes_ml: volume of each class in the result, by the class's name.
        instances: how many objects the result numbers; None where it holds classes, or somebody has changed it since.
        volumes_as_written_ml: of a result that somebody has changed since, what they were before.
        output: file of the result.
        relative: folder of the case below the output folder.
        inputs: channel -> SHA-256 of its file.
        files: each file that was written, ``output`` among them -> SHA-256.
        grid: ``shape`` and ``affine`` of the result.
        made_with: digest of what a result depends on beside its inputs: bundle, weights, version.
        device: where the network ran.
        kept: whether the result is one of an earlier run, which still holds.
        pseudonymous: whether ``case`` is a pseudonym.
    """

    case: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    repairs: tuple[str, ...] = ()
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    output: str = ""
    relative: str = "."
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)
    made_with: str = ""
    device: str = ""
    kept: bool = False
    pseudonymous: bool = False
    volumes_as_written_ml: Mapping[str, float] = field(default_factory=dict)
    instances: int | None = None

    @property
    def key(self) -> CaseKey:
        return self.relative, self.case

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> CaseOutcome:
        """From a case's entry in ``predictions.json``, of whatever version: what is unknown is left out.

        Raises:
            TypeError, ValueError: no such entry, or a damaged one.
        """
        if not isinstance(record, Mapping):
            raise TypeError(f"{type(record).__name__} as a case")
        known = {one.name: record[one.name] for one in fields(cls) if one.name in record}
        for name, value in known.items():
            if not _fits(name, value):
                raise TypeError(f"{name}: {value!r}")
        outcome = cls(**known | {"repairs": tuple(known.get("repairs", ()))})
        outcome.own_grid()
        return outcome

    def own_grid(self) -> Grid | None:
        """``grid``, where it is known.

        Raises:
            TypeError, ValueError: it describes none.
        """
        if not self.grid:
            return None
        if set(self.grid) != {"shape", "affine"}:
            raise ValueError(f"a grid of {', '.join(self.grid)}")
        return Grid(tuple(self.grid["shape"]), np.array(self.grid["affine"], dtype=np.float64))


_NUMBERS, _TEXTS = ("volumes_ml", "volumes_as_written_ml"), ("inputs", "files")


def _fits(name: str, value: Any) -> bool:
    """Whether a value that was read from a file can be that of a field of `CaseOutcome`."""
    if name == "repairs":
        return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if name in (*_NUMBERS, *_TEXTS, "grid"):
        kind: Any = (int, float) if name in _NUMBERS else str if name in _TEXTS else object
        return isinstance(value, Mapping) and all(isinstance(one, kind) for one in value.values())
    kinds: dict[str, Any] = {"seconds": (int, float), "kept": bool, "pseudonymous": bool}
    kinds["instances"] = (int, type(None))
    return isinstance(value, kinds.get(name, str))


@dataclass(frozen=True)
class CohortResult:
    """The outcomes of a run, in the order of the cases.

    Args:
        outcomes: one per case.
        complete: False after an interruption.
        unwritten: why the tables could not be written, if they could not.
        record: what is to be known of the run as a whole; stands in ``predictions.json`` beside the cases.
        earlier: outcomes in the same folder that this run has not looked at: kept for the next, in
            ``predictions.json`` alone.
    """

    outcomes: tuple[CaseOutcome, ...]
    complete: bool = True
    unwritten: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[CaseOutcome, ...] = ()

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
        counted = ["instances"] if any(outcome.instances is not None for outcome in self.outcomes) else []
        columns = [
            "case",
            "status",
            "reason",
            "seconds",
            "repairs",
            *(f"{name}_ml" for name in names),
            *counted,
            "output",
        ]
        text = StringIO(newline="")
        table = csv.writer(text)
        table.writerow(columns)
        for o in self.outcomes:
            volumes = [f"{o.volumes_ml[name]:.6g}" if name in o.volumes_ml else "" for name in names]
            number = ["" if o.instances is None else o.instances] if counted else []
            row = [o.case, o.status, o.reason, f"{o.seconds:.3f}", "; ".join(o.repairs), *volumes, *number, o.output]
            table.writerow(row)
        write_text(Path(output_dir) / "predictions.csv", text.getvalue())
        record = {"complete": self.complete, "counts": self.counts, **self.record}
        record["cases"] = [asdict(outcome) for outcome in self.outcomes]
        record |= {"earlier": [asdict(outcome) for outcome in self.earlier]} if self.earlier else {}
        write_text(Path(output_dir) / "predictions.json", json.dumps(record, indent=2))
