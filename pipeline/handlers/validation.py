"""When a training run is validated, and what share of its time that takes."""

from __future__ import annotations

import time

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

_SHARE = 0.05  # of a run's time that validation may take, its closing one aside
_MOST = 0.1  # of the time since the one before that any of them may take


def share_of_time(validator: Engine) -> float | None:
    """Of the time since the validation before, or since the training's start: what this one has taken up to now, 0 to
    1. None of an evaluation outside a training."""
    interval = getattr(validator.state, "trainer_interval_s", None)
    if interval is None:
        return None
    now = time.perf_counter()
    return (now - interval[1]) / (now - interval[0])


class Validation:
    """Runs a validator every ``interval`` epochs, and once more at the end. Attach it to a trainer.

    Under a time budget epochs are no measure: then it runs when training has gone on for long enough that validation
    stays below 5% of the time (first after a tenth of the budget), and the seconds of the closing validation are
    reserved (``engine.state.reserve_s``), so that the run ends on time with its last weights measured. One that the
    closing validation would follow too soon is left to that.

    Args:
        validator: an evaluator; its state gains ``trainer_iteration``, the step at which its figures belong.
        interval: epochs between validations, at least 1.
        budget_s: the run's time budget, where it has one.
    """

    def __init__(self, validator: Evaluator, interval: int = 1, budget_s: float | None = None) -> None:
        self.validator, self.interval, self.budget_s = validator, interval, budget_s
        self._next_at_s = 0.1 * (budget_s or 0.0)
        self._last_iteration = -1
        self._last_ended_s = 0.0
        self._taken_s = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._begin)
        if self.budget_s is None:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)
        else:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._when_due)
        engine.add_event_handler(Events.COMPLETED, self)

    def _begin(self, engine: Engine) -> None:
        self._last_ended_s = time.perf_counter()

    def _when_due(self, engine: Engine) -> None:
        assert self.budget_s is not None
        left_s = self.budget_s - engine.state.elapsed_s - 2 * self._taken_s  # to train in, after this one
        closing_fits = left_s >= (1 / _MOST - 1) * self._taken_s
        if engine.state.elapsed_s >= self._next_at_s and engine.state.progress < 1 and closing_fits:
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
        self.validator.state.trainer_interval_s = (self._last_ended_s, start)
        self.validator.run(max(engine.state.epoch, 1))
        self._last_ended_s = time.perf_counter()
        taken = self._last_ended_s - start
        if self.budget_s is not None:
            if idist.get_world_size() > 1:  # all ranks have to come back here on the same iteration
                taken = float(idist.broadcast(torch.tensor(taken, dtype=torch.float64), src=0))
            self._taken_s = taken
            engine.state.reserve_s = 1.1 * taken
            self._next_at_s = engine.state.elapsed_s + taken / _SHARE
            if engine.state.elapsed_s + 2.1 * taken >= self.budget_s:  # no time to train on and validate once more
                engine.terminate()
        restart = getattr(engine, "restart_clock", None)
        if restart is not None:
            restart()
