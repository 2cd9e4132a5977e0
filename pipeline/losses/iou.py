"""Soft IoU (Jaccard) loss on class ids.

Rahman & Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation, ISVC 2016; per
class and averaged, as one of three terms in UNet 3+ (Huang et al., 2020, arXiv 2004.08790, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.losses.class_loss import ClassLoss, mean_over_classes
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


def iou_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    include_background: bool = False,
    batch_iou: bool = False,
    smooth: float = 1e-5,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""One minus soft IoU, averaged over classes (and over the samples of the batch).

    .. math:: L_k = 1 - \frac{\sum_i w_i p_{ik} g_{ik} + s}{\sum_i w_i (p_{ik} + g_{ik} - p_{ik} g_{ik}) + s}

    over voxels i, with p the softmax probability, g 1 where the target is class k and w the voxel's weight.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        include_background: count class 0 as well.
        batch_iou: sum over all samples before the ratio, as one volume.
        smooth: s above, in voxels; what an absent class costs, as in :func:`pipeline.losses.dice_loss`.
        class_weights: one per class, (K,), 0 or above, the background included; the mean over classes is
            weighted by them.
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ConfigError: shapes that do not fit together; class weights below 0, or 0 for all classes that count.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(iou_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 3/4 / (5/4 + 1 - 3/4)
    0.5
    """
    sums = softmax_sums(logits, target, weight, ignore_label)
    return iou_of(sums, include_background, batch_iou, smooth, class_weights)


def iou_of(
    sums: SoftmaxSums, include_background: bool, batch_iou: bool, smooth: float, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """:func:`iou_loss` of sums that another loss shares."""
    overlap, union = sums.overlap, sums.predicted + sums.reference - sums.overlap
    if batch_iou:
        overlap, union = overlap.sum(0, keepdim=True), union.sum(0, keepdim=True)
    return mean_over_classes(1 - (overlap + smooth) / (union + smooth), include_background, class_weights)


class IoULoss(ClassLoss):
    """:func:`iou_loss` as a module; ``parts`` holds its last value as ``iou``."""

    name = "iou"

    def __init__(
        self,
        include_background: bool = False,
        batch_iou: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        self.include_background, self.batch_iou, self.smooth = include_background, batch_iou, smooth

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return iou_of(sums, self.include_background, self.batch_iou, self.smooth, self.class_weights)
