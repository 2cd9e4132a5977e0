"""Linear filters of an image that work axis by axis, each as a matrix: Gaussian blur, lower resolution, ghosts.

As a matrix (rows: voxels of the result, columns: voxels of the image), a filter knows its borders, any two that follow
each other are their product, and a batch in which every sample has its own is one matrix product per axis, on a CPU as
on a GPU. Patches are short: the products cost less than the convolutions that they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.transforms.patch_map import border_index

_TRUNCATE = 4.0  # deviations at which a Gaussian ends, as scipy's


def filter_axes(images: torch.Tensor, matrices: Sequence[Sequence[np.ndarray | None]]) -> torch.Tensor:
    """Filter every image of a batch along every axis.

    Args:
        images: (B, C, H, W[, D]).
        matrices: per spatial axis one (size, size) matrix for each sample, or one for each of its channels (B times C
            of them); None where the axis stays as it is.
    """
    samples, channels, *shape = images.shape
    result = images
    for axis, (size, own) in enumerate(zip(shape, matrices, strict=True), start=2):
        if all(matrix is None for matrix in own):
            continue
        stacked = np.stack([np.eye(size) if matrix is None else matrix for matrix in own])
        matrix = torch.from_numpy(stacked).to(images)
        matrix = matrix.reshape(samples, -1, size, size).expand(-1, channels, -1, -1)
        moved = result.movedim(axis, -1)
        filtered = moved.reshape(samples, channels, -1, size) @ matrix.transpose(-1, -2)
        result = filtered.reshape(moved.shape).movedim(-1, axis)
    return result.clone() if result is images else result.contiguous()


def gaussian_matrix(size: int, sigma_voxels: float) -> np.ndarray:
    """Gaussian blur of an axis, sampled and cut at 4 sigma as scipy's; beyond its ends the axis goes on mirrored.

    >>> gaussian_matrix(3, 0.5).round(3).tolist()
    [[0.787, 0.213, 0.001], [0.106, 0.787, 0.106], [0.001, 0.213, 0.787]]
    """
    radius = int(_TRUNCATE * sigma_voxels + 0.5)
    if radius == 0:
        return np.eye(size)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_voxels) ** 2)
    kernel /= kernel.sum()
    source = border_index(-radius, size + 2 * radius, size, "mirror")
    matrix = np.zeros((size, size))
    for offset, weight in enumerate(kernel):
        # No voxel comes twice among the rows, so nothing is lost by adding at all of them at once.
        matrix[np.arange(size), source[offset : offset + size]] += weight
    return matrix


def low_resolution_matrix(size: int, factor: float) -> np.ndarray:
    """An axis as a scan with ``factor`` times larger voxels sees it, brought back onto its own voxels.

    A larger voxel holds the mean over its width (a rectangular slice profile); between the larger voxels' centres it is
    interpolated linearly. They lie centred on the axis.

    >>> low_resolution_matrix(4, 2.0).tolist()[1]
    [0.375, 0.375, 0.125, 0.125]
    """
    count = max(1, math.ceil(size / factor - 1e-6))
    centres = (size - 1) / 2 + (np.arange(count) - (count - 1) / 2) * factor
    voxels = np.arange(size)
    ends = np.minimum(centres[:, None] + factor / 2, voxels + 0.5)
    starts = np.maximum(centres[:, None] - factor / 2, voxels - 0.5)
    means = np.maximum(0, ends - starts)
    means /= means.sum(1, keepdims=True)
    between = np.clip((voxels - centres[0]) / factor, 0, count - 1)
    shares = np.maximum(0, 1 - np.abs(between[:, None] - np.arange(count)))
    return np.asarray(shares @ means)
