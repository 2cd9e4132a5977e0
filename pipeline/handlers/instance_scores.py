"""Attaches F1 and average precision of instances, such as nuclei, to an evaluator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from monai.handlers import from_engine
from scipy import ndimage

from pipeline.handlers.case_scores import CaseScores
from pipeline.metrics import instance_measures


@dataclass(frozen=True)
class _Figures:
    mean_f1: float
    mean_average_precision: float
    f1_50: float
    average_precision_50: float
    mean_matched_iou: float
    instances_prediction: int
    instances_reference: int


class InstanceScores(CaseScores):
    """F1 and average precision of the instances of every case (`pipeline.metrics.instance_measures`), as means over the
    IoU thresholds 0.5 to 0.95 and, with ``_50``, at 0.5; the mean average precision is the metric itself. Its tables
    are ``instances.csv`` and ``instances.json``.

    In a bundle: ``validate: {further_metrics: {instances: {_target_: pipeline.handlers.InstanceScores}}}``.

    Args:
        object_class: class id of what instances are made of: its components that touch by a face (by a side, in 2D) are
            instances; None where label maps hold ids of instances already.
        output_dir: see `CaseScores`.
        output_transform: gives (predictions, labels) from the engine's output, two lists of label maps (1, H, W, D) or
            (1, H, W).
    """

    NAMES, KEY, FILE = tuple(_Figures.__annotations__), "mean_average_precision", "instances"

    def __init__(
        self,
        object_class: int | None = 1,
        output_dir: str | PathLike[str] | None = None,
        output_transform: Callable[[Any], Any] = from_engine(["pred", "label"]),  # noqa: B008 - it has no state
    ) -> None:
        self.object_class = object_class
        super().__init__(output_dir, output_transform)

    def measure(self, predicted: torch.Tensor, label: torch.Tensor) -> _Figures:
        found = instance_measures(self._instances(predicted[0]), self._instances(label[0]))
        return _Figures(
            found.mean_f1,
            found.mean_average_precision,
            found.f1[0],
            found.average_precision[0],
            found.mean_matched_iou,
            found.instances_prediction,
            found.instances_reference,
        )

    def _instances(self, label_map: torch.Tensor) -> np.ndarray:
        ids = label_map.cpu().numpy()
        return ids if self.object_class is None else ndimage.label(ids == self.object_class)[0]

    def table(self) -> str:
        """The means for a console, with their 95% intervals."""
        return self.table_of("cases", {"f1_50": "F1 at IoU 0.5", "mean_average_precision": "AP at IoU 0.5 to 0.95"})
