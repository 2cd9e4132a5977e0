"""Cross-entropy on class ids, with weights per class and per voxel.

Weighted per voxel by Ronneberger, Fischer & Brox, U-Net, MICCAI 2015 (arXiv 1505.04597), section 3, eq. 1 and 2; the
weight map of eq. 2 is made by `pipeline.transforms.BorderWeightsd`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.losses.class_loss import ClassLoss, check_class_weights, check_normalization, normalized
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


def cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
    normalization: str = "weights",
) -> torch.Tensor:
    r"""Weighted sum of -log p over the voxels, divided by Z.

    .. math:: - \frac{1}{Z} \sum_i w_i \log p_i, \qquad w_i = \text{weight}_i \cdot \text{class\_weights}[t_i]

    p_i is the softmax probability of voxel i's target class t_i; an ignored voxel has weight 0. The sum is the energy
    of U-Net's eq. 1 (whose sign is lost in print). Z is a choice:

    - ``"weights"``: the sum of the weights, as torch does for class weights. The scale of the loss stays the same
      whatever the weights are, and a patch full of heavy borders counts no more than one without.
    - ``"voxels"``: the number of voxels that are not ignored. A border pulls as hard as its weight says, from batch to
      batch alike: the paper's energy but for a constant, and so what belongs to the border weight map.
    - ``"sum"``: 1, the paper's energy itself; it grows with the patch, and the learning rate has to know it.

    Where there is nothing to divide by, the loss is 0.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        class_weights: one per class, (K,), 0 or above.
        ignore_label: id of voxels that count for nothing.
        normalization: ``"weights"``, ``"voxels"`` or ``"sum"``.

    Returns:
        A scalar, 0 or above.

    Raises:
        ConfigError: shapes that do not fit together; an unknown normalization.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(cross_entropy_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # (ln 2 + ln 4/3) / 2
    0.4904
    """
    sums = softmax_sums(logits, target, weight, ignore_label, ratios=False)
    return cross_entropy_of(sums, class_weights, normalization)


def cross_entropy_of(sums: SoftmaxSums, class_weights: torch.Tensor | None, normalization: str) -> torch.Tensor:
    """:func:`cross_entropy_loss` of sums that another loss shares."""
    weight = with_class_weights(sums, class_weights)
    return -normalized(sums.log_p, weight, sums.counted, normalization)


def with_class_weights(sums: SoftmaxSums, class_weights: torch.Tensor | None) -> torch.Tensor | None:
    """w of :func:`cross_entropy_loss`, (B, N), or None where all are 1."""
    check_class_weights(class_weights, sums.overlap.shape[1])
    if class_weights is None:
        return sums.weight
    of_voxel = class_weights.to(sums.log_p)[sums.target.long()]
    return of_voxel if sums.weight is None else sums.weight * of_voxel


class CrossEntropyLoss(ClassLoss):
    """:func:`cross_entropy_loss` as a module; ``parts`` holds its last value as ``cross_entropy``."""

    name = "cross_entropy"
    ratios = False

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        normalization: str = "weights",
    ) -> None:
        super().__init__(class_weights, ignore_label)
        check_normalization(normalization)
        self.normalization = normalization

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return cross_entropy_of(sums, self.class_weights, self.normalization)
