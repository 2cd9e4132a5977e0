"""``run.json`` as far as a command knows more than what runs: which bundle it was asked for, what a prediction left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.file_digests import file_digest
from pipeline.data.provenance import (
    RECORD,
    bundle_identity,
    command_line,
    environment,
    input_digests,
    run_digests,
    weights_identity,
)
from pipeline.data.pseudonyms import MARK
from pipeline.io.atomic import write_text

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult


def begin_record(run_dir: Path, bundle: Path) -> None:
    """A record with the bundle's identity, which `pipeline.handlers.RecordRun` goes on with: in the run's folder
    itself there is a copy of its configs alone, with this run's values."""
    _write(run_dir, {"status": "prepared", "bundle": bundle_identity(bundle)})


def record_prediction(
    output: Path,
    bundle: Path,
    weights: Sequence[Path],
    items: Sequence[Mapping[str, Any]],
    result: CohortResult,
    overrides: Sequence[str],
    started: float,
) -> None:
    """The record of a prediction; digests of its label maps are among its files.

    Args:
        weights: one file, or those of an ensemble.
    """
    pseudonymous = any(item.get(MARK) for item in items)
    now = datetime.now(timezone.utc)
    results = {o.output: file_digest(output / o.output) for o in result.outcomes if o.output}
    identities = [weights_identity(file, pseudonymous) for file in weights]
    record = {
        "kind": "predict",
        "status": "completed" if result.complete else "interrupted",
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "ended": now.isoformat(timespec="seconds"),
        "seconds": round(now.timestamp() - started, 1),
        "commands": [command_line(pseudonymous)],
        "settings": [text for text in overrides if not text.startswith(("pseudonyms=", "layout="))],
        "bundle": bundle_identity(bundle),
        "weights": identities[0] if len(identities) == 1 else identities,
        "cases": result.counts,
        "inputs": input_digests(items, _read_before(items, result)),
        "files": {**run_digests(output), **results},
    }
    _write(output, record | environment())


def _read_before(items: Sequence[Mapping[str, Any]], result: CohortResult) -> Callable[[Path], str]:
    """`file_digest` that knows the files which the cohort has read."""
    from pipeline.io import section_of

    of_case = {outcome.key: outcome.inputs for outcome in result.outcomes}
    known: dict[Path, str] = {}
    for item in items:
        inputs = of_case.get((str(item.get("relative", ".")), str(item["case_id"])), {})
        known |= {section_of(path)[0]: inputs[name][:40] for name, path in item["image"].items() if name in inputs}
    return lambda path: known.get(path) or file_digest(path)


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
