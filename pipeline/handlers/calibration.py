"""Attaches Brier score and calibration error of the probabilities to an evaluator."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from monai.handlers import from_engine

from pipeline.handlers.case_scores import CaseScores
from pipeline.metrics import CalibrationMeasures, calibration_measures


class CalibrationScores(CaseScores):
    """Brier score and calibration errors of every case (`pipeline.metrics.calibration_measures`); the expected
    calibration error is the metric itself. Its tables are ``calibration.csv`` and ``calibration.json``.

    In a bundle, where the step back to the case's grid keeps the probabilities: ``validate: {postprocessing:
    {probabilities_key: probabilities}, further_metrics: {ece: {_target_: pipeline.handlers.CalibrationScores}}}``.

    Args:
        bins: see `pipeline.metrics.calibration_measures`.
        output_dir: see `CaseScores`.
        output_transform: gives (probabilities, labels) from the engine's output: lists of (K, H, W, D) or (K, H, W),
            and of label maps (1, H, W, D) or (1, H, W).
    """

    NAMES, KEY, FILE = ("brier", "ece", "maximum_calibration_error"), "ece", "calibration"

    def __init__(
        self,
        bins: int = 15,
        output_dir: str | PathLike[str] | None = None,
        output_transform: Callable[[Any], Any] = from_engine(["probabilities", "label"]),  # noqa: B008
    ) -> None:
        self.bins = bins
        super().__init__(output_dir, output_transform)

    def measure(self, predicted: torch.Tensor, label: torch.Tensor) -> CalibrationMeasures:
        return calibration_measures(predicted, label[0], self.bins)

    def table(self) -> str:
        """The means for a console, with their 95% intervals."""
        return self.table_of("cases", {"brier": "Brier score", "ece": "calibration error"})
