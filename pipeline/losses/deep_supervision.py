"""One loss over the logits of several resolutions.

Lee et al., Deeply-Supervised Nets, AISTATS 2015 (arXiv 1409.5185).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError


class DeepSupervision(nn.Module):
    """Weighted sum of ``loss`` over a list of logits; a single tensor goes straight to ``loss``.

    Each level sees the full-resolution target, sampled at the voxel nearest to the centre of each of its own voxels.

    Args:
        loss: any ``loss(logits, target, weight=None) -> scalar``.
        weights: ``"halved"`` from level to level (the default), for levels of ever coarser resolution; ``"equal"``, for
            levels of the same resolution (U-Net++: the branches X^{0,1..4}), as many as there are; both sum to 1. Or
            the factor of each level, full resolution first, used as they stand.

    Shape:
        - logits: a list of (B, K, *S_i), full resolution first, or one tensor; target and weight: (B, 1, *S_0).

    Attributes:
        parts: the inner loss's parts at full resolution, the ones that compare between runs of different depth.

    Raises:
        ConfigError: as many weights as levels are needed; an unknown word.

    >>> from pipeline.losses import CrossEntropyLoss
    >>> loss = DeepSupervision(CrossEntropyLoss())
    >>> logits = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
    >>> round(loss(logits, torch.ones(1, 1, 4, 4)).item(), 4)  # (2/3 + 1/3) ln 2
    0.6931
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | str | None = None) -> None:
        super().__init__()
        self.loss = loss
        if isinstance(weights, str) and weights not in ("halved", "equal"):
            raise ConfigError(f"deep-supervision weights {weights!r}", expected="halved, equal, or a list of numbers")
        self.weights = weights if weights is None or isinstance(weights, str) else tuple(float(w) for w in weights)
        self.parts: dict[str, torch.Tensor] = {}

    def forward(
        self,
        logits: torch.Tensor | Sequence[torch.Tensor],
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        levels = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        factors = (1.0,) if isinstance(logits, torch.Tensor) else self._factors(len(levels))
        total = factors[0] * self._inner(levels[0], target, weight)
        self.parts = dict(getattr(self.loss, "parts", {}))
        for factor, level in zip(factors[1:], levels[1:], strict=True):
            size = level.shape[2:]
            coarse_weight = None if weight is None else nearest(weight, size)
            total = total + factor * self._inner(level, nearest(target, size), coarse_weight)
        return total

    def _inner(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        # MONAI's and torch's own losses take no third argument.
        return self.loss(logits, target) if weight is None else self.loss(logits, target, weight)

    def _factors(self, levels: int) -> tuple[float, ...]:
        if self.weights == "equal":
            return (1 / levels,) * levels
        if self.weights is None or isinstance(self.weights, str):
            halved = [0.5**i for i in range(levels)]
            return tuple(h / sum(halved) for h in halved)
        if len(self.weights) != levels:
            raise ConfigError(
                f"{len(self.weights)} deep-supervision weights for {levels} levels of logits",
                expected=f"{levels} weights, full resolution first",
            )
        return self.weights


def nearest(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Sample (B, C, *S) down to (B, C, *size), of any dtype.

    Coarse voxel j covers fine voxels j r to (j + 1) r; the one at its centre is taken, or for even r the one after it.
    (Torch's "nearest" takes the first, which shifts a label by up to half a coarse voxel.) An axis that keeps its size
    is left alone: where the strides spare the slice axis, a label one slice thick survives.

    >>> nearest(torch.tensor([[[0, 1, 2, 3, 4, 5, 6, 7, 8]]]), [3])
    tensor([[[1, 4, 7]]])
    """
    values = values.as_subclass(torch.Tensor)
    for axis, (fine, coarse) in enumerate(zip(values.shape[2:], size, strict=True), start=2):
        if fine != coarse:
            # Integer arithmetic: (j + 1/2) fine / coarse, rounded down.
            index = (2 * torch.arange(coarse, device=values.device) + 1) * fine // (2 * coarse)
            values = values.index_select(axis, index)
    return values
