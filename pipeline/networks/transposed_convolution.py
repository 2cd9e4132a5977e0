"""The 3D transposed convolution of a decoder, by the faster kernel (``benchmarks/networks.py --norms`` measures it)."""

# mypy: disable-error-code="override"
# (Without torch's output_size. TorchScript can't read such a comment where it belongs, beside `forward`.)
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TransposedConvolution3d(nn.ConvTranspose3d):
    """A transposed convolution without a bias whose kernel equals its stride, (B, C, *S) -> (B, C', *S * stride).

    Its windows do not overlap: each voxel becomes a block of voxels, each by a matrix of its own. So a 1x1x1
    convolution to all voxels of the block, laid out in space, is the same function of the same weights. On a CPU in
    float32 and torch's default layout it takes half the time of torch's own kernel; in the channels-last layout, where
    that one is fast, and everywhere else it stays.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not under a compiler or an exporter, which know the transposed convolution by name.
        if (
            not torch.jit.is_scripting()
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous()
            and not x.is_contiguous(memory_format=torch.channels_last_3d)
        ):
            return self._blocks(x)
        return F.conv_transpose3d(x, self.weight, None, self.stride)

    @torch.jit.unused
    def _blocks(self, x: torch.Tensor) -> torch.Tensor:
        into, out, *kernel = self.weight.shape
        # (C, C' * block) -> (C' * block, C): channel c * block + k of the result is voxel k of channel c.
        weight = self.weight.flatten(1).t().reshape(-1, into, 1, 1, 1)
        blocks = F.conv3d(x, weight).unflatten(1, (out, *kernel))  # (B, C', f, g, h, H, W, D)
        size = [n * f for n, f in zip(x.shape[2:], kernel, strict=True)]
        return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(x.shape[0], out, *size)
