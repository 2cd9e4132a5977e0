"""Up-sampling by a transposed convolution with a bilinear kernel: learned from there on, or fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def bilinear_kernel(factor: int) -> torch.Tensor:
    """The kernel along one axis that interpolates linearly where it stands ``factor`` voxels apart, float32.

    It has 2 factor - 1 taps where the factor is odd and 2 factor where it is even: 4, 32 and 64 for the factors 2, 16
    and 32 of the published FCN.

    >>> bilinear_kernel(2).tolist(), bilinear_kernel(3).tolist()
    ([0.25, 0.75, 0.75, 0.25], [0.3333333432674408, 0.6666666865348816, 1.0, 0.6666666865348816, 0.3333333432674408])
    """
    taps = 2 * factor - factor % 2
    distance = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2).abs()
    return (1 - distance / factor).float()


def learned_deconvolution(spatial_dims: int, channels: int, factor: Sequence[int]) -> nn.Module:
    """Unpadded, without a bias, every map onto every map: (B, channels, *S) -> (B, channels, *(S - 1) factor + taps).

    Call :func:`initialise_bilinear` after whatever else initialises the network.
    """
    kind: Any = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d
    taps = tuple(2 * f - f % 2 for f in factor)
    return kind(channels, channels, taps, tuple(factor), bias=False)


def initialise_bilinear(deconvolution: nn.Module) -> None:
    """Start a :func:`learned_deconvolution` as interpolation, map by map."""
    weight: torch.Tensor = deconvolution.weight  # type: ignore[assignment]
    kernel = torch.ones(())
    for factor in deconvolution.stride:  # type: ignore[union-attr]
        kernel = kernel.unsqueeze(-1) * bilinear_kernel(int(factor))
    with torch.no_grad():
        weight.zero_()
        for channel in range(weight.shape[0]):
            weight[channel, channel] = kernel


class FixedDeconvolution(nn.Module):
    """The same with fixed weights and each map for itself, (B, C, *S) -> (B, C, *(S - 1) factor + taps).

    The kernel is a product over the axes, so each axis is a matrix of its own (:func:`deconvolution_matrix`): for a
    factor of 32 that spares most of the 64 x 64 taps per voxel.
    """

    def __init__(self, factor: Sequence[int]) -> None:
        super().__init__()
        self.factor = list(factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for axis, factor in enumerate(self.factor):
            if factor > 1:
                matrix = deconvolution_matrix(x.shape[2 + axis], factor, x)
                x = torch.matmul(x.transpose(2 + axis, -1), matrix.mT).transpose(2 + axis, -1)
        return x

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def deconvolution_matrix(n: int, factor: int, like: torch.Tensor) -> torch.Tensor:
    """What the fixed kernel makes of n voxels in a row, ((n - 1) factor + taps, n).

    >>> deconvolution_matrix(2, 2, torch.zeros(1))
    tensor([[0.2500, 0.0000],
            [0.7500, 0.0000],
            [0.7500, 0.2500],
            [0.2500, 0.7500],
            [0.0000, 0.7500],
            [0.0000, 0.2500]])
    """
    taps = 2 * factor - factor % 2
    at = torch.arange((n - 1) * factor + taps, dtype=torch.float32, device=like.device)
    centres = torch.arange(n, dtype=torch.float32, device=like.device) * factor + (taps - 1) / 2
    return (1 - (at[:, None] - centres).abs() / factor).clamp(min=0).to(like.dtype)
