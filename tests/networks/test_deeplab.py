import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError
from pipeline.networks import DeepLabV3Plus
from pipeline.networks.aspp import ASPP, rates_of_one_reach

SMALL = {"channels": (8, 16, 16, 16), "strides": (1, 2, 2, 2), "blocks_per_stage": 1, "pyramid_channels": 8}


def test_output_stride_and_rates_are_the_published_ones():
    """Chen 2018, section 4: rates 6, 12 and 18 at output stride 16, doubled at 8."""
    with torch.device("meta"):
        sixteen, eight = (DeepLabV3Plus(2, 3, 21, atrous_levels=n) for n in (1, 2))
        assert sixteen(torch.empty(2, 3, 513, 513)).shape == (2, 21, 513, 513)
        deepest = sixteen.encoder(torch.empty(1, 3, 513, 513))
    assert (sixteen.total_stride, eight.total_stride) == ((16, 16), (8, 8))
    assert sixteen.rates == [(6, 6), (12, 12), (18, 18)]
    assert eight.rates == [(12, 12), (24, 24), (36, 36)]
    assert [x.shape[2] for x in deepest] == [257, 129, 65, 33, 33]


def test_parameters_are_those_of_its_parts():
    """ResNet-101 without its classifier; the pyramid, the decoder and the head by hand, a norm two per map."""
    pyramid = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256 + 6 * 512
    decoder = (256 * 48 + 96) + 9 * (256 + 48) * 256 + 512 + 9 * 256 * 256 + 512 + 256 * 21 + 21
    with torch.device("meta"):
        network = DeepLabV3Plus(2, 3, 21)
    assert sum(p.numel() for p in network.parameters()) == 42_500_160 + pyramid + decoder


@pytest.mark.parametrize("rates", [(1, 3), ([2, 1], [3, 2])])
def test_an_atrous_branch_is_a_convolution_with_a_kernel_that_has_holes(rates):
    torch.manual_seed(0)
    pyramid = ASPP(2, 3, 4, rates, norm="instance").double().eval()
    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    for rate, branch in zip(rates, pyramid.branches[1:], strict=True):
        down, right = (rate, rate) if isinstance(rate, int) else rate
        holes = torch.zeros(4, 3, 2 * down + 1, 2 * right + 1, dtype=torch.float64)
        holes[:, :, ::down, ::right] = branch[0].weight
        torch.testing.assert_close(branch[0](x), F.conv2d(x, holes, padding=(down, right)))


def test_the_mean_of_the_whole_map_reaches_every_voxel():
    torch.manual_seed(0)
    pyramid = ASPP(3, 2, 4, rates=[1], norm="group").eval()
    x = torch.randn(1, 2, 12, 12, 6, requires_grad=True)
    pyramid.mean(x.mean((2, 3, 4), keepdim=True)).sum().backward()
    torch.testing.assert_close(x.grad, x.grad[:, :, :1, :1, :1].expand_as(x))
    far = pyramid(x)
    with torch.no_grad():
        x[0, :, 11, 11, 5] += 100.0
    assert (pyramid(x) - far)[0, :, 0, 0, 0].abs().max() > 1e-3


def test_rates_reach_equally_far_in_mm():
    assert rates_of_one_reach((6, 12, 18), (1.0, 1.0, 5.0), (16, 16, 16)) == [(6, 6, 1), (12, 12, 2), (18, 18, 4)]
    network = DeepLabV3Plus(3, 1, 2, spacing_mm=(1.0, 1.0, 3.0), rates=(2, 6), **SMALL)
    assert network.rates == [(2, 2, 1), (6, 6, 2)]


def test_separable_convolutions_are_fewer_parameters():
    whole = DeepLabV3Plus(2, 1, 2, **SMALL)
    apart = DeepLabV3Plus(2, 1, 2, separable=True, **SMALL)
    # 16 * 8 * 9 becomes 16 * 9 + 16 * 8 on three branches; likewise 56 -> 8 and 8 -> 8 in the decoder.
    spared = 3 * (1152 - 272) + (56 * 72 - 56 * 17) + (8 * 72 - 8 * 17)
    assert sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in apart.parameters()) == spared
    assert apart.eval()(torch.zeros(1, 1, 19, 16)).shape == (1, 2, 19, 16)


def test_batch_norm_does_not_train_on_one_sample():
    network = DeepLabV3Plus(2, 1, 2, **SMALL)
    with pytest.raises(ConfigError, match="batch_size=2"):
        network(torch.zeros(1, 1, 16, 16))
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 2, 16, 16)
    assert network.eval()(torch.zeros(1, 1, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rates": [0]}, "a number above 0"),
        ({"rates": [[1, 2, 3]]}, "or 2 of them"),
        ({"rates": [[1, 2]], "spacing_mm": [1.0, 1.0]}, "one number each"),
        ({"spacing_mm": [1.0]}, "2 lengths"),
        ({"spacing_mm": [1.0, -1.0]}, "lengths above 0"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        DeepLabV3Plus(2, 1, 2, **SMALL | arguments)
    assert message in str(caught.value)
