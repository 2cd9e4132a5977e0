"""When a training run is validated."""

from __future__ import annotations

import time

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

_SHARE = 0.05  # of a run's time that validation may take, its closing one aside


class Validation:
    """Runs a validator every ``interval`` epochs, and once more at the end. Attach it to a trainer.

    Under a time budget epochs are no measure: then it runs when training has gone on for long enough that validation
    stays below 5% of the time (first after a tenth of the budget), and the seconds of the closing validation are
    reserved (``engine.state.reserve_s``), so that the run ends on time with its last weights measured.

    Args:
        validator: an evaluator; its state gains ``trainer_iteration``, the step at which its figures belong.
        interval: epochs between validations, at least 1.
        budget_s: the run's time budget, where it has one.
    """

    def __init__(self, validator: Evaluator, interval: int = 1, budget_s: float | None = None) -> None:
        self.validator, self.interval, self.budget_s = validator, interval, budget_s
        self._next_at_s = 0.1 * (budget_s or 0.0)
        self._last_iteration = -1

    def attach(self, engine: Engine) -> None:
        if self.budget_s is None:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)
        else:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._when_due)
        engine.add_event_handler(Events.COMPLETED, self)

    def _when_due(self, engine: Engine) -> None:
        if engine.state.elapsed_s >= self._next_at_s and engine.state.progress < 1:
            self(engine)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration in (0, self._last_iteration):  # nothing is trained, or nothing since the last one
            return
        self._last_iteration = engine.state.iteration
        start = time.perf_counter()
        if getattr(self.validator, "follows_trainer", False) and getattr(engine.state, "precision", None) is not None:
            self.validator.precision = engine.state.precision
        self.validator.state.trainer_iteration = engine.state.iteration
        self.validator.state.trainer_elapsed_s = getattr(engine.state, "elapsed_s", None)
        self.validator.run(max(engine.state.epoch, 1))
        taken = time.perf_counter() - start
        if self.budget_s is not None:
            if idist.get_world_size() > 1:  # all ranks have to come back here on the same iteration
                taken = float(idist.broadcast(torch.tensor(taken, dtype=torch.float64), src=0))
            engine.state.reserve_s = 1.1 * taken
            self._next_at_s = engine.state.elapsed_s + taken / _SHARE
            if engine.state.elapsed_s + 2.1 * taken >= self.budget_s:  # no time to train on and validate once more
                engine.terminate()
        restart = getattr(engine, "restart_clock", None)
        if restart is not None:
            restart()
