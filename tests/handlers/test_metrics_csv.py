"""A row per validation; nothing that appears late is lost."""

import csv

from ignite.engine import Engine, Events

from pipeline.handlers import MetricsCsv


def validate(path, interval=None, **metrics):
    engine = Engine(lambda engine, batch: None)
    engine.state.trainer_interval_s = interval
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.state.metrics.update(metrics))
    MetricsCsv(str(path)).attach(engine)
    engine.run([0], max_epochs=1)


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_added_and_late_measures_get_a_column(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    validate(path, dice=0.25)
    validate(path, dice=0.5, hausdorff_95_mm=3.0)
    validate(path, dice=0.75)
    assert [row["dice"] for row in rows(path)] == ["0.25", "0.5", "0.75"]
    assert [row["hausdorff_95_mm"] for row in rows(path)] == ["", "3", ""]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_in_a_training_the_share_of_the_time_that_measuring_took(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    monkeypatch.setattr("pipeline.handlers.validation.time.perf_counter", lambda: 40.0)
    validate(path, interval=(0.0, 30.0), dice=0.5)
    assert rows(path)[0]["validation_share"] == "0.250"
