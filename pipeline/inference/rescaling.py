"""Predict an image at another size: one level of an image pyramid."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def rescaled(images: torch.Tensor, scale: float, predict: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Logits of ``images`` from a copy of ``scale`` times their size, on their own size again.

    Both ways are linear interpolation between voxel centres; an image that shrinks is averaged first, over as many
    voxels as become one, so that what is too fine for the copy does not come back as something else.

    Args:
        images: (B, C, *spatial).
        scale: above 0; 1 predicts the images as they are.
        predict: (B, C, *spatial) -> logits (B, K, *spatial), whatever the size.
    """
    if scale == 1:
        return predict(images)
    size = tuple(images.shape[2:])
    there = [max(1, round(n * scale)) for n in size]
    linear = "bilinear" if len(size) == 2 else "trilinear"
    copies = F.interpolate(images, there, mode="area") if scale < 1 else F.interpolate(images, there, mode=linear)
    return F.interpolate(predict(copies), size, mode=linear)
