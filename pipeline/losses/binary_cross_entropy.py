"""Binary cross-entropy of class channels, each one against the rest.

The loss of U-Net++ (Zhou et al., DLMIA 2018, arXiv 1807.10165, section 2.3) takes it with Dice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.losses.class_loss import check_class_weights, check_normalization, class_weight_tensor, normalized
from pipeline.losses.softmax_sums import checked


def binary_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    include_background: bool = True,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
    normalization: str = "weights",
) -> torch.Tensor:
    r"""Weighted sum over the voxels, divided by Z, of the mean over classes of a two-class cross-entropy.

    .. math:: - \frac{1}{Z} \sum_i w_i
        \frac{\sum_k c_k [g_{ik} \log q_{ik} + (1 - g_{ik}) \log (1 - q_{ik})]}{\sum_k c_k},
        \qquad q_{ik} = \frac{1}{1 + e^{-z_{ik}}}

    over voxels i and classes k, with g 1 where the target is class k, w the voxel's weight, c ``class_weights`` and Z
    as in :func:`pipeline.losses.cross_entropy_loss`.

    **What binary means here.** A network of this project has K channels of logits z, one per class and the background
    among them, that are read by a softmax. This loss reads each channel by a sigmoid of its own instead: q_k is the
    probability of "class k" against "any other", and the probabilities of a voxel need not sum to 1. With two classes
    and ``include_background=False`` what is left is the usual binary cross-entropy of one foreground channel; channel 0
    then gets no gradient, and a prediction by argmax over the channels needs another loss that trains it.

    Args:
        logits: (B, K, *S).
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        include_background: count channel 0 as well.
        class_weights: one per class, (K,), 0 or above, the background included.
        ignore_label: id of voxels that count for nothing.
        normalization: ``"weights"`` (the sum of w), ``"voxels"`` or ``"sum"``.

    Returns:
        A scalar, 0 or above.

    Raises:
        ConfigError: shapes that do not fit together; an unknown normalization.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986123]]])  # q of class 0: 1/2, 1/2; of class 1: 1/2, 3/4
    >>> target = torch.tensor([[[0, 1]]])
    >>> round(binary_cross_entropy_loss(logits, target).item(), 4)  # (3 ln 2 + ln 4/3) / 4
    0.5918
    >>> round(binary_cross_entropy_loss(logits, target, include_background=False).item(), 4)  # (ln 2 + ln 4/3) / 2
    0.4904
    """
    check_class_weights(class_weights, logits.shape[1], include_background)
    logits, ids, voxel_weight, counted = checked(logits, target, weight, ignore_label)
    first = 0 if include_background else 1
    z = logits.flatten(2)[:, first:].to(torch.promote_types(logits.dtype, torch.float32))
    classes = torch.arange(first, logits.shape[1], device=z.device, dtype=ids.dtype)
    # log q = log sigmoid(z), log (1 - q) = log sigmoid(-z): finite at any logit.
    losses = -F.logsigmoid(torch.where(ids[:, None] == classes[:, None], z, -z))
    if class_weights is None:
        of_voxel = losses.mean(1)
    else:
        chosen = class_weights[first:].to(z)
        of_voxel = (losses * chosen[:, None]).sum(1) / chosen.sum()
    return normalized(of_voxel, voxel_weight, counted, normalization)


class BinaryCrossEntropyLoss(nn.Module):
    """:func:`binary_cross_entropy_loss` as a module; ``parts`` holds its last value as ``binary_cross_entropy``."""

    def __init__(
        self,
        include_background: bool = True,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        normalization: str = "weights",
    ) -> None:
        super().__init__()
        check_normalization(normalization)
        self.include_background, self.normalization = include_background, normalization
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights, include_background), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        loss = binary_cross_entropy_loss(
            logits,
            target,
            weight,
            include_background=self.include_background,
            class_weights=self.class_weights,
            ignore_label=self.ignore_label,
            normalization=self.normalization,
        )
        self.parts = {"binary_cross_entropy": loss.detach()}
        return loss
