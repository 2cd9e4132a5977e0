"""How long a training lasts and how its learning rate falls: over epochs, or over a budget of wall-clock time.

Both are one thing, a progress from 0 to 1, and the learning rate is a function of that progress. So a run with a budget
ends on time on any machine, with the learning rate at its end as well.
"""

from __future__ import annotations

import math
import time
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from pipeline.errors import ConfigError

_NO_LIMIT = 1_000_000_000  # epochs of a run that a budget ends


class Schedule:
    """Sets the learning rate of every iteration and ends a run whose time is up. Attach it to a trainer.

    Args:
        optimizer: its parameter groups' initial learning rates are the peak.
        decay: ``cosine`` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, one period) or ``polynomial``
            ((1 - progress) ** 0.9, Chen et al. 2018, arXiv 1606.00915, section 3).
        warmup_share: share of the run over which the rate rises linearly from zero, 0 to 0.5.
        floor: share of the peak below which the rate does not fall; ``None`` is 0.25 with ``ema_decay``, 0.01 without.
            An average over steps that still go far lies flatter, and generalises better, than where a vanishing rate
            comes to rest (Izmailov et al. 2018, arXiv 1803.05407, sections 3.4 and 4).
        ema_decay: of `WeightAverage`, where its weights are the ones that are kept.
        budget_s: seconds of wall-clock time, the closing validation included; ``None`` counts the trainer's epochs.
        started_at: ``time.time()`` from which the budget counts; ``None`` is now.

    ``engine.state`` gains ``progress`` (0 to 1), ``elapsed_s``, ``prepared_s``, which is the latter at the first step,
    and ``steps_before``, the iterations before a resume. Whoever spends time that belongs to the end of the run
    (validation) writes its seconds to ``engine.state.reserve_s``: training stops that much earlier.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        decay: str = "cosine",
        warmup_share: float = 0.02,
        floor: float | None = None,
        budget_s: float | None = None,
        started_at: float | None = None,
        ema_decay: float | None = None,
    ) -> None:
        if decay not in ("cosine", "polynomial"):
            raise ConfigError(f"decay {decay!r}", expected="cosine or polynomial")
        if budget_s is not None and budget_s <= 0:
            raise ConfigError(f"a budget of {budget_s} s", expected="more than 0 seconds")
        if floor is None:
            floor = 0.01 if ema_decay is None else 0.25
        if not 0 <= floor <= 1:
            raise ConfigError(f"schedule#floor {floor}", expected="0 to 1, or null")
        self.optimizer, self.decay, self.warmup_share, self.floor = optimizer, decay, warmup_share, floor
        self.budget_s = budget_s
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._spent_before_s = 0.0
        self._started_at = time.time() if started_at is None else started_at

    def factor(self, progress: float) -> float:
        """Learning rate at ``progress`` (0 to 1) as a share of the peak."""
        if progress < self.warmup_share:
            return max(self.floor, progress / self.warmup_share)
        rest = min(1.0, (progress - self.warmup_share) / (1 - self.warmup_share))
        falling = 0.5 * (1 + math.cos(math.pi * rest)) if self.decay == "cosine" else (1 - rest) ** 0.9
        return max(self.floor, falling)

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on this run, those before a resume included."""
        return self._spent_before_s + time.time() - self._started_at

    def attach(self, engine: Engine) -> None:
        if self.budget_s is not None:
            engine.state.max_epochs = _NO_LIMIT
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rate)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)

    def _begin(self, engine: Engine) -> None:
        self._advance(engine)
        engine.state.prepared_s, engine.state.steps_before = engine.state.elapsed_s, engine.state.iteration

    def _advance(self, engine: Engine) -> None:
        """Note how far the run has come, and end it where that is all the way."""
        state, elapsed_s = engine.state, self.elapsed_s
        if self.budget_s is None:
            state.progress = min(1.0, state.iteration / (state.max_epochs * state.epoch_length))
        else:
            if idist.get_world_size() > 1:  # one clock for all ranks: they must validate and end on the same iteration
                elapsed_s = float(idist.broadcast(torch.tensor(elapsed_s, dtype=torch.float64), src=0))
            state.progress = min(1.0, elapsed_s / max(self.budget_s - getattr(state, "reserve_s", 0.0), 1e-3))
            if state.progress >= 1:
                engine.terminate()
        state.elapsed_s = elapsed_s

    def _set_rate(self, engine: Engine) -> None:
        factor = self.factor(engine.state.progress)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed_s": self.elapsed_s}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._spent_before_s = float(state["elapsed_s"])
