import math
import re

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks import UNet, UNetAsPublished


def on_meta(spatial_dims, in_channels, out_channels):
    with torch.device("meta"):  # sizes without arithmetic
        return UNet.as_published(spatial_dims, in_channels, out_channels)


def convolutions(network):
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def test_the_2d_network_has_the_papers_23_convolutions_and_31030658_parameters():
    network = on_meta(2, 1, 2)
    assert len(convolutions(network)) == 23
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


def test_the_3d_network_has_the_papers_18_convolutions_and_19069955_parameters():
    network = on_meta(3, 3, 3)
    assert len(convolutions(network)) == 18
    # The paper counts one offset per feature map and no scale of the batch norms.
    scales = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.BatchNorm3d))
    assert sum(p.numel() for p in network.parameters()) - scales == 19_069_955


def chain(network, size):
    """(channels, size) after each double convolution, and the crops per side that the skips really get."""
    seen, crops = [], []
    for module in [*network.contracting, *(level.convolve for level in network.expanding)]:
        module.register_forward_hook(lambda m, _, out: seen.append((out.shape[1], tuple(out.shape[2:]))))
    for level in network.expanding:
        level.register_forward_hook(
            lambda m, given, out: crops.append((given[1].shape[-1] - 2 * given[0].shape[-1]) / 2)
        )
    logits = network(torch.empty(1, network.in_channels, *size, device="meta"))
    return seen, crops, tuple(logits.shape[1:])


def test_sizes_of_the_2d_network_are_the_papers():
    network = on_meta(2, 1, 2)
    seen, crops, logits = chain(network, (572, 572))
    assert [size for _, size in seen] == [(n, n) for n in (568, 280, 136, 64, 28, 52, 100, 196, 388)]
    assert [maps for maps, _ in seen] == [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    assert crops == [4, 16, 40, 88] == [level.crop for level in network.expanding]
    assert logits == (2, 388, 388)
    assert network.output_margin == (92, 92)


def test_sizes_of_the_3d_network_are_the_papers():
    network = on_meta(3, 3, 3)
    seen, crops, logits = chain(network, (132, 132, 116))
    assert [size for _, size in seen] == [
        *[(n, n, k) for n, k in zip((128, 60, 26, 9), (112, 52, 22, 7), strict=True)],
        *[(n, n, k) for n, k in zip((14, 24, 44), (10, 16, 28), strict=True)],
    ]
    assert [maps for maps, _ in seen] == [64, 128, 256, 512, 256, 128, 64]
    assert crops == [4, 16, 40]
    assert logits == (3, 44, 44, 28)
    assert network.output_margin == (44, 44, 44)
    doubled = [(m.in_channels, m.out_channels) for stage in network.contracting for m in convolutions(stage)]
    assert doubled == [(3, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    assert [(level.up.in_channels, level.up.out_channels) for level in network.expanding] == [
        (512, 512),
        (256, 256),
        (128, 128),
    ]


def size_left(n, poolings):
    """What a size is after the whole chain, None where it does not get through: straight from the figures."""
    for _ in range(poolings):
        n -= 4
        if n < 2 or n % 2:
            return None
        n //= 2
    n -= 4
    for _ in range(poolings):
        n = 2 * n - 4
    return n if n > 0 else None


@pytest.mark.parametrize(("dims", "poolings", "first", "step"), [(2, 4, 188, 16), (3, 3, 92, 8)])
def test_the_sizes_that_it_takes_are_those_that_get_through_the_chain(dims, poolings, first, step):
    network = UNetAsPublished(dims, 1, 1, features=1)
    taken = []
    for n in range(1, 400):
        left = size_left(n, poolings)
        try:
            network.check_input_size((n,) * dims)
        except ConfigError:
            assert left is None
        else:
            assert left == n - 2 * network.output_margin[0]
            taken.append(n)
    assert taken == list(range(first, 400, step))


@pytest.mark.parametrize(
    ("dims", "size", "message"),
    [
        (2, (570, 572), "570 x 572 voxels.*12 more than a multiple of 16, 188 or more.*556 x 572 or 572 x 572$"),
        (2, (100, 188), "use a patch or window of 188 x 188$"),
        (3, (132, 132, 118), "4 more than a multiple of 8, 92 or more.*132 x 132 x 116 or 132 x 132 x 124$"),
        (3, (92, 92), "2 spatial axes"),
    ],
)
def test_a_refused_size_names_the_nearest_ones(dims, size, message):
    with pytest.raises(ConfigError) as caught:
        UNetAsPublished(dims, 1, 1, features=1)(torch.zeros(1, 1, *size))
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize("dims", [2, 3])
def test_the_input_for_an_output_is_the_smallest_that_covers_it(dims):
    network = UNetAsPublished(dims, 1, 1, features=1)
    for n in range(1, 60):
        size = network.input_size_for((n,) * dims)[0]
        network.check_input_size((size,) * dims)
        left = size - 2 * network.output_margin[0]
        assert n <= left < n + 2**network.depth


@pytest.mark.parametrize(("dims", "small", "large", "step"), [(2, 188, 204, 16), (3, 92, 100, 8)])
def test_tiles_join_without_a_seam(dims, small, large, step):
    """The logits of a window are those of the whole image there: every crop is centred, nothing is padded."""
    torch.manual_seed(0)
    network = UNetAsPublished(dims, 1, 2, features=2).eval()
    x = torch.randn(1, 1, *(large,) * dims)
    with torch.no_grad():
        whole = network(x)
        for offset in (0, step):
            window = (..., *(slice(offset, offset + small),) * dims)
            expected = whole[(..., *(slice(offset, offset + 4),) * dims)]
            torch.testing.assert_close(network(x[window]), expected, atol=1e-5, rtol=1e-4)


def test_dropout_stands_at_the_end_of_the_contracting_path_in_training_only():
    torch.manual_seed(0)
    network = UNet.as_published(2, 1, 2)
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0, 0, 0, 0.5, 0.5]
    assert {m.p for m in on_meta(3, 1, 2).modules() if isinstance(m, nn.Dropout)} == {0}
    x = torch.ones(1, 512, 8, 8)
    dropped = network.contracting[3][1](x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(network.eval().contracting[3][1](x), x)


@pytest.mark.parametrize("dims", [2, 3])
def test_initial_weights_have_the_papers_standard_deviation(dims):
    torch.manual_seed(0)
    for module in convolutions(UNetAsPublished(dims, 1, 2, features=16)):
        transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        summed = module.in_channels * (1 if transposed else math.prod(module.kernel_size))
        if module.weight.numel() > 2000:
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / summed), rel=0.1)
        assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"spatial_dims": 1}, "2 or 3"), ({"features": 0}, "features 0"), ({"dropout": 1.0}, "dropout 1.0")],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        UNetAsPublished(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2} | arguments)
