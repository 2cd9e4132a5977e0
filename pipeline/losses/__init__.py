"""Losses: `loss(logits (B, K, *S), target (B, 1, *S) class ids, weight=None (B, 1, *S)) -> scalar`, in 2D and 3D.

To add one: write `pipeline/losses/<name>.py`, a pure function and a thin module that keeps the detached terms of its
last call in `parts` (what TensorBoard shows); start from `softmax_sums` and `ClassLoss` where it is made of softmax
probabilities. Export both here and list the module once in `tests/contracts/test_losses.py`. `CompoundLoss` adds losses
up, `DeepSupervision` wraps any of them for networks that return a list of logits.
"""

from pipeline.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy_loss
from pipeline.losses.coded_dice import CodedDiceLoss, coded_dice_loss
from pipeline.losses.compound import CompoundLoss, DiceCrossEntropy
from pipeline.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from pipeline.losses.deep_supervision import DeepSupervision
from pipeline.losses.dice import DiceLoss, GeneralizedDiceLoss, dice_loss, generalized_dice_loss
from pipeline.losses.focal import FocalLoss, focal_loss
from pipeline.losses.iou import IoULoss, iou_loss
from pipeline.losses.ms_ssim import MSSSIMLoss, ms_ssim_loss
from pipeline.losses.tversky import TverskyLoss, tversky_loss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CodedDiceLoss",
    "CompoundLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceCrossEntropy",
    "DiceLoss",
    "FocalLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "MSSSIMLoss",
    "TverskyLoss",
    "binary_cross_entropy_loss",
    "coded_dice_loss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "generalized_dice_loss",
    "iou_loss",
    "ms_ssim_loss",
    "tversky_loss",
]
