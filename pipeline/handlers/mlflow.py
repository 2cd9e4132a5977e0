"""A run in MLflow, beside TensorBoard, for groups that keep their runs there: MONAI's handler, fed by two engines.

MONAI's own ``MLFlowHandler`` is no name that a config may build: it sends any file that the config names to any address
that the config names. Here figures alone are sent, and whoever runs it says where to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from pipeline.errors import ConfigError

logger = logging.getLogger("pipeline.handlers")

ADDRESS = "MLFLOW_TRACKING_URI"


class MLflow:
    """Loss, learning rate and the measures of every validation, under TensorBoard's tags. Attach it to a trainer.

    They go to where the environment variable ``MLFLOW_TRACKING_URI`` says, or else into ``mlruns.db`` beside the run's
    folder. The run's name is its folder's, the experiment's that of the folder above. A run that was stopped and is
    resumed goes on in MLflow too; a training does not end because the place can't be reached any more.

    Args:
        validator: the evaluator whose measures are sent.
        run_dir: of the run.
        values: name -> value, the run's parameters in MLflow.
        every: iterations between two points of the loss.

    Raises:
        ConfigError: mlflow is not installed, or can't use the address.
    """

    def __init__(
        self, validator: Engine, run_dir: str, values: Mapping[str, Any] | None = None, every: int = 10
    ) -> None:
        if find_spec("mlflow") is None:
            raise ConfigError("the handler MLflow without MLflow", expected="its package", fix="pip install mlflow")
        self.validator, self.every = validator, every
        folder, self.address = Path(run_dir).resolve(), os.environ.get(ADDRESS)
        self.address = self.address or f"sqlite:///{(folder.parent / 'mlruns.db').as_posix()}"
        try:
            self.tracker = MLFlowHandler(
                tracking_uri=self.address,
                experiment_name=folder.parent.name,
                run_name=folder.name,
                experiment_param={name: str(value) for name, value in (values or {}).items()},
            )
        except Exception as error:  # of MLflow, MONAI or SQLAlchemy: whoever knew that address
            raise self._unusable(error) from error

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._begin)
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self._training)
            self.validator.add_event_handler(Events.EPOCH_COMPLETED, self._validation)

    def _begin(self, engine: Engine) -> None:
        try:
            self.tracker.start(engine)
        except Exception as error:
            raise self._unusable(error) from error
        engine.add_event_handler(Events.COMPLETED, self._end)  # only now: after the closing validation

    def _training(self, engine: Engine) -> None:
        rate = engine.optimizer.param_groups[0]["lr"]
        self._send({"train/loss": engine.state.output["loss"], "train/learning_rate": rate}, engine.state.iteration)

    def _validation(self, engine: Engine) -> None:
        measures = {f"validate/{name}": v for name, v in engine.state.metrics.items() if isinstance(v, (int, float))}
        self._send(measures, engine.state.trainer_iteration)

    def _send(self, figures: Mapping[str, Any], step: int) -> None:
        if self.tracker.cur_run is None:
            return
        try:
            for name, value in figures.items():
                self.tracker.client.log_metric(self.tracker.cur_run.info.run_id, name, float(value), step=step)
        except Exception as error:
            logger.warning("MLflow gets nothing more of this run, which goes on without it: %s", error)
            self.tracker.cur_run = None

    def _end(self, engine: Engine) -> None:
        self.tracker.close()

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"that MLflow can't use {self.address} ({error})",
            expected=f"a server or database that MLflow knows, in {ADDRESS}, or that variable unset",
        )
