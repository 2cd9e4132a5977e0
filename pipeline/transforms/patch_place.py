"""Where in a volume a patch lies: anywhere, or round a voxel of a class."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

LEAST_LABELLED_SHARE = 0.01
"""Of a patch: below, a warning. The published 3D U-Net labels 2.7%, the 2D one 46%."""


def margins(margin: int | Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Voxels per side of a patch that a network needs around what it labels, per axis.

    Args:
        margin: one number for all axes, or one per axis.

    Raises:
        ConfigError: nothing of the patch is left to be labelled.
    """
    dims = len(patch_size)
    widths = (margin,) * dims if isinstance(margin, int) else tuple(int(width) for width in margin)
    if len(widths) != dims or any(not 0 <= 2 * width < size for width, size in zip(widths, patch_size, strict=False)):
        raise ConfigError(f"margin={margin} of patches of {list(patch_size)}", expected="less than half a patch")
    labelled = [size - 2 * width for size, width in zip(patch_size, widths, strict=True)]
    if math.prod(labelled) < LEAST_LABELLED_SHARE * math.prod(patch_size):
        logger.warning(
            "an unpadded network labels only %s voxels of each patch of %s: it needs so many patches, here and in "
            "prediction, that larger ones are faster",
            "x".join(map(str, labelled)),
            "x".join(map(str, patch_size)),
        )
    return widths


def patch_start(
    random: np.random.RandomState,
    shape: Sequence[int],
    patch_size: Sequence[int],
    margin: Sequence[int],
    foreground: Mapping[int, np.ndarray],
    foreground_share: float,
) -> tuple[int, ...]:
    """Draw the first voxel of a patch, per axis; below 0 where it begins before the volume.

    Args:
        shape: of the volume, (H, W, D) or (H, W).
        patch_size: margin included.
        margin: see `margins`. The part of the patch inside it lies inside the volume.
        foreground: class -> (N, axes) voxels.
        foreground_share: probability that the patch's centre is a voxel of a class: each class that is present is
            equally likely, then each of its voxels.
    """
    classes = sorted(foreground)
    voxel = None
    if random.rand() < foreground_share and classes:
        voxels = foreground[classes[random.randint(len(classes))]]
        voxel = voxels[random.randint(len(voxels))]
    start = []
    for axis, (size, whole, width) in enumerate(zip(shape, patch_size, margin, strict=True)):
        patch = whole - 2 * width
        # A patch lies inside the volume; one that is larger than the volume lies anywhere around it. With a margin,
        # that holds for the part inside it.
        low, high = min(0, size - patch), max(0, size - patch)
        if voxel is not None and size >= patch:
            start.append(int(np.clip(voxel[axis] - patch // 2, low, high)) - width)
        else:
            start.append(int(random.randint(low, high + 1)) - width)
    return tuple(start)
