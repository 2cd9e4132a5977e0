"""Losses: `loss(logits (B, K, *S), target (B, 1, *S) class ids, weight=None (B, 1, *S)) -> scalar`, in 2D and 3D.

To add one: write `pipeline/losses/<name>.py`, a pure function and a thin module that keeps the detached terms of its last
call in `parts` (what TensorBoard shows), start from `log_probabilities`, export both here and list the module once in
`tests/contracts/test_losses.py`. `DeepSupervision` wraps any of them for networks that return a list of logits.
"""

from pipeline.losses.compound import DiceCrossEntropy
from pipeline.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from pipeline.losses.deep_supervision import DeepSupervision
from pipeline.losses.dice import DiceLoss, dice_loss

__all__ = [
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceCrossEntropy",
    "DiceLoss",
    "cross_entropy_loss",
    "dice_loss",
]
