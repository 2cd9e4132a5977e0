"""Soft Dice on probabilities and targets coded in [-1, 1], so that the background of a class counts like the class.

Plain soft Dice sees nothing of the voxels where neither target nor prediction is: an empty target leaves it 0 / 0. With
-1 for "not this class" both sides of the decision count, and an empty target is a target like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.errors import ConfigError
from pipeline.losses.class_loss import ClassLoss, mean_over_classes
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


def coded_dice_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    positive_weight: float = 0.8,
    negative_weight: float = 0.2,
    include_background: bool = False,
    batch_dice: bool = False,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""One minus squared soft Dice of the coded probability and the coded target.

    .. math:: L_k = 1 - \frac{2 \sum_i w_i x_{ik} y_{ik}}{\sum_i w_i (x_{ik}^2 + y_{ik}^2)}, \qquad
        x_{ik} = u_{ik} (2 p_{ik} - 1), \quad y_{ik} = u_{ik} (2 g_{ik} - 1)

    over voxels i, with p the softmax probability, g 1 where the target is class k, w the voxel's weight, and u the
    ``positive_weight`` where g is 1 and the ``negative_weight`` where it is 0. u is a factor of both codes, before the
    products: numerator and denominator hold its square, and with 0.8 and 0.2 a voxel of the class counts 16 times one
    outside of it, not 4 times.

    A right prediction is 0, the opposite of the target 2, an undecided one (p = 1/2) 1. Empty against empty is 0, empty
    against full 2; there is no smoothing, for nothing can be 0 / 0 unless all voxels are ignored (then it is 0).

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        positive_weight, negative_weight: u, above 0.
        include_background: count class 0 as well.
        batch_dice: sum over all samples before the ratio, as one volume.
        class_weights: one per class, (K,), 0 or above, the background included; the mean over classes is
            weighted by them.
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar from 0 to 2.

    Raises:
        ConfigError: a weight that is not above 0; shapes that do not fit together.

    >>> empty, sure = torch.zeros(1, 1, 4, 4), torch.tensor([200.0, -200.0])[None, :, None, None].expand(1, 2, 4, 4)
    >>> coded_dice_loss(sure, empty).item(), coded_dice_loss(-sure, empty).item()
    (0.0, 2.0)
    """
    _check(positive_weight, negative_weight)
    sums = softmax_sums(logits, target, weight, ignore_label, squares=True)
    return coded_dice_of(sums, positive_weight, negative_weight, include_background, batch_dice, class_weights)


def coded_dice_of(
    sums: SoftmaxSums,
    positive_weight: float,
    negative_weight: float,
    include_background: bool,
    batch_dice: bool,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`coded_dice_loss` of sums that another loss shares."""
    # Inside of the class (g = 1) and outside: sums of 1, p and p^2, each times w.
    inside, inside_p, inside_p2 = sums.reference, sums.overlap, sums.overlap_squared
    outside = sums.reference.sum(1, keepdim=True) - inside
    outside_p, outside_p2 = sums.predicted - inside_p, sums.predicted_squared - inside_p2
    positive, negative = positive_weight**2, negative_weight**2
    # (2p - 1)(2g - 1) and (2p - 1)^2 + 1, multiplied out.
    product = positive * (2 * inside_p - inside) + negative * (outside - 2 * outside_p)
    squares = positive * (4 * inside_p2 - 4 * inside_p + 2 * inside)
    squares = squares + negative * (4 * outside_p2 - 4 * outside_p + 2 * outside)
    if batch_dice:
        product, squares = product.sum(0, keepdim=True), squares.sum(0, keepdim=True)
    some = squares > 0
    loss = torch.where(some, 1 - 2 * product / torch.where(some, squares, 1), 0)
    return mean_over_classes(loss, include_background, class_weights)


def _check(positive_weight: float, negative_weight: float) -> None:
    if not (positive_weight > 0 and negative_weight > 0):
        raise ConfigError(
            f"positive_weight={positive_weight}, negative_weight={negative_weight}", expected="weights above 0"
        )


class CodedDiceLoss(ClassLoss):
    """:func:`coded_dice_loss` as a module; ``parts`` holds its last value as ``coded_dice``."""

    name = "coded_dice"
    squares = True

    def __init__(
        self,
        positive_weight: float = 0.8,
        negative_weight: float = 0.2,
        include_background: bool = False,
        batch_dice: bool = False,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        _check(positive_weight, negative_weight)
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.include_background, self.batch_dice = include_background, batch_dice

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return coded_dice_of(
            sums,
            self.positive_weight,
            self.negative_weight,
            self.include_background,
            self.batch_dice,
            self.class_weights,
        )
