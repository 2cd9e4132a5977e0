"""What the networks that take an input of any size are built from, beside ``blocks.py``.

A level whose size the stride does not divide is rounded up, and what comes back up is brought to the size of what it
joins, so that no input has to be padded first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.errors import ConfigError


def pool_rounding_up(spatial_dims: int, factor: Sequence[int]) -> nn.Module:
    """Max pooling, (B, C, *S) -> (B, C, *ceil(S / factor)): the last window may be cut short by the border."""
    if all(f == 1 for f in factor):
        return nn.Identity()
    pool = nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d
    return pool(tuple(factor), tuple(factor), ceil_mode=True)


def resize(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Linear interpolation to ``size``, (B, C, *S) -> (B, C, *size); voxel centres are aligned, not corners.

    >>> resize(torch.tensor([[[[0.0, 1.0]]]]), [1, 4]).flatten().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, size, mode="bilinear" if x.dim() == 4 else "trilinear", align_corners=False)


def check_any_size(size: Sequence[int], total_stride: Sequence[int], one_voxel_allowed: bool) -> None:
    """Refuse another number of axes, or one voxel at the deepest level where a norm needs more.

    Args:
        size: spatial size of the input, voxels per axis.
        total_stride: by how much the network shrinks it, rounding up, down to its deepest level.
        one_voxel_allowed: whether the deepest level may have one voxel, see `norms_take_one_voxel`.

    Raises:
        ConfigError: names the nearest sizes to use.
    """
    if len(size) != len(total_stride):
        raise ConfigError(
            f"an input with {len(size)} spatial axes",
            expected=f"a batch (B, C, *spatial) with {len(total_stride)} of them",
        )
    if not one_voxel_allowed and all(n <= s for n, s in zip(size, total_stride, strict=True)):
        stride = " x ".join(map(str, total_stride))
        doubled = [2 * s for s in total_stride]
        raise ConfigError(
            f"an input of {' x '.join(map(str, size))} voxels, one voxel at the network's deepest level",
            expected=f"more than the total stride {stride} along an axis: a norm has no statistics of one voxel alone",
            fix=f"use a patch or window of {' x '.join(map(str, doubled))}, or fewer levels",
        )
