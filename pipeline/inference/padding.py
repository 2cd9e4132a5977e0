"""Padding that no image is too small for.

``torch.nn.functional.pad`` refuses to reflect by as much as the image is wide, so a stack of two slices can't be
brought to a window of 96. Here every mode but ``constant`` is one table of source indices per axis, without that limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError

PADDING_MODES = ("mirror", "reflect", "replicate", "circular", "constant")


def source_indices(size: int, before: int, after: int, mode: str = "mirror") -> torch.Tensor:
    """Where each voxel of a padded axis comes from, int64 of length ``before + size + after``.

    ``mirror`` (``reflect`` is another name for it) runs to and fro without repeating the edge voxel, as often as it
    takes; an axis of one voxel repeats that voxel.

    >>> source_indices(3, 5, 3).tolist()
    [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1]
    >>> source_indices(1, 2, 1).tolist()
    [0, 0, 0, 0]
    """
    index = torch.arange(-before, size + after)
    if mode == "replicate":
        return index.clamp(0, size - 1)
    if mode == "circular":
        return index.remainder(size)
    if mode not in ("mirror", "reflect"):
        raise ConfigError(f"padding mode {mode!r}", expected=f"one of {', '.join(PADDING_MODES)}")
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def pad(
    image: torch.Tensor, widths: Sequence[tuple[int, int]], mode: str = "mirror", value: float = 0.0
) -> torch.Tensor:
    """Pad the last ``len(widths)`` axes of ``image``.

    Args:
        image: any shape and type.
        widths: (voxels before, voxels after) of each padded axis, first axis first.
        mode: one of `PADDING_MODES`.
        value: what ``constant`` fills in.

    Returns:
        The padded image; ``image`` itself where nothing is to be added.
    """
    if mode == "constant":
        flat = [width for pair in reversed(widths) for width in pair]
        return F.pad(image, flat, value=value) if any(flat) else image
    for axis, (before, after) in enumerate(widths, start=image.ndim - len(widths)):
        if before or after:
            image = image.index_select(axis, source_indices(image.shape[axis], before, after, mode).to(image.device))
    return image
