"""What an unpadded network loses: the one place that knows how to ask a network for it."""

from __future__ import annotations

from typing import Any

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
