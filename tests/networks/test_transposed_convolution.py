import pytest
import torch
from torch import nn

from pipeline.networks.transposed_convolution import TransposedConvolution3d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 3, 1)])
def test_value_and_gradients_are_torchs(stride, layout):
    torch.manual_seed(0)
    ours = TransposedConvolution3d(5, 3, stride, stride, bias=False)
    peer = nn.ConvTranspose3d(5, 3, stride, stride, bias=False)
    peer.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 3, 4, 2).contiguous(memory_format=layout)
    results = []
    for module in (ours, peer):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append((y, leaf.grad, module.weight.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_both_kernels_are_one_function():
    torch.manual_seed(0)
    module = TransposedConvolution3d(4, 2, (2, 2, 1), (2, 2, 1), bias=False)
    x = torch.randn(1, 4, 3, 2, 5)
    torch.testing.assert_close(module._blocks(x), nn.ConvTranspose3d.forward(module, x), atol=1e-6, rtol=1e-5)
