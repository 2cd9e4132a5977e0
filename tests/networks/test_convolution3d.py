"""The convolution against torch's, where torch takes oneDNN and where it does not; and what is built from it."""

import pytest
import torch
from torch import nn

from pipeline.networks.convolution3d import Convolution3d

SETTINGS = {
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": (3, 3, 1), "stride": (2, 2, 1), "padding": (1, 1, 0), "bias": False},
    "dilated, in groups": {"kernel_size": 3, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_value_and_gradients_are_torchs(name, batch, layout):
    torch.manual_seed(0)
    ours, peer = Convolution3d(4, 6, **SETTINGS[name]), nn.Conv3d(4, 6, **SETTINGS[name])
    peer.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 4, 9, 8, 7).contiguous(memory_format=layout)
    results = []
    for module in (ours, peer):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append((y, leaf.grad, *(parameter.grad for parameter in module.parameters())))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def kernels(module, x):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        module(x)
    return {event.key for event in profile.key_averages()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("size", [(1, 1, 24, 24, 24), (1, 8, 8, 8, 8), (2, 1, 8, 8, 8), (1, 60, 20, 20, 4)])
def test_no_size_is_unfolded_into_a_matrix(size):
    module, x = Convolution3d(size[1], 4, 3, padding=1).eval(), torch.randn(size)
    with torch.no_grad():
        ours, torchs = kernels(module, x), kernels(lambda x: nn.Conv3d.forward(module, x), x)
    assert "aten::mkldnn_convolution" in ours
    assert not any("slow_conv3d" in name for name in ours)
    small = size[0] == 1 and size[1] * size[2] * size[3] <= 20480
    assert any("slow_conv3d" in name for name in torchs) == small  # else this class is not needed any more


def test_autocast_casts_it():
    module, x = Convolution3d(1, 4, 3).eval(), torch.randn(1, 1, 5, 5, 5)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = module(x)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), module(x), atol=0.05, rtol=0)


def test_scripted_traced_and_exported_it_is_the_convolution():
    module, x = Convolution3d(1, 4, 3).eval(), torch.randn(1, 1, 5, 6, 7)
    for made in (torch.jit.script(module), torch.jit.trace(module, x), torch.export.export(module, (x,)).module()):
        torch.testing.assert_close(made(x), module(x), atol=1e-6, rtol=1e-5)
    nodes = torch.export.export(module, (x,)).graph.nodes
    assert torch.ops.aten.conv3d.default in {node.target for node in nodes}
