"""What an unpadded network loses, and which sizes a network takes: the one place that knows how to ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
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


def window_around(size: Sequence[int], network: Any, margin: Sequence[int]) -> tuple[int, ...]:
    """The smallest window that holds the whole image and that the network takes, as far as it tells what it takes."""
    if not any(margin):
        return tuple(ceil(n / step) * step for n, step in zip(size, total_stride(network, len(size)), strict=True))
    # Without padding, the sizes that fit are no multiples of the stride.
    input_size_for = getattr(getattr(network, "module", network), "input_size_for", None)
    if input_size_for is not None:
        return tuple(input_size_for(size))
    return tuple(n + 2 * m for n, m in zip(size, margin, strict=True))


def total_stride(network: Any, spatial_dims: int) -> tuple[int, ...]:
    """By how much each axis is smaller at a network's deepest level: its ``total_stride``, 1 where it names none.

    Raises:
        ConfigError: a stride for another number of axes.
    """
    stride = getattr(getattr(network, "module", network), "total_stride", (1,) * spatial_dims)
    stride = tuple(int(step) for step in stride)
    if len(stride) != spatial_dims:
        raise ConfigError(f"a network with a total_stride of {stride}", expected=f"{spatial_dims} spatial axes")
    return stride
