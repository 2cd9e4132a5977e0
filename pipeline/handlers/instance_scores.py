"""Attaches F1 and average precision of instances, such as nuclei, to an evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from monai.utils import convert_to_dst_type
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

    Instances are those that a case has in its engine's output, ``pred_instances`` and ``label_instances`` (see
    `pipeline.inference.Restored` and `pipeline.transforms.LoadImageStackd`); where one of them is missing, the
    components of a class in ``pred`` or ``label``.

    Args:
        object_class: class id of what instances are made of, where they are not given: its components that touch by a
            face (by a side, in 2D); None where ``pred`` and ``label`` hold ids of instances.
        output_dir: see `CaseScores`.
    """

    NAMES, KEY, FILE = tuple(_Figures.__annotations__), "mean_average_precision", "instances"

    def __init__(self, object_class: int | None = 1, output_dir: str | PathLike[str] | None = None) -> None:
        self.object_class = object_class
        super().__init__(output_dir, self._of_cases)

    def measure(self, predicted: torch.Tensor, label: torch.Tensor) -> _Figures:
        found = instance_measures(predicted[0], label[0])
        return _Figures(
            found.mean_f1,
            found.mean_average_precision,
            found.f1[0],
            found.average_precision[0],
            found.mean_matched_iou,
            found.instances_prediction,
            found.instances_reference,
        )

    def _of_cases(self, output: Sequence[Mapping[str, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [self._instances(case, "pred") for case in output], [self._instances(case, "label") for case in output]

    def _instances(self, case: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
        given = case.get(f"{key}_instances")
        if given is not None or self.object_class is None:
            return case[key] if given is None else given
        components, _ = ndimage.label(case[key][0].cpu().numpy() == self.object_class)
        return convert_to_dst_type(components[None], case[key], dtype=np.int32)[0]

    def table(self) -> str:
        """The means for a console, with their 95% intervals."""
        return self.table_of("cases", {"f1_50": "F1 at IoU 0.5", "mean_average_precision": "AP at IoU 0.5 to 0.95"})
