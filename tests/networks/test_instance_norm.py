import pytest
import torch
from torch import nn

from pipeline.networks.instance_norm import InstanceNorm

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def pair(channels):
    torch.manual_seed(0)
    ours, peer = InstanceNorm(channels), nn.InstanceNorm3d(channels, affine=True)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(5, 4, 3), (1, 2, 1)])
def test_value_and_gradients_are_torchs(layout, size):
    ours, peer = (norm.double() for norm in pair(6))  # two voxels are too ill-conditioned for float32
    x = (3 + 2 * torch.randn(2, 6, *size).double()).contiguous(memory_format=layout)
    grad = torch.randn(2, 6, *size).double()
    results = []
    for norm in (ours, peer):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        results.append((y, leaf.grad, norm.weight.grad, norm.bias.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), peer(x), atol=1e-9, rtol=1e-7)


def test_gradients_of_the_channels_last_layout_numerically():
    norm = InstanceNorm(3).double()
    nn.init.normal_(norm.weight)
    x = (2 + torch.randn(2, 3, 4, 3, dtype=torch.float64)).contiguous(memory_format=torch.channels_last)

    def run(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), norm.weight, norm.bias))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_gradient_is_within_its_rounding(layout):
    ours, _ = pair(8)
    x = torch.randn(2, 8, 8, 8, 8).bfloat16().contiguous(memory_format=layout)
    grad = torch.randn(2, 8, 8, 8, 8).bfloat16()
    gradients = []
    for kind in (torch.bfloat16, torch.float32):
        leaf = x.to(kind).requires_grad_()
        ours(leaf).backward(grad.to(kind))
        gradients.append(leaf.grad.float())
    assert (gradients[0] - gradients[1]).abs().max() < 0.01 * gradients[1].abs().max()


def test_it_keeps_the_channels_last_layout():
    ours, _ = pair(4)
    x = torch.randn(1, 4, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    y = ours(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert x.grad.is_contiguous(memory_format=torch.channels_last_3d)
