"""How the cases of a validation are distributed, in TensorBoard: a mean hides the ones that went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.io.atomic import printable


class CaseHistograms:
    """A histogram over cases per class and measure after every validation: ``cases/dice_anterior``.

    The evaluator's state has ``case_rows``, as `CaseMeasures` leaves them. Cases without a value (the distance of a
    missed class) are not in it; ``validate/missed`` counts them.

    Args:
        writer: what `summary_writer` gave; None on all processes of a distributed run but the first.
        measures: which, out of `pipeline.metrics.MEASURES`.
    """

    def __init__(self, writer: SummaryWriter | None, measures: Sequence[str] = ("dice",)) -> None:
        self.writer, self.measures = writer, tuple(measures)

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        assert self.writer is not None
        step = getattr(engine.state, "trainer_iteration", engine.state.epoch)
        values: dict[str, list[float]] = {}
        for row in engine.state.case_rows:
            for measure in self.measures:
                tag = f"cases/{measure}_{printable(row.result.class_name)}"
                values.setdefault(tag, []).append(row.value(measure))
        for tag, found in values.items():
            defined = [value for value in found if math.isfinite(value)]
            if defined:
                self.writer.add_histogram(tag, np.array(defined), step)
        self.writer.flush()
