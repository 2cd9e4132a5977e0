"""Windows fitted to an image: their size where it is left open, their places, and the image filled up to hold them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from monai.utils import fall_back_tuple
from torch.func import functional_call

from pipeline.errors import ConfigError
from pipeline.inference.margin import output_margin, total_stride, window_around
from pipeline.inference.padding import pad
from pipeline.inference.placement import Box, Placement, tile_starts, window_starts

logger = logging.getLogger(__name__)


def fitted(
    images: torch.Tensor, network: Any, roi_size: Any, overlap: Any, padding_mode: str, cval: float
) -> tuple[Placement, torch.Tensor]:
    """Where the windows lie, and the images (B, C, *S) filled up so that they hold all of them.

    Args:
        images, network: what is to be predicted, and by what.
        roi_size, overlap, padding_mode, cval: as `pipeline.inference.SlidingWindowInferer` takes them.

    Raises:
        ConfigError: no two or three spatial axes, or windows that do not fit the network.
    """
    spatial_dims = images.ndim - 2
    require("inputs of shape", tuple(images.shape), spatial_dims in (2, 3), "(B, C, H, W) or (B, C, H, W, D)")
    window = per_axis("roi_size", roi_size, spatial_dims)
    overlap = per_axis("overlap", overlap, spatial_dims)
    margin = output_margin(network, spatial_dims)
    size = images.shape[2:]
    window = fall_back_tuple(window, window_around(size, network, margin))
    tile = tuple(w - 2 * m for w, m in zip(window, margin, strict=True))
    require("windows of", window, min(tile) > 0, f"more than twice the network's margin of {margin}")
    if any(margin):
        starts = tile_starts(size, tile, overlap, total_stride(network, spatial_dims))
        # Mirrored by the margin, and at the end by what the last tile reaches over.
        widths = [(m, s[-1] + t - n + m) for m, s, t, n in zip(margin, starts, tile, size, strict=True)]
        inside: Box = tuple(slice(0, n) for n in size)
    else:
        missing = [max(w - n, 0) for w, n in zip(window, size, strict=True)]
        widths = [(n // 2, n - n // 2) for n in missing]
        inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, size, strict=True))
        starts = window_starts([n + m for n, m in zip(size, missing, strict=True)], window, overlap)
    placement = Placement(tuple(window), tile, starts, inside)
    return placement, pad(images, widths, padding_mode, cval)


def require_window(inferer: Any, network: torch.nn.Module, in_channels: int, spatial_dims: int) -> None:
    """Refuse settings of windows that no case could be predicted with, before any case is read.

    The network runs once on torch's meta device, where nothing is computed: whether it takes a window it says by its
    size. An axis that is left open depends on the case; what does not run there is left to the first case.

    Args:
        inferer: one of this package's, or another, of which nothing is known.

    Raises:
        ConfigError: a window that the network does not take, or not one entry per axis.
    """
    if not (hasattr(inferer, "roi_size") and type(inferer).__module__.startswith(__package__)):
        return
    window = per_axis("roi_size", inferer.roi_size, spatial_dims)
    per_axis("overlap", inferer.overlap, spatial_dims)
    if any(n is None or n <= 0 for n in window):
        return
    require("roi_size", list(window), all(isinstance(n, int) for n in window), "whole numbers of voxels")
    tensors = chain(network.named_parameters(), network.named_buffers())
    on_meta = {name: tensor.detach().to("meta") for name, tensor in tensors}
    training = network.training
    network.eval()  # as it predicts: training may ask for more than one window, or more than one voxel
    try:
        with torch.no_grad():
            functional_call(network, on_meta, torch.empty(1, in_channels, *window, device="meta"))
    except ConfigError:
        raise
    except Exception as error:  # of an operation that needs values, or of another's network: it is not known
        logger.debug("a window of %s is not tried beforehand: %s", window, error)
    finally:
        network.train(training)


def per_axis(name: str, value: Any, spatial_dims: int) -> tuple:
    """One entry per spatial axis; a number stands for all of them."""
    if not isinstance(value, Sequence):
        return (value,) * spatial_dims
    require(name, list(value), len(value) == spatial_dims, f"{spatial_dims} entries for {spatial_dims}D inputs")
    return tuple(value)


def require(name: str, found: Any, holds: bool, expected: str) -> None:
    """Raises ConfigError where something does not hold."""
    if not holds:
        raise ConfigError(f"{name} {found}", expected=expected)
