"""The windows on which ways to run a network are compared, and how near the labels of two of them are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.inference.finite import all_finite

EXAMPLES = 4  # windows that every means is timed and compared on


def example_windows(images: torch.Tensor, window: Sequence[int], corners: Sequence[Sequence[int]]) -> torch.Tensor:
    """Windows (n, C, *window) of the first image, those nearest its middle."""

    def off_centre(corner: Sequence[int]) -> float:
        return sum((2 * c + w - n) ** 2 for c, w, n in zip(corner, window, images.shape[2:], strict=True))

    boxes = [
        tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        for corner in sorted(corners, key=off_centre)[:EXAMPLES]
    ]
    return torch.cat([images[(slice(0, 1), slice(None), *box)] for box in boxes]).contiguous()


def labels_of(logits: torch.Tensor) -> torch.Tensor | None:
    """(b, K, *S) -> (b, *S), the class of the largest logit, or of a single one its sign; None where some logits are
    not finite."""
    if not all_finite(logits):
        return None
    return (logits > 0).squeeze(1).to(torch.int16) if logits.shape[1] == 1 else logits.max(1).indices.to(torch.int16)


def agreement(
    labels: Sequence[torch.Tensor | None], reference: Sequence[torch.Tensor | None]
) -> tuple[float, float | None]:
    """Share of voxels with the same label, and the Dice coefficient of the foreground, a voxel of which counts as
    common where both give it the same class; None where neither has any. None, labels that logits did not give, agrees
    with nothing.

    >>> agreement([torch.tensor([1, 0, 0, 0])], [torch.tensor([1, 1, 0, 0])])
    (0.75, 0.6666666666666666)
    """
    voxels = same = common = foreground = 0
    for a, b in zip(labels, reference, strict=True):
        if a is None or b is None:
            return 0.0, 0.0
        equal = a == b
        voxels, same = voxels + a.numel(), same + int(equal.sum())
        common += int((equal & (a > 0)).sum())
        foreground += int((a > 0).sum()) + int((b > 0).sum())
    return same / voxels, 2 * common / foreground if foreground else None
