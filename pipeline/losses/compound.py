"""Weighted sums of losses that share one pass over the logits.

What the papers and bundles ask for, as a config says it (every term with its own arguments):

    Dice + cross-entropy        {_target_: pipeline.losses.DiceCrossEntropy}
    BCE + Dice                  terms: [{_target_: pipeline.losses.BinaryCrossEntropyLoss},
                                        {_target_: pipeline.losses.DiceLoss}]
    Dice + focal                terms: [DiceLoss, FocalLoss]
    Dice + MS-SSIM + focal      terms: [DiceLoss, MSSSIMLoss, FocalLoss]
    IoU + MS-SSIM + focal       terms: [IoULoss, MSSSIMLoss, FocalLoss], each {include_background: true} where it has
                                the choice: the hybrid loss of UNet 3+ (Huang et al., 2020, arXiv 2004.08790), section
                                2.2: l_seg = l_focal + l_ms-ssim + l_iou
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.losses.class_loss import ClassLoss, check_normalization
from pipeline.losses.cross_entropy import cross_entropy_of
from pipeline.losses.dice import dice_of
from pipeline.losses.softmax_sums import SoftmaxSums, softmax_sums


class CompoundLoss(nn.Module):
    """``sum of factor x term``; terms on the same sums of softmax probabilities cost one pass together.

    Args:
        terms: losses, ours or any ``loss(logits, target, weight=None) -> scalar`` such as MONAI's.
        factors: one per term, used as they stand; by default 1.

    Shape:
        - logits (B, K, *S), target (B, 1, *S) class ids, weight (B, 1, *S) or None; a scalar comes out.

    Attributes:
        parts: the parts of all terms of the last call, before their factors, detached.

    Raises:
        ConfigError: no terms; as many factors as terms are needed; two terms whose parts have the same name.

    >>> from pipeline.losses import DiceLoss, FocalLoss
    >>> loss = CompoundLoss([DiceLoss(), FocalLoss(gamma=0)], factors=[1, 0.5])
    >>> value = loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))  # p = 1/2 everywhere: 1/3 + ln 2 / 2
    >>> round(value.item(), 4), {name: round(part.item(), 4) for name, part in loss.parts.items()}
    (0.6799, {'dice': 0.3333, 'focal': 0.6931})
    """

    def __init__(self, terms: Sequence[nn.Module], factors: Sequence[float] | None = None) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.factors = tuple(1.0 for _ in terms) if factors is None else tuple(float(f) for f in factors)
        if not terms or len(self.factors) != len(self.terms):
            raise ConfigError(
                f"{len(self.factors)} factors for {len(self.terms)} terms", expected="one factor per term"
            )
        names = [term.name for term in terms if isinstance(term, ClassLoss)]
        if len(set(names)) != len(names):
            raise ConfigError(f"terms {', '.join(names)}", expected="each loss once", fix="give one of them its factor")
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        shared: dict[int | None, SoftmaxSums] = {}
        total = logits.new_zeros((), dtype=torch.promote_types(logits.dtype, torch.float32))
        self.parts = {}
        for factor, term in zip(self.factors, self.terms, strict=True):
            if isinstance(term, ClassLoss):
                if term.ignore_label not in shared:
                    shared[term.ignore_label] = self._sums(logits, target, weight, term.ignore_label)
                value = term.of(shared[term.ignore_label])
                self.parts[term.name] = value.detach()
            else:
                # MONAI's and torch's own losses take no third argument.
                value = term(logits, target) if weight is None else term(logits, target, weight)
                self.parts |= getattr(term, "parts", {type(term).__name__: value.detach()})
            total = total + factor * value
        return total

    def _sums(
        self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_label: int | None
    ) -> SoftmaxSums:
        users = [t for t in self.terms if isinstance(t, ClassLoss) and t.ignore_label == ignore_label]
        ratios, squares = any(t.ratios for t in users), any(t.squares for t in users)
        return softmax_sums(logits, target, weight, ignore_label, ratios=ratios, squares=squares)


class DiceCrossEntropy(ClassLoss):
    """``dice_weight`` x soft Dice loss + ``cross_entropy_weight`` x cross-entropy, in one pass.

    Args:
        dice_weight: factor of :func:`pipeline.losses.dice_loss`.
        cross_entropy_weight: factor of :func:`pipeline.losses.cross_entropy_loss`.
        include_background: whether Dice counts class 0; cross-entropy always does.
        batch_dice: Dice over the batch as one volume.
        smooth: Dice's, in voxels.
        class_weights: one per class, the background included, for both.
        ignore_label: id of voxels that count for nothing, in both.
        squared: Dice's, p squared in its denominator.
        normalization: cross-entropy's.

    Shape:
        - logits (B, K, *S), target (B, 1, *S) class ids, weight (B, 1, *S) or None; a scalar comes out.

    Attributes:
        parts: ``dice`` and ``cross_entropy`` of the last call, before their factors, detached: what a logger shows.

    Raises:
        ConfigError: shapes that do not fit together; class weights below 0, or 0 for all classes that Dice counts.

    >>> loss = DiceCrossEntropy()
    >>> value = loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4))  # p = 1/2 everywhere: 1/3 + ln 2
    >>> {name: round(part.item(), 4) for name, part in loss.parts.items()}
    {'dice': 0.3333, 'cross_entropy': 0.6931}
    """

    name = "dice_cross_entropy"

    def __init__(
        self,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
        include_background: bool = False,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
        squared: bool = False,
        normalization: str = "weights",
    ) -> None:
        super().__init__(class_weights, ignore_label, include_background)
        check_normalization(normalization)
        self.dice_weight, self.cross_entropy_weight = dice_weight, cross_entropy_weight
        self.include_background, self.batch_dice, self.smooth = include_background, batch_dice, smooth
        self.squares, self.normalization = squared, normalization

    def of(self, sums: SoftmaxSums) -> torch.Tensor:
        return self._sum(self._parts(sums))

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        parts = self._parts(softmax_sums(logits, target, weight, self.ignore_label, squares=self.squares))
        self.parts = {name: part.detach() for name, part in parts.items()}
        return self._sum(parts)

    def _parts(self, sums: SoftmaxSums) -> dict[str, torch.Tensor]:
        weights = self.class_weights
        return {
            "dice": dice_of(sums, self.include_background, self.batch_dice, self.smooth, weights, self.squares),
            "cross_entropy": cross_entropy_of(sums, weights, self.normalization),
        }

    def _sum(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.dice_weight * parts["dice"] + self.cross_entropy_weight * parts["cross_entropy"]
