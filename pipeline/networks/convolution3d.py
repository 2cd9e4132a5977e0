"""The 3D convolution by the faster kernel (``benchmarks/networks.py --norms`` measures it)."""

# mypy: disable-error-code="override"
# (TorchScript reads such a comment as a type where it belongs, beside `forward`.)
from __future__ import annotations

import torch
from torch import nn

_MOST = 20480  # C times the first two axes: above, torch takes oneDNN by itself


class Convolution3d(nn.Conv3d):
    """Torch's convolution, (B, C, *S) -> (B, C', *S / stride), that runs a single image by oneDNN, too.

    On a CPU, in float32, torch hands a batch of one to a kernel of its own where C times the first two axes make no
    more than 20480: the first convolution of an image of one channel, and those of the deepest levels. That one unfolds
    the image into a matrix, which takes three to seven times as long and 27 times the memory. oneDNN computes the same
    sums of the same weights, in another order.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            return self._by_the_faster_kernel(x)
        return self._conv_forward(x, self.weight, self.bias)

    @torch.jit.unused
    def _by_the_faster_kernel(self, x: torch.Tensor) -> torch.Tensor:
        padding = self.padding
        if (
            # Not under a compiler or exporter, which know the convolution by name; nor under autocast, which casts it.
            not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.ndim == 5
            and x.shape[0] == 1
            and x.shape[1] * x.shape[2] * x.shape[3] <= _MOST
            and self.padding_mode == "zeros"
            and isinstance(padding, tuple)
            and torch.backends.mkldnn.is_available()
        ):
            return torch.mkldnn_convolution(x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)
        return self._conv_forward(x, self.weight, self.bias)
