"""Soft Dice loss on class ids.

Milletari et al., V-Net, 3DV 2016 (arXiv 1606.04797), with the plain sum of probabilities in the denominator (Drozdzal et
al., 2016, arXiv 1608.04117).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.losses.log_probabilities import (
    LogProbabilities,
    check_class_weights,
    class_weight_tensor,
    log_probabilities,
)


def dice_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    include_background: bool = False,
    batch_dice: bool = False,
    smooth: float = 1e-5,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""One minus soft Dice, averaged over classes (and over the samples of the batch).

    .. math:: L_k = 1 - \frac{2 \sum_i w_i p_{ik} g_{ik} + s}{\sum_i w_i p_{ik} + \sum_i w_i g_{ik} + s}

    over voxels i, with p the softmax probability, g 1 where the target is class k and w the voxel's weight. ``smooth`` s
    decides what an absent class costs: with s far below one voxel it costs nearly 1 unless the network is sure of its
    absence everywhere, with a larger s a few false voxels cost little.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        include_background: count class 0 as well.
        batch_dice: sum over all samples before the ratio, as one volume. Steadier where a class is absent from many patches.
        smooth: s above, in voxels.
        class_weights: one per class, (K,), the background included; the mean over classes is weighted by them.
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ConfigError: shapes that do not fit together.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(dice_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 2 * 3/4 / (5/4 + 1)
    0.3333
    """
    log_p = log_probabilities(logits, target, weight, ignore_label)
    return dice_of(log_p, include_background, batch_dice, smooth, class_weights)


def dice_of(
    log_p: LogProbabilities,
    include_background: bool,
    batch_dice: bool,
    smooth: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`dice_loss` of log-probabilities that another loss shares."""
    classes = log_p.of_classes.shape[1]
    check_class_weights(class_weights, classes)
    first = 0 if include_background else 1

    # p g needs p of the target's class alone: no one-hot target and no product over all classes.
    of_target, ones = log_p.of_target.exp(), None
    predicted = log_p.of_classes[:, first:].exp()
    if log_p.weight is not None:
        of_target, ones = of_target * log_p.weight, log_p.weight
        predicted = predicted * log_p.weight[:, None]
    masks = [log_p.target == k for k in range(first, classes)]
    overlap = torch.stack([(of_target * mask).sum(1) for mask in masks], dim=1)  # (B, classes)
    reference = torch.stack([mask.sum(1) if ones is None else (ones * mask).sum(1) for mask in masks], dim=1)
    total = predicted.sum(2) + reference
    if batch_dice:
        overlap, total = overlap.sum(0, keepdim=True), total.sum(0, keepdim=True)
    loss = (1 - (2 * overlap + smooth) / (total + smooth)).mean(0)
    if class_weights is None:
        return loss.mean()
    chosen = class_weights[first:].to(loss)
    return (loss * chosen).sum() / chosen.sum()


class DiceLoss(nn.Module):
    """:func:`dice_loss` as a module; ``parts`` holds its last value as ``dice``."""

    def __init__(
        self,
        include_background: bool = False,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        self.include_background, self.batch_dice, self.smooth = include_background, batch_dice, smooth
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        loss = dice_loss(
            logits,
            target,
            weight,
            include_background=self.include_background,
            batch_dice=self.batch_dice,
            smooth=self.smooth,
            class_weights=self.class_weights,
            ignore_label=self.ignore_label,
        )
        self.parts = {"dice": loss.detach()}
        return loss
