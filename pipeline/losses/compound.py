"""Weighted sums of losses that share one pass over the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.losses.cross_entropy import cross_entropy_of
from pipeline.losses.dice import dice_of
from pipeline.losses.log_probabilities import class_weight_tensor, log_probabilities


class DiceCrossEntropy(nn.Module):
    """``dice_weight`` x soft Dice loss + ``cross_entropy_weight`` x cross-entropy, from one log-softmax.

    Args:
        dice_weight: factor of :func:`pipeline.losses.dice_loss`.
        cross_entropy_weight: factor of :func:`pipeline.losses.cross_entropy_loss`.
        include_background: whether Dice counts class 0; cross-entropy always does.
        batch_dice: Dice over the batch as one volume.
        smooth: Dice's, in voxels.
        class_weights: one per class, the background included, for both.
        ignore_label: id of voxels that count for nothing, in both.

    Shape:
        - logits (B, K, *S), target (B, 1, *S) class ids, weight (B, 1, *S) or None; a scalar comes out.

    Attributes:
        parts: ``dice`` and ``cross_entropy`` of the last call, before their factors, detached: what a logger shows.

    Raises:
        ConfigError: shapes that do not fit together.

    >>> loss = DiceCrossEntropy()
    >>> value = loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))  # p = 1/2 everywhere: 1/3 + ln 2
    >>> {name: round(part.item(), 4) for name, part in loss.parts.items()}
    {'dice': 0.3333, 'cross_entropy': 0.6931}
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
        include_background: bool = False,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        self.dice_weight, self.cross_entropy_weight = dice_weight, cross_entropy_weight
        self.include_background, self.batch_dice, self.smooth = include_background, batch_dice, smooth
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        log_p = log_probabilities(logits, target, weight, self.ignore_label)
        dice = dice_of(log_p, self.include_background, self.batch_dice, self.smooth, self.class_weights)
        cross_entropy = cross_entropy_of(log_p, self.class_weights)
        self.parts = {"dice": dice.detach(), "cross_entropy": cross_entropy.detach()}
        return self.dice_weight * dice + self.cross_entropy_weight * cross_entropy
