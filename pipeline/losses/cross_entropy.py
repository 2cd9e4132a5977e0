"""Cross-entropy on class ids, with weights per class and per voxel."""

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


def cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""Weighted mean of -log p over the voxels.

    .. math:: - \frac{\sum_i w_i \log p_i}{\sum_i w_i}, \qquad w_i = \text{weight}_i \cdot \text{class\_weights}[t_i]

    p_i is the softmax probability of voxel i's target class t_i; an ignored voxel has weight 0. Dividing by the sum of
    weights (as torch does for class weights) keeps the scale of the loss whatever the weights are. Where all weights are 0
    the loss is 0.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        class_weights: one per class, (K,).
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar, 0 or above.

    Raises:
        ConfigError: shapes that do not fit together.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # p = 1/2, 1/2 in one voxel, 1/4, 3/4 in the next
    >>> round(cross_entropy_loss(logits, torch.tensor([[[0, 1]]])).item(), 4)  # (ln 2 + ln 4/3) / 2
    0.4904
    """
    return cross_entropy_of(log_probabilities(logits, target, weight, ignore_label), class_weights)


def cross_entropy_of(log_p: LogProbabilities, class_weights: torch.Tensor | None) -> torch.Tensor:
    """:func:`cross_entropy_loss` of log-probabilities that another loss shares."""
    check_class_weights(class_weights, log_p.of_classes.shape[1])
    weight = log_p.weight
    if class_weights is not None:
        of_voxel = class_weights.to(log_p.of_classes)[log_p.target]
        weight = of_voxel if weight is None else weight * of_voxel
    if weight is None:
        return -log_p.of_target.mean()
    total = weight.sum()
    return -(weight * log_p.of_target).sum() / torch.where(total > 0, total, torch.ones_like(total))


class CrossEntropyLoss(nn.Module):
    """:func:`cross_entropy_loss` as a module; ``parts`` holds its last value as ``cross_entropy``."""

    def __init__(self, class_weights: Sequence[float] | None = None, ignore_label: int | None = None) -> None:
        super().__init__()
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        loss = cross_entropy_loss(
            logits, target, weight, class_weights=self.class_weights, ignore_label=self.ignore_label
        )
        self.parts = {"cross_entropy": loss.detach()}
        return loss
