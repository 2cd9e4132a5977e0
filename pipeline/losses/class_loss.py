"""`ClassLoss`: the module around a loss that is made of `SoftmaxSums`, and what such losses share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


class ClassLoss(nn.Module, ABC):
    """Base of the losses on softmax probabilities: ``forward`` is `of` of the sums of its logits and target.

    A subclass sets ``name``, and ``ratios`` and ``squares`` to what it needs of `softmax_sums`, and defines `of`.
    `CompoundLoss` gives the same sums to several of them.

    Args:
        class_weights: one per class, the background included.
        ignore_label: id of voxels that count for nothing.
        include_background: whether class 0 counts: without it, another class needs a weight above 0.

    Attributes:
        parts: the value of the last call under the loss's ``name``, detached: what a logger shows.

    Raises:
        ConfigError: class weights that have no meaning, as :func:`check_class_weights` says.
    """

    name: str
    ratios = True
    squares = False

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        include_background: bool = True,
    ) -> None:
        super().__init__()
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights, include_background), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    @abstractmethod
    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        """The loss, a scalar, of sums that other losses share."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        loss = self.of(
            softmax_sums(logits, target, weight, self.ignore_label, ratios=self.ratios, squares=self.squares)
        )
        self.parts = {self.name: loss.detach()}
        return loss


def mean_over_classes(loss: torch.Tensor, include_background: bool, class_weights: torch.Tensor | None) -> torch.Tensor:
    """Mean of (B, K) losses over the samples and over the classes, the latter weighted; without class 0 if so asked.

    Raises:
        ConfigError: class weights that have no meaning, as :func:`check_class_weights` says.
    """
    check_class_weights(class_weights, loss.shape[1], include_background)
    first = 0 if include_background else 1
    of_class = loss[:, first:].mean(0)
    if class_weights is None:
        return of_class.mean()
    chosen = class_weights[first:].to(of_class)
    return (of_class * chosen).sum() / chosen.sum()


def normalized(
    values: torch.Tensor, weight: torch.Tensor | None, counted: torch.Tensor, normalization: str
) -> torch.Tensor:
    """Weighted sum of a value per voxel, (B, N), divided by Z as :func:`pipeline.losses.cross_entropy_loss` defines it.

    Args:
        weight: (B, N), 0 where a voxel is ignored; None where all are 1.
        counted: number of voxels that are not ignored.

    Raises:
        ConfigError: an unknown normalization.
    """
    check_normalization(normalization)
    total = values.sum() if weight is None else (weight * values).sum()
    if normalization == "sum":
        return total
    divisor = counted if normalization == "voxels" or weight is None else weight.sum()
    return total / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def check_normalization(normalization: str) -> None:
    """Raises ConfigError unless it is one that `normalized` knows."""
    if normalization not in ("weights", "voxels", "sum"):
        raise ConfigError(f"normalization={normalization!r}", expected="weights, voxels or sum")


def class_weight_tensor(class_weights: Sequence[float] | None, include_background: bool = True) -> torch.Tensor | None:
    """Weights as a float32 tensor (K,), from a config's list.

    Raises:
        ConfigError: as :func:`check_class_weights`, but for the number of classes, which is not known yet.
    """
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float32)
    _check_values(weights, include_background)
    return weights


def check_class_weights(class_weights: torch.Tensor | None, classes: int, include_background: bool = True) -> None:
    """Refuse weights that are not one per class (the background included), below 0, or 0 for all that count.

    On a GPU, only their number: it would have to wait for their values. A module checks them when it is built.

    Raises:
        ConfigError: of those.
    """
    if class_weights is None:
        return
    if class_weights.shape != (classes,):
        raise ConfigError(
            f"class_weights of shape {tuple(class_weights.shape)}",
            expected=f"{classes} of them, one per class, the background included",
        )
    if class_weights.device.type == "cpu":
        _check_values(class_weights, include_background)


def _check_values(weights: torch.Tensor, include_background: bool) -> None:
    listed = weights.flatten().tolist()
    if not all(0 <= weight < math.inf for weight in listed):
        raise ConfigError(f"class_weights {listed}", expected="finite numbers, 0 or above")
    if not any(listed if include_background else listed[1:]):
        raise ConfigError(
            f"class_weights {listed}" + ("" if include_background else " without the background"),
            expected="a weight above 0 for a class that counts",
            fix="give a class of the foreground a weight" + ("" if include_background else ", or include_background"),
        )
