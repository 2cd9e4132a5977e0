"""``run.json`` as far as a command knows more than what runs: which bundle it was asked for, what a prediction left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.file_digests import DIGITS
from pipeline.data.provenance import (
    RECORD,
    bundle_identity,
    command_line,
    environment,
    run_digests,
    weights_identity,
)
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
    weights: str | Sequence[str],
    result: CohortResult,
    overrides: Sequence[str],
    started: float,
) -> None:
    """The record of a prediction; digests of its label maps are among its files.

    Those of inputs and label maps are what ``predictions.json`` says of them: no file is read again.
    """
    pseudonymous = any(outcome.pseudonymous for outcome in result.outcomes)
    now = datetime.now(timezone.utc)
    results = {name: digest[:DIGITS] for outcome in result.outcomes for name, digest in outcome.files.items()}
    inputs = {o.case: {name: digest[:DIGITS] for name, digest in o.inputs.items()} for o in result.outcomes}
    record = {
        "kind": "predict",
        "status": "completed" if result.complete else "interrupted",
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "ended": now.isoformat(timespec="seconds"),
        "seconds": round(now.timestamp() - started, 1),
        "commands": [command_line(pseudonymous)],
        "settings": [text for text in overrides if not text.startswith(("pseudonyms=", "layout="))],
        "bundle": bundle_identity(bundle),
        "weights": weights_identity(weights, pseudonymous),
        "cases": result.counts,
        "inputs": inputs,
        "files": {**run_digests(output), **results},
    }
    _write(output, record | environment())


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
