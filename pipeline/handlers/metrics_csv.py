"""``metrics.csv``: one row per validation, for people who plot with their own tools."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from pipeline.handlers.validation import share_of_time
from pipeline.io.atomic import write_text


class MetricsCsv:
    """Adds the evaluator's measures to a CSV file; rows stay when a run is interrupted or resumed.

    ``elapsed_s`` is the run's time at the training's step that was measured, ``validation_share`` the share of the time
    since the row before that measuring has taken.

    A measure that appears later than the first row (the distance of a class that was missed until then) gets a column
    of its own, empty in the rows above.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self)  # after all that a validation does

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        row = {
            "iteration": str(getattr(state, "trainer_iteration", "")),
            "epoch": str(state.epoch),
            "elapsed_s": f"{getattr(state, 'trainer_elapsed_s', None) or 0.0:.1f}",
        }
        share = share_of_time(engine)
        row |= {} if share is None else {"validation_share": f"{share:.3f}"}
        row |= {name: f"{value:.6g}" for name, value in state.metrics.items() if isinstance(value, (int, float))}
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        rows.append(row)
        columns = dict.fromkeys(name for line in rows for name in line)
        text = StringIO(newline="")
        writer = csv.DictWriter(text, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
