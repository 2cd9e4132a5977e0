"""Attaches the ISBI 2012 challenge's scores of membranes to an evaluator."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from monai.handlers import from_engine

from pipeline.errors import DataError
from pipeline.handlers.case_scores import CaseScores
from pipeline.metrics import MEMBRANE_SCORES, MembraneScores, membrane_scores


class MembraneMeasures(CaseScores):
    """Pixel error, V^Rand and V^Info of every section (`pipeline.metrics.membrane_scores`); V^Rand is the metric
    itself. Its tables are ``membranes.csv`` and ``membranes.json``.

    In a bundle: ``validate: {further_metrics: {v_rand: {_target_: pipeline.handlers.MembraneMeasures}}}``.

    Args:
        cell: class id of what is inside the membranes.
        output_dir: see `CaseScores`.
        output_transform: gives (predictions, labels) from the engine's output, two lists of label maps (1, H, W).
    """

    NAMES, KEY, FILE = MEMBRANE_SCORES, "v_rand", "membranes"

    def __init__(
        self,
        cell: int = 1,
        output_dir: str | PathLike[str] | None = None,
        output_transform: Callable[[Any], Any] = from_engine(["pred", "label"]),  # noqa: B008 - it has no state
    ) -> None:
        self.cell = cell
        super().__init__(output_dir, output_transform)

    def measure(self, predicted: torch.Tensor, label: torch.Tensor) -> MembraneScores:
        for label_map in (predicted, label):
            if label_map.ndim != 3:
                raise DataError(f"a label map of shape {tuple(label_map.shape)}", expected="(1, H, W): sections")
        return membrane_scores(predicted[0], label[0], self.cell)

    def table(self) -> str:
        """The means for a console, with their 95% intervals."""
        return self.table_of("sections", {"pixel_error": "pixel error", "v_rand": "V^Rand", "v_info": "V^Info"})
