"""What an unpadded network loses: the one place that knows how to ask a network for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.errors import ConfigError


def output_margin(network: Any, spatial_dims: int) -> tuple[int, ...]:
    """Voxels per side and axis by which a network's logits are smaller than its input: its ``output_margin``.

    A network without that attribute is padded: its margin is 0. What wraps a network (``DistributedDataParallel``) is
    looked through.

    >>> output_margin(object(), 3)
    (0, 0, 0)

    Raises:
        ConfigError: a margin for another number of axes.
    """
    network = getattr(network, "module", network)
    margin = tuple(int(width) for width in getattr(network, "output_margin", (0,) * spatial_dims))
    if len(margin) != spatial_dims or min(margin) < 0:
        raise ConfigError(f"an output_margin of {margin}", expected=f"{spatial_dims} numbers of voxels, one per axis")
    return margin


def inside_margin(tensor: torch.Tensor, margin: Sequence[int]) -> torch.Tensor:
    """What an unpadded network has logits for: (B, C, *S) without ``margin`` voxels on each side of each axis; a view.

    >>> inside_margin(torch.arange(7).reshape(1, 1, 7, 1), (2, 0)).flatten().tolist()
    [2, 3, 4]
    """
    for axis, width in enumerate(margin, start=2):
        tensor = tensor.narrow(axis, width, tensor.shape[axis] - 2 * width)
    return tensor
