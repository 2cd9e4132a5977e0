"""``metrics.csv``: one row per validation, for people who plot with their own tools."""

from __future__ import annotations

import csv
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events


class MetricsCsv:
    """Appends the evaluator's measures to a CSV file; rows stay when a run is interrupted or resumed.

    Args:
        path: of the file; its folder is made. Columns are those of the first row.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        row = {
            "iteration": getattr(state, "trainer_iteration", ""),
            "epoch": state.epoch,
            "elapsed_s": f"{getattr(state, 'trainer_elapsed_s', None) or 0.0:.1f}",
        }
        row |= {name: f"{value:.6g}" for name, value in state.metrics.items() if isinstance(value, (int, float))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = list(row)
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                columns = next(csv.reader(file))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
