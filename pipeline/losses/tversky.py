"""Tversky loss: Dice with false positives and false negatives at prices of their own.

Salehi, Erdogmus & Gholipour, Tversky loss function for image segmentation using 3D fully convolutional deep networks,
MLMI 2017 (arXiv 1706.05721), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.errors import ConfigError
from pipeline.losses.class_loss import ClassLoss, mean_over_classes
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


def tversky_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    include_background: bool = False,
    batch_tversky: bool = False,
    smooth: float = 1e-5,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""One minus the soft Tversky index, averaged over classes (and over the samples of the batch).

    .. math:: L_k = 1 - \frac{TP_k + s}{TP_k + \alpha FP_k + \beta FN_k + s}, \qquad TP_k = \sum_i w_i p_{ik} g_{ik},
        \quad FP_k = \sum_i w_i p_{ik} (1 - g_{ik}), \quad FN_k = \sum_i w_i (1 - p_{ik}) g_{ik}

    over voxels i, with p the softmax probability, g 1 where the target is class k and w the voxel's weight. alpha =
    beta = 1/2 is Dice (with half the smooth), alpha = beta = 1 is IoU. beta above alpha makes a missed voxel dearer
    than a false one: for small lesions. The paper's best for multiple sclerosis are the defaults.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        alpha, beta: price of a false positive and of a false negative, 0 or above.
        include_background: count class 0 as well.
        batch_tversky: sum over all samples before the ratio, as one volume.
        smooth: s above, in voxels.
        class_weights: one per class, (K,), 0 or above, the background included; the mean over classes is
            weighted by them.
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ConfigError: a negative price; shapes that do not fit together.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(tversky_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 3/4 / (3/4 + 0.3 / 2 + 0.7 / 4)
    0.3023
    """
    _check(alpha, beta)
    sums = softmax_sums(logits, target, weight, ignore_label)
    return tversky_of(sums, alpha, beta, include_background, batch_tversky, smooth, class_weights)


def tversky_of(
    sums: SoftmaxSums,
    alpha: float,
    beta: float,
    include_background: bool,
    batch_tversky: bool,
    smooth: float,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`tversky_loss` of sums that another loss shares."""
    right = sums.overlap
    priced = right + alpha * (sums.predicted - right) + beta * (sums.reference - right)
    if batch_tversky:
        right, priced = right.sum(0, keepdim=True), priced.sum(0, keepdim=True)
    return mean_over_classes(1 - (right + smooth) / (priced + smooth), include_background, class_weights)


def _check(alpha: float, beta: float) -> None:
    if not (alpha >= 0 and beta >= 0):
        raise ConfigError(f"alpha={alpha}, beta={beta}", expected="prices of 0 or above")


class TverskyLoss(ClassLoss):
    """:func:`tversky_loss` as a module; ``parts`` holds its last value as ``tversky``."""

    name = "tversky"

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        include_background: bool = False,
        batch_tversky: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        _check(alpha, beta)
        self.alpha, self.beta = alpha, beta
        self.include_background, self.batch_tversky, self.smooth = include_background, batch_tversky, smooth

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return tversky_of(
            sums, self.alpha, self.beta, self.include_background, self.batch_tversky, self.smooth, self.class_weights
        )
