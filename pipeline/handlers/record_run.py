"""``run.json`` and ``models/split.json``: what is needed to know, later, what a run was."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from pipeline.data import Split, write_split
from pipeline.data.provenance import (
    RECORD,
    bundle_identity,
    command_line,
    environment,
    input_digests,
    known_digests,
    run_digests,
    weights_identity,
)
from pipeline.data.pseudonyms import MARK
from pipeline.data.splits import fingerprint
from pipeline.io.atomic import write_text


class RecordRun:
    """Writes what a run is made of: digests of its inputs, bundle, weights and files, versions, hardware, seed,
    precision, commands, split and refused cases; its durations when it ends.

    Files of cases are read for their digests beside the run, which does not wait for it before its end. A run that is
    resumed keeps the commands that it was started with before.

    Args:
        run_dir: of the run.
        seed: of the run.
        datasets: part -> :class:`pipeline.data.CaseDataset`: ``train`` and ``validate``, or ``validate`` alone.
        bundle_root: folder of the bundle, unless the record that is already there names it.
        weights: the file, or the files, of the weights that are evaluated.
    """

    def __init__(
        self,
        run_dir: str,
        seed: int,
        datasets: dict[str, Any],
        bundle_root: str | None = None,
        weights: str | Sequence[str] | None = None,
    ) -> None:
        self.run_dir, self.seed, self.datasets = Path(run_dir), seed, datasets
        self.bundle_root, self.weights = bundle_root, weights
        self.started = time.time()
        self._inputs: dict[str, dict[str, str]] | None = None
        self._reader: Thread | None = None
        self._lasting: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._begin)
        if "train" in self.datasets:
            engine.add_event_handler(Events.STARTED, self._write_split)
        engine.add_event_handler(Events.STARTED, self._write, "running")
        engine.add_event_handler(Events.COMPLETED, self._write, "completed")
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._interrupted)

    def _begin(self, engine: Engine) -> None:
        items = [item for dataset in self.datasets.values() for item in dataset.data]
        pseudonymous = any(isinstance(item, Mapping) and item.get(MARK) for item in items)
        file = self.run_dir / RECORD
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        bundle = before.get("bundle")
        if bundle is None and self.bundle_root is not None:
            bundle = bundle_identity(Path(self.bundle_root))
        self._lasting = {
            "commands": [*before.get("commands", []), command_line(pseudonymous)],
            "bundle": bundle,
            "weights": None if self.weights is None else weights_identity(self.weights, pseudonymous),
        }

        def read() -> None:
            self._inputs = input_digests(items, known_digests())

        self._reader = Thread(target=read, name="digests", daemon=True)
        self._reader.start()

    def _write_split(self, engine: Engine) -> None:
        # Beside the weights, and published with them: an evaluation must know what they were trained on.
        ids = {part: tuple(sorted(item["case_id"] for item in dataset.data)) for part, dataset in self.datasets.items()}
        items = [item for dataset in self.datasets.values() for item in dataset.data]
        prints = {item["case_id"]: fingerprint(next(iter(item["image"].values()))) for item in items}
        patients = {item["case_id"]: item["patient"] for item in items if "patient" in item}
        split = Split(ids["train"], ids["validate"], prints, patients)
        write_split(self.run_dir / "models" / "split.json", split)

    def _interrupted(self, engine: Engine, error: BaseException) -> None:
        self._write(engine, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        if not getattr(engine, "raises_again", False):  # Ignite has left it to its listeners
            raise error

    def _write(self, engine: Engine, status: str) -> None:
        state = engine.state
        precision = getattr(state, "precision", getattr(engine, "precision", None))
        now = time.time()
        if status == "completed" and self._reader is not None:
            self._reader.join()
        record = {
            "kind": "train" if "train" in self.datasets else "evaluate",
            "status": status,
            "started": _moment(self.started),
            "ended": None if status == "running" else _moment(now),
            "seconds": round(now - self.started, 1),
            "seed": self.seed,
            "epochs": state.epoch,
            "iterations": state.iteration,
            "device": str(state.device),
            "processes": idist.get_world_size(),
            "precision": None
            if precision is None
            else {"chosen": precision.name, "seconds_per_step": precision.seconds},
            "cases": {part: len(dataset.data) for part, dataset in self.datasets.items()},
            "refused": [
                {"part": part, "case": refusal.case_id, "reason": refusal.reason}
                for part, dataset in self.datasets.items()
                for refusal in dataset.refused
            ],
            **self._lasting,
            "inputs": self._inputs,
            "files": run_digests(self.run_dir) if status == "completed" else None,
        } | environment()
        write_text(self.run_dir / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
