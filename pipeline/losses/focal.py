"""Focal loss: cross-entropy that cares less about what is already right.

Lin, Goyal, Girshick, He & Dollar, Focal Loss for Dense Object Detection, ICCV 2017 (arXiv 1708.02002), section 3.2,
eq. 4, with the softmax probability of the target's class as p_t.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.errors import ConfigError
from pipeline.losses.class_loss import ClassLoss, check_normalization, normalized
from pipeline.losses.cross_entropy import cross_entropy_of, with_class_weights
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


def focal_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
    normalization: str = "weights",
) -> torch.Tensor:
    r"""Weighted sum of -(1 - p)^gamma log p over the voxels, divided by Z.

    .. math:: - \frac{1}{Z} \sum_i w_i (1 - p_i)^\gamma \log p_i

    p, w and Z as in :func:`pipeline.losses.cross_entropy_loss`, which it equals at gamma 0; the paper's alpha_t is
    ``class_weights``.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        gamma: 0 or above; the paper's best is 2.
        class_weights: one per class, (K,), 0 or above.
        ignore_label: id of voxels that count for nothing.
        normalization: ``"weights"``, ``"voxels"`` or ``"sum"``.

    Returns:
        A scalar, 0 or above.

    Raises:
        ConfigError: a negative gamma, an unknown normalization, shapes that do not fit together.

    >>> nine_to_one = torch.tensor([[[0.0], [2.1972246]]])  # p = 0.1, 0.9
    >>> [round(focal_loss(nine_to_one, torch.tensor([[[k]]])).item(), 6) for k in (1, 0)]
    [0.001054, 1.865094]
    """
    _check(gamma)
    sums = softmax_sums(logits, target, weight, ignore_label, ratios=False)
    return focal_of(sums, gamma, class_weights, normalization)


def focal_of(sums: SoftmaxSums, gamma: float, class_weights: torch.Tensor | None, normalization: str) -> torch.Tensor:
    """:func:`focal_loss` of sums that another loss shares."""
    if gamma == 0:
        return cross_entropy_of(sums, class_weights, normalization)
    # 1 - p without cancellation where p is nearly 1. Where it is 0, the slope of a power below 1 is infinite, and its
    # product with log p = 0 would be NaN; the clamp passes no gradient there.
    wrong = (-torch.expm1(sums.log_p)).clamp_min(torch.finfo(sums.log_p.dtype).tiny)
    return -normalized(wrong**gamma * sums.log_p, with_class_weights(sums, class_weights), sums.counted, normalization)


def _check(gamma: float) -> None:
    if not gamma >= 0:
        raise ConfigError(f"gamma={gamma}", expected="0 or above: below, the loss would care most about what is right")


class FocalLoss(ClassLoss):
    """:func:`focal_loss` as a module; ``parts`` holds its last value as ``focal``."""

    name = "focal"
    ratios = False

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        normalization: str = "weights",
    ) -> None:
        super().__init__(class_weights, ignore_label)
        _check(gamma)
        check_normalization(normalization)
        self.gamma, self.normalization = float(gamma), normalization

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return focal_of(sums, self.gamma, self.class_weights, self.normalization)
