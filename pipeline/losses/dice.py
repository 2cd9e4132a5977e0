"""Soft Dice losses on class ids: plain, squared, generalised.

Plain: Drozdzal et al., 2016 (arXiv 1608.04117), the plain sum of probabilities in the denominator. Squared: Milletari,
Navab & Ahmadi, V-Net, 3DV 2016 (arXiv 1606.04797), section 3, with the squares. Generalised: Sudre et al., 2017
(arXiv 1707.03237), section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.losses.class_loss import ClassLoss, check_class_weights, mean_over_classes
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


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
    squared: bool = False,
) -> torch.Tensor:
    r"""One minus soft Dice, averaged over classes (and over the samples of the batch).

    .. math:: L_k = 1 - \frac{2 \sum_i w_i p_{ik} g_{ik} + s}{\sum_i w_i p_{ik} + \sum_i w_i g_{ik} + s}

    over voxels i, with p the softmax probability, g 1 where the target is class k and w the voxel's weight. ``smooth``
    s decides what an absent class costs: with s far below one voxel it costs nearly 1 unless the network is sure of its
    absence everywhere, with a larger s a few false voxels cost little.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        include_background: count class 0 as well.
        batch_dice: sum over all samples before the ratio, as one volume: steadier where a class is absent from
            many patches.
        smooth: s above, in voxels.
        class_weights: one per class, (K,), 0 or above, the background included; the mean over classes is
            weighted by them.
        ignore_label: id of voxels that count for nothing.
        squared: p squared in the denominator, as V-Net has it: its gradient pulls less at voxels that are nearly right.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ConfigError: shapes that do not fit together; class weights below 0, or 0 for all classes that count.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(dice_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 2 * 3/4 / (5/4 + 1)
    0.3333
    >>> round(dice_loss(logits, torch.tensor([[[0, 1]]]), squared=True).item(), 4)  # 1 - 2 * 3/4 / (1/4 + 9/16 + 1)
    0.1724
    """
    sums = softmax_sums(logits, target, weight, ignore_label, squares=squared)
    return dice_of(sums, include_background, batch_dice, smooth, class_weights, squared)


def dice_of(
    sums: SoftmaxSums,
    include_background: bool,
    batch_dice: bool,
    smooth: float,
    class_weights: torch.Tensor | None,
    squared: bool = False,
) -> torch.Tensor:
    """:func:`dice_loss` of sums that another loss shares."""
    overlap, total = sums.overlap, (sums.predicted_squared if squared else sums.predicted) + sums.reference
    if batch_dice:
        overlap, total = overlap.sum(0, keepdim=True), total.sum(0, keepdim=True)
    return mean_over_classes(1 - (2 * overlap + smooth) / (total + smooth), include_background, class_weights)


def generalized_dice_loss(
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
    r"""One minus one soft Dice of all classes together, each weighted by the inverse of its squared volume.

    .. math:: L = 1 - \frac{2 \sum_k v_k \sum_i w_i p_{ik} g_{ik} + s}{\sum_k v_k \sum_i w_i (p_{ik} + g_{ik}) + s},
        \qquad v_k \propto \frac{c_k}{(\sum_i w_i g_{ik})^2}, \quad \max_k v_k = 1

    Symbols as in :func:`dice_loss`; c is ``class_weights``. A class that is absent has no inverse volume: it gets that
    of the smallest class present, and where all are absent they get the same. The paper needs no scale for v, having no
    s; with a largest v of 1, s is in voxels (of the class that counts most) however large the objects are.

    Args, Returns, Raises: as :func:`dice_loss`.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(generalized_dice_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # one class: its Dice
    0.3333
    """
    sums = softmax_sums(logits, target, weight, ignore_label)
    return generalized_dice_of(sums, include_background, batch_dice, smooth, class_weights)


def generalized_dice_of(
    sums: SoftmaxSums, include_background: bool, batch_dice: bool, smooth: float, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """:func:`generalized_dice_loss` of sums that another loss shares."""
    first = 0 if include_background else 1
    overlap, reference = sums.overlap[:, first:], sums.reference[:, first:]
    total = sums.predicted[:, first:] + reference
    if batch_dice:
        overlap, total, reference = (x.sum(0, keepdim=True) for x in (overlap, total, reference))
    present = reference > 0
    smallest = torch.where(present, reference, torch.inf).amin(1, keepdim=True)
    inverse = torch.where(present, (smallest / torch.where(present, reference, 1)) ** 2, 1)
    if class_weights is not None:
        check_class_weights(class_weights, sums.reference.shape[1], include_background)
        inverse = inverse * class_weights[first:].to(inverse)
        inverse = inverse / inverse.amax(1, keepdim=True)
    ratio = (2 * (inverse * overlap).sum(1) + smooth) / ((inverse * total).sum(1) + smooth)
    return (1 - ratio).mean()


class DiceLoss(ClassLoss):
    """:func:`dice_loss` as a module; ``parts`` holds its last value as ``dice``."""

    name = "dice"

    def __init__(
        self,
        include_background: bool = False,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        squared: bool = False,
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        self.include_background, self.batch_dice, self.smooth = include_background, batch_dice, smooth
        self.squares = squared

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return dice_of(
            sums, self.include_background, self.batch_dice, self.smooth, self.class_weights, squared=self.squares
        )


class GeneralizedDiceLoss(ClassLoss):
    """:func:`generalized_dice_loss` as a module; ``parts`` holds its last value as ``generalized_dice``."""

    name = "generalized_dice"

    def __init__(
        self,
        include_background: bool = False,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        self.include_background, self.batch_dice, self.smooth = include_background, batch_dice, smooth

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return generalized_dice_of(sums, self.include_background, self.batch_dice, self.smooth, self.class_weights)
