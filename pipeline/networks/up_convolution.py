"""A convolution of an up-sampled image, without the up-sampled image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.networks.blocks import convolution


class UpConvolution(nn.Module):
    """C(U(x)), (B, in_channels, *S) -> (B, out_channels, *S * factor), computed where the voxels are still few.

    U has no weights and works axis by axis, C sums over channels and over the k taps of its kernel. So the sum over
    channels is done first, on the coarse grid, once per tap; what is left is to up-sample each tap's result and to sum
    them, shifted by one voxel each. Along one axis with n coarse voxels that is a matrix of (n * factor) rows and
    (k * n) columns (:func:`taps_of_upsampled`), so in 2D ``C(U(x)) = rows @ taps of x @ columns.T``.

    The result is that of ``conv(interpolate(x))`` up to rounding, borders included. That would need ``in_channels`` at
    full resolution: in UNet 3+ the 1024 of the deepest level, 16 times larger along each axis than they are.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, kernel_size: Sequence[int], factor: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv = convolution(spatial_dims, in_channels, out_channels, kernel_size)  # holds the weights, is not run
        self.kernel_size, self.factor = list(kernel_size), list(factor)
        self.taps = [out_channels, *kernel_size]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = list(x.shape[2:])
        weight: torch.Tensor = self.conv.weight  # type: ignore[assignment]
        taps = weight.flatten(2).transpose(1, 2).flatten(0, 1)  # (out * k1 * k2 ..., in)
        y = torch.matmul(taps, x.flatten(2))
        y = y.unflatten(2, size).unflatten(1, self.taps)
        matrices: list[torch.Tensor] = []
        for axis, n in enumerate(size):
            matrices.append(taps_of_upsampled(n, self.kernel_size[axis], self.factor[axis], x))
        if len(size) == 2:
            y = y.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)  # (B, out, k1 * h, k2 * w)
            return matrices[0] @ (y @ matrices[1].mT)
        y = y.permute(0, 1, 2, 5, 3, 6, 4, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)  # (B, out, k1 h, k2 w, k3 d)
        y = matrices[1] @ (y @ matrices[2].mT)
        return (matrices[0] @ y.flatten(3)).unflatten(3, y.shape[3:])


def taps_of_upsampled(n: int, taps: int, factor: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix (n * factor, taps * n) that up-samples each tap's n values linearly, shifts them to where the tap
    looks, zero beyond the border, and sums over the taps.

    >>> taps_of_upsampled(2, 1, 2, torch.zeros(1))  # up-sampling alone
    tensor([[1.0000, 0.0000],
            [0.7500, 0.2500],
            [0.2500, 0.7500],
            [0.0000, 1.0000]])
    >>> taps_of_upsampled(2, 3, 1, torch.zeros(1))  # three taps alone: left neighbours, itself, right neighbours
    tensor([[0., 0., 1., 0., 0., 1.],
            [1., 0., 0., 1., 0., 0.]])
    """
    one = torch.eye(n, dtype=like.dtype, device=like.device)
    up = F.interpolate(one[None], scale_factor=float(factor), mode="linear", align_corners=False)[0]  # (n, n * factor)
    padded = F.pad(up, [taps // 2, taps // 2])
    return torch.cat([padded[:, t : t + n * factor] for t in range(taps)]).mT
