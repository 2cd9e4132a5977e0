"""What a folder holds for a report: its record, its cases, and the curves of its training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.data.provenance import RECORD
from pipeline.errors import DataError
from pipeline.metrics import Row, read_cases

Curve = list[tuple[float, float]]
"""Points (iteration, value), in the order of the iterations."""

_MOST_POINTS = 200
_ON_X = ("iteration", "epoch", "elapsed_s")


@dataclass(frozen=True)
class RunResults:
    """A training, an evaluation, a prediction, a measurement, or label maps alone.

    Args:
        name: of the folder.
        record: ``run.json``; empty where there is none.
        rows: per case and class; empty where nothing was measured.
        curves: name -> points: the columns of ``metrics.csv``, and TensorBoard's ``train/...``.
        outcomes: rows of ``pairs.csv``: pairs that a measurement could not use are among them.
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    outcomes: Sequence[Mapping[str, str]] = ()

    @property
    def kind(self) -> str:
        return str(self.record.get("kind") or ("measure" if self.rows else "label maps"))

    def with_rows(self, rows: Sequence[Row]) -> RunResults:
        """The same, measured."""
        return replace(self, rows=tuple(rows))


def read_run(folder: str | Path) -> RunResults:
    """Reads what there is; of a training that still runs, what it has written so far.

    Raises:
        DataError: no folder, or a file in it that is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError("no such folder", file=root, expected="a run, an evaluation, predictions or a measurement")
    record = _json(root / RECORD) if (root / RECORD).is_file() else {}
    measured = (root / "cases.csv").is_file() or (root / "cases.json").is_file()
    return RunResults(
        root.resolve().name,
        record,
        tuple(read_cases(root)) if measured else (),
        {**_training_curves(root / "tensorboard"), **_validation_curves(root / "metrics.csv")},
        _table(root / "pairs.csv"),
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"a record that can't be read ({error})", file=file, expected="a run.json as a run writes it"
        ) from error
    if not isinstance(found, dict):
        raise DataError("a record of another form", file=file, expected="a run.json as a run writes it")
    return found


def _table(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _validation_curves(file: Path) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    try:
        for line in _table(file):
            x = float(line["iteration"] or line["epoch"])
            for name, value in line.items():
                if value and name not in _ON_X:
                    curves.setdefault(name, []).append((x, float(value)))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a table that can't be read ({error})", file=file, expected="a metrics.csv") from error
    return curves


def _training_curves(events: Path) -> dict[str, Curve]:
    """Scalars of TensorBoard below ``train/``, each at most 200 points: means of neighbours where there are more."""
    if not any(events.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    accumulator = EventAccumulator(str(events), size_guidance={SCALARS: 0})
    accumulator.Reload()
    curves = {}
    for tag in accumulator.Tags()["scalars"]:
        if tag.startswith("train/"):
            # A run that was resumed has some iterations twice: the later ones count.
            points = dict(sorted({event.step: event.value for event in accumulator.Scalars(tag)}.items()))
            curves[tag] = _thinned([(float(step), float(value)) for step, value in points.items()])
    return curves


def _thinned(points: Curve) -> Curve:
    """
    >>> len(_thinned([(float(i), 1.0) for i in range(1000)])), _thinned([(1.0, 2.0)])
    (200, [(1.0, 2.0)])
    """
    step = -(-len(points) // _MOST_POINTS)
    groups = [points[start : start + step] for start in range(0, len(points), step)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
