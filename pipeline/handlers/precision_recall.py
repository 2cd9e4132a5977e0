"""Precision and recall at every threshold of a class's probability, in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.handlers.case_measures import case_id_of
from pipeline.io.atomic import printable
from pipeline.metrics import class_names

_THRESHOLDS = 127  # as many as TensorBoard shows


class PrecisionRecall:
    """A curve per class after every validation, over the voxels of all cases: ``precision_recall/anterior``.

    In a bundle, where the step back to the case's grid keeps the probabilities, which costs memory and time:
    ``validate: {postprocessing: {probabilities_key: probabilities}, handlers: {precision_recall: {_target_:
    pipeline.handlers.PrecisionRecall, writer: "@writer", classes: "@classes"}}}``.

    The evaluator's output has, per case, ``probabilities`` (K, H, W, D), class 0 the background, and ``label``
    (1, H, W, D); or without the D. Distributed: a case that a sampler repeated to fill up its ranks counts once.

    Args:
        writer: what `summary_writer` gave; None on all processes of a distributed run but the first.
        classes: id -> name.
    """

    def __init__(self, writer: SummaryWriter | None, classes: Mapping[int, str] | Mapping[str, str]) -> None:
        self.writer, self.classes = writer, class_names(classes)
        self._counts: dict[str, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: self._counts.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _count(self, engine: Engine) -> None:
        for case in engine.state.output:
            shares = np.asarray(case["probabilities"].detach().cpu(), dtype=np.float32)
            label = np.asarray(case["label"][0].cpu())
            counts = np.zeros((len(self.classes), 2, _THRESHOLDS), dtype=np.int64)
            for number, class_id in enumerate(self.classes):
                # The last threshold that a probability reaches.
                reached = (np.clip(shares[class_id], 0, 1) * (_THRESHOLDS - 1)).astype(np.int64)
                for own in (0, 1):
                    counts[number, own] = np.bincount(reached[(label == class_id) == own], minlength=_THRESHOLDS)
            self._counts[case_id_of(case["label"])] = counts

    def __call__(self, engine: Engine) -> None:
        gathered: dict[str, np.ndarray] = {}
        for of_rank in idist.all_gather(self._counts) if idist.get_world_size() > 1 else [self._counts]:
            gathered.update(of_rank)
        if self.writer is None or not gathered:
            return
        step = getattr(engine.state, "trainer_iteration", engine.state.epoch)
        totals = np.sum(list(gathered.values()), axis=0)
        for name, (others, own) in zip(self.classes.values(), totals, strict=True):
            fp, tp = (counts[::-1].cumsum()[::-1] for counts in (others, own))
            tn, fn = fp[0] - fp, tp[0] - tp
            precision, recall = tp / np.maximum(1, tp + fp), tp / np.maximum(1, tp + fn)
            curve = (tp, fp, tn, fn, precision, recall)
            self.writer.add_pr_curve_raw(f"precision_recall/{printable(name)}", *curve, step, _THRESHOLDS)
        self.writer.flush()
