"""Instance norm by the fastest kernel for the device and layout (``benchmarks/networks.py --norms`` measures them).

Ulyanov et al., Instance Normalization, 2016 (arXiv 1607.08022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class InstanceNorm(nn.Module):
    """Instance norm with a learned scale and shift per channel, (B, C, *S) -> (B, C, *S).

    Group norm with one channel per group is the same function of the same ``weight`` and ``bias``. On a CPU torch's
    kernel for it is the faster one and keeps the channels-last layout; its backward in that layout is slow, most of all
    in bfloat16, so :class:`_ChannelsLastNorm` replaces it. On CUDA, autocast would run group norm in float32. Torch's
    instance norm, which stays in half precision, takes contiguous maps there; it would bring others into that layout,
    so :class:`_OneByOne` takes channels-last ones.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:
            if torch.jit.is_scripting() or torch.jit.is_tracing() or torch.compiler.is_compiling() or x.is_contiguous():
                return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
            return _OneByOne.apply(x.as_subclass(torch.Tensor), self.weight, self.bias, self.eps)
        # Not under a compiler, which fuses group norm and its backward by itself.
        if (
            not torch.jit.is_scripting()
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
            and self.training
            and torch.is_grad_enabled()
            and not x.is_contiguous()
        ):
            # Plain: a subclass (MONAI's MetaTensor) would forbid the in-place activation that follows.
            return _ChannelsLastNorm.apply(x.as_subclass(torch.Tensor), self.weight, self.bias, self.eps)
        return F.group_norm(x, self.channels, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class _ChannelsLastNorm(torch.autograd.Function):
    """Torch's forward with a backward written as sums over rows of channels, (B, voxels, C) as they lie in memory.

    With n voxels, g the gradient of the output, and m, r the mean and 1 / standard deviation of x, the gradient of x is

        r w (g - sum(g) / n - r^2 (x - m) sum(g (x - m)) / n)  =  scale g + slope x + offset

    with one scale, slope and offset per sample and channel. They and the sums are float32 whatever the dtype of x.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        batch, channels = x.shape[:2]
        voxels = x.numel() // (batch * channels)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, voxels, channels, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, mean, rstd = ctx.saved_tensors
        rows = x.movedim(1, -1).flatten(1, -2)  # (B, voxels, C); a view where x is channels-last
        grad_rows = grad.movedim(1, -1).flatten(1, -2)
        exact = torch.promote_types(x.dtype, torch.float32)
        sum_grad = grad_rows.sum(1, keepdim=True, dtype=exact)
        mean, rstd = mean.to(exact).view_as(sum_grad), rstd.to(exact).view_as(sum_grad)
        sum_grad_x = (grad_rows * rows).sum(1, keepdim=True, dtype=exact) - sum_grad * mean

        scale = rstd * weight
        slope = -scale * rstd.square() * sum_grad_x / rows.shape[1]
        offset = -slope * mean - scale * sum_grad / rows.shape[1]
        grad_x = torch.addcmul(torch.addcmul(offset.to(x.dtype), rows, slope.to(x.dtype)), grad_rows, scale.to(x.dtype))

        grad_weight = (sum_grad_x * rstd).sum((0, 1)).to(weight.dtype)
        grad_bias = sum_grad.sum((0, 1)).to(weight.dtype)
        return grad_x.unflatten(1, x.shape[2:]).movedim(-1, 1), grad_weight, grad_bias, None


class _OneByOne(torch.autograd.Function):
    """On CUDA, channels-last: of one sample, batch norm is instance norm.

    By the kernels of torch's ``SyncBatchNorm``, which read channels-last maps as they lie, in any precision, and keep
    statistics in float32.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y = torch.empty_like(x)
        statistics = []
        for sample, normed in zip(x.split(1), y.split(1), strict=True):
            mean, rstd = torch.batch_norm_stats(sample, eps)
            torch.batch_norm_elemt(sample, weight, bias, mean, rstd, eps, out=normed)
            statistics += [mean, rstd]
        ctx.save_for_backward(x, weight, *statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, *statistics = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        voxels = torch.full((1,), x[0, 0].numel(), dtype=torch.int32, device=x.device)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        samples = zip(grad.split(1), x.split(1), grad_x.split(1), statistics[::2], statistics[1::2], strict=True)
        for grad_sample, sample, grad_of_sample, mean, rstd in samples:
            moments = torch.batch_norm_backward_reduce(grad_sample, sample, mean, rstd, weight, True, True, True)
            sum_grad, sum_grad_x, of_weight, of_bias = moments
            found = torch.batch_norm_backward_elemt(
                grad_sample, sample, mean, rstd, weight, sum_grad, sum_grad_x, voxels
            )
            grad_of_sample.copy_(found)
            grad_weight += of_weight
            grad_bias += of_bias
        return grad_x, grad_weight, grad_bias, None
