"""When a training run is validated, and what share of its time that takes."""

from __future__ import annotations

import math
import time

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from pipeline.errors import ConfigError

_SHARE = 0.05  # of a run's time that validation may take, its closing one aside
_MOST = 0.1  # of the time since the one before that any of them may take
# So many iterations for each case that is validated keep to that where a case costs an iteration, which is about what
# it was for the stroke bundle; for small cases, such as hippocampi, it was a quarter.
_ITERATIONS_PER_CASE = 1 / _MOST - 1


def share_of_time(validator: Engine) -> float | None:
    """Of the time since the validation before, or since the training's start: what this one has taken up to now, 0 to
    1. None of an evaluation outside a training."""
    interval = getattr(validator.state, "trainer_interval_s", None)
    if interval is None:
        return None
    now = time.perf_counter()
    return (now - interval[1]) / (now - interval[0])


class Validation:
    """Runs a validator after some of the epochs, and once more at the end. Attach it to a trainer.

    Without an interval so many epochs lie between that validation takes about a tenth of the time; they are counted in
    iterations per case, not in seconds, so that the same run is validated at the same steps again.

    Under a time budget epochs are no measure: then it runs when training has gone on for long enough that validation
    stays below 5% of the time. The first, whose time is not known, comes after a tenth of the budget and as many
    iterations as without one, but not later than after half of it. The seconds of the closing validation are reserved
    (``engine.state.reserve_s``), so that the run ends on time with its last weights measured; one that the closing
    validation would follow too soon is left to that.

    Args:
        validator: an evaluator; its state gains ``trainer_iteration``, the step at which its figures belong.
        interval: epochs between validations, at least 1.
        budget_s: the run's time budget, where it has one.

    Raises:
        ConfigError: an interval that is none.
    """

    def __init__(self, validator: Evaluator, interval: int | None = None, budget_s: float | None = None) -> None:
        if interval is not None and (not isinstance(interval, int) or interval < 1):
            raise ConfigError(f"val_interval {interval!r}", expected="a whole number of epochs, at least 1, or null")
        self.validator, self.interval, self.budget_s = validator, interval, budget_s
        self._next_at_s = 0.1 * (budget_s or 0.0)
        self._last_iteration = -1
        self._first_iteration = 0
        self._last_ended_s = 0.0
        self._taken_s: float | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._begin)
        if self.budget_s is None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        else:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._when_due)
        engine.add_event_handler(Events.COMPLETED, self)

    def _begin(self, engine: Engine) -> None:
        self._last_ended_s, self._first_iteration = time.perf_counter(), engine.state.iteration

    def _enough_iterations(self) -> float:
        return _ITERATIONS_PER_CASE * self.validator.state.epoch_length

    def _after_epoch(self, engine: Engine) -> None:
        interval = self.interval or math.ceil(self._enough_iterations() / engine.state.epoch_length)
        if engine.state.epoch % interval == 0:
            self(engine)

    def _when_due(self, engine: Engine) -> None:
        state = engine.state
        if state.elapsed_s < self._next_at_s or state.progress >= 1:
            return
        assert self.budget_s is not None
        if self._taken_s is None:
            done = state.iteration - self._first_iteration
            due = done >= self._enough_iterations() or state.elapsed_s >= 0.5 * self.budget_s
        else:  # whether enough time to train is left between this one and the closing one
            left_s = self.budget_s - state.elapsed_s - 2 * self._taken_s
            due = left_s >= (1 / _MOST - 1) * self._taken_s
        if due:
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
