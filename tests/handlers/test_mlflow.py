"""What MLflow is given of a training, read back by MLflow's own client where it is installed."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from pipeline.bundle.audit import target_problem
from pipeline.errors import ConfigError
from pipeline.handlers import MLflow, Validation

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


def training(run_dir, measures, iterations=4, **arguments) -> Engine:
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(1.0 / batch)})
    engine.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    validator = Engine(lambda engine, batch: None)
    validator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.state.metrics.update(measures))
    validator.run, run = lambda epoch: run([0], max_epochs=epoch), validator.run
    MLflow(validator, str(run_dir), every=2, **arguments).attach(engine)
    Validation(validator, interval=iterations).attach(engine)
    engine.run(range(1, iterations + 1))
    return engine


def test_a_config_may_build_it_and_not_monais_own():
    assert target_problem("pipeline.handlers.MLflow") is None
    assert target_problem("monai.handlers.MLFlowHandler") is not None


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.handlers.mlflow.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"without MLflow.*pip install mlflow"):
        MLflow(SimpleNamespace(), str(tmp_path))


class TestInstalled:
    @pytest.fixture(autouse=True)
    def client(self, monkeypatch, tmp_path):
        mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        self.runs = tmp_path / "my runs" / "organ_mri"
        self.client = lambda: mlflow.MlflowClient(f"sqlite:///{self.runs / 'mlruns.db'}")

    def run(self):
        experiment = self.client().get_experiment_by_name("organ_mri")
        [run] = self.client().search_runs([experiment.experiment_id])
        return run

    def points(self, name):
        return [(p.step, p.value) for p in self.client().get_metric_history(self.run().info.run_id, name)]

    def test_figures_stand_at_the_trainings_iterations(self):
        training(self.runs / "first", {"dice": 0.75, "name": "no figure"}, values={"patch_size": [8, 8], "fold": None})
        run = self.run()
        assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
        assert run.data.params["patch_size"] == "[8, 8]"
        assert self.points("train/loss") == [(2, 0.5), (4, 0.25)]
        assert self.points("train/learning_rate") == [(2, 0.25), (4, 0.25)]
        assert self.points("validate/dice") == [(4, 0.75)]
        assert set(run.data.metrics) == {"train/loss", "train/learning_rate", "validate/dice"}

    def test_a_run_that_was_stopped_goes_on(self):
        class Stop(Exception):
            pass

        def stop(engine):
            raise Stop

        engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.5)})
        engine.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
        MLflow(Engine(lambda engine, batch: None), str(self.runs / "first"), every=1).attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), stop)
        with pytest.raises(Stop):
            engine.run(range(5))
        assert self.run().info.status == "RUNNING"
        training(self.runs / "first", {"dice": 0.5})
        assert self.run().info.status == "FINISHED"
        assert len(self.points("train/loss")) == 3 + 2

    def test_an_address_of_no_use_is_refused_before_the_training(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://here")
        with pytest.raises(ConfigError, match="nonsense://here"):
            training(self.runs / "first", {})

    def test_a_place_that_is_lost_does_not_end_the_training(self, monkeypatch, caplog):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        def lost(*arguments, **options):
            raise MlflowException("the server is gone")

        monkeypatch.setattr(MlflowClient, "log_metric", lost)
        with caplog.at_level(logging.WARNING, "pipeline.handlers"):
            assert training(self.runs / "first", {"dice": 0.5}, iterations=8).state.iteration == 8
        assert caplog.text.count("nothing more of this run, which goes on without it: the server is gone") == 1
