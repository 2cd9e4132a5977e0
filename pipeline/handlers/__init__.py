"""Handlers: one concern each, attached to an engine from a config.

To add one: a file of at most 80 lines with a class whose ``attach(engine)`` registers it, its name below, a test in
``tests/handlers`` that runs a real engine. What belongs to the first process of a distributed run alone says so in
``attach``.
"""

from pipeline.handlers.calibration import CalibrationScores
from pipeline.handlers.case_histograms import CaseHistograms
from pipeline.handlers.case_measures import CaseMeasures
from pipeline.handlers.checkpoints import BestWeights, Resumable
from pipeline.handlers.console import CaseProgress, EpochProgress, ValidationLine
from pipeline.handlers.hyper_parameters import HyperParameters
from pipeline.handlers.instance_scores import InstanceScores
from pipeline.handlers.membrane_measures import MembraneMeasures
from pipeline.handlers.metrics_csv import MetricsCsv
from pipeline.handlers.mlflow import MLflow
from pipeline.handlers.overlay import OverlayImages
from pipeline.handlers.panel import case_panel, overlay_rgb, pick_slices
from pipeline.handlers.precision_recall import PrecisionRecall
from pipeline.handlers.record_run import RecordRun
from pipeline.handlers.tensorboard import TrainingScalars, ValidationScalars, summary_writer
from pipeline.handlers.validation import Validation

__all__ = [
    "BestWeights",
    "CalibrationScores",
    "CaseHistograms",
    "CaseMeasures",
    "CaseProgress",
    "EpochProgress",
    "HyperParameters",
    "InstanceScores",
    "MLflow",
    "MembraneMeasures",
    "MetricsCsv",
    "OverlayImages",
    "PrecisionRecall",
    "RecordRun",
    "Resumable",
    "TrainingScalars",
    "Validation",
    "ValidationLine",
    "ValidationScalars",
    "case_panel",
    "overlay_rgb",
    "pick_slices",
    "summary_writer",
]
