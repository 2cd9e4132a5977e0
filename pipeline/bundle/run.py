"""Running a bundle: `train`, `evaluate`, `predict`.

A run's folder is itself a bundle: its ``configs/`` hold the resolved configs that it ran with, its ``models/`` the
weights. So ``pipeline predict RUN ...`` works, and so does plain MONAI on ``RUN/configs/train.json``.
"""

from pipeline.bundle.evaluation import evaluate
from pipeline.bundle.prediction import predict
from pipeline.bundle.run_summary import RunSummary
from pipeline.bundle.training import train

__all__ = ["RunSummary", "evaluate", "predict", "train"]
