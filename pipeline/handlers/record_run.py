"""``run.json`` and ``models/split.json``: what is needed to know, later, what a run was."""

from __future__ import annotations

import json
import platform
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from pipeline.data import Split, write_split
from pipeline.data.splits import fingerprint
from pipeline.io.atomic import write_text

_PACKAGES = ("monai-volume-pipeline", "torch", "monai", "pytorch-ignite", "nibabel", "SimpleITK", "numpy", "scipy")


def environment() -> dict[str, Any]:
    """Versions and hardware of this process, without names of people, machines or folders."""
    return {
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class RecordRun:
    """Writes the run's versions, hardware, seed, precision, split and refused cases; its durations when it ends.

    Args:
        run_dir: of the run.
        seed: of the run.
        datasets: part -> :class:`pipeline.data.CaseDataset`: ``train`` and ``validate``, or ``validate`` alone.
    """

    def __init__(self, run_dir: str, seed: int, datasets: dict[str, Any]) -> None:
        self.run_dir, self.seed, self.datasets = Path(run_dir), seed, datasets
        self.started = time.time()

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        if "train" in self.datasets:
            engine.add_event_handler(Events.STARTED, self._write_split)
        engine.add_event_handler(Events.STARTED, self._write, "running")
        engine.add_event_handler(Events.COMPLETED, self._write, "completed")
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._interrupted)

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
        record = {
            "status": status,
            "started": datetime.fromtimestamp(self.started, timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 1),
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
        } | environment()
        write_text(self.run_dir / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
