"""Max pooling that remembers where each maximum stood, and its inverse.

Zeiler et al., Adaptive Deconvolutional Networks, ICCV 2011; as SegNet uses it (arXiv 1511.00561).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class PoolWithIndices(nn.Module):
    """(B, C, *S) -> the maxima (B, C, *ceil(S / factor)), and where in its map each stood, of the same shape, int64."""

    def __init__(self, factor: Sequence[int]) -> None:
        super().__init__()
        self.factor = list(factor)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if x.dim() == 4:
            return F.max_pool2d_with_indices(x, self.factor, self.factor, ceil_mode=True)
        return F.max_pool3d_with_indices(x, self.factor, self.factor, ceil_mode=True)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def unpool(x: torch.Tensor, indices: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Put each value where its maximum stood, zeros elsewhere: (B, C, *S_coarse) -> (B, C, *size).

    >>> x = torch.tensor([[[[1.0, 5.0, 2.0], [3.0, 4.0, 7.0]]]])
    >>> values, indices = PoolWithIndices([2, 2])(x)
    >>> unpool(values, indices, [2, 3])
    tensor([[[[0., 5., 0.],
              [0., 0., 7.]]]])
    """
    voxels = 1
    for n in size:
        voxels *= n
    empty = torch.zeros([x.shape[0], x.shape[1], voxels], dtype=x.dtype, device=x.device)
    return empty.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, size)
