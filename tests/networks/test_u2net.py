import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.networks import U2Net
from pipeline.networks.u2net import RSU

# Table 1, and what the authors' code counts: a bias in each convolution, which batch norm takes away again.
PUBLISHED = {"full": (44_009_869, 176.3), "small": (1_131_181, 4.7)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_and_megabytes_are_the_published_ones(variant):
    with torch.device("meta"):
        network = U2Net(2, 3, 1) if variant == "full" else U2Net.small(2, 3, 1)
    parameters, megabytes = PUBLISHED[variant]
    biases = sum(m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.bias is None)
    assert sum(p.numel() for p in network.parameters()) + biases == parameters
    stored = sum(t.numel() * t.element_size() for t in network.state_dict().values()) + 4 * biases
    # The file of the paper also holds the names of some 700 tensors.
    assert 0 < megabytes - stored / 1e6 < 0.2


def test_every_block_goes_down_to_the_deepest_grid():
    """RSU-7, -6, -5, -4, then dilated; in 3D likewise, with the strides of the levels."""
    seen = []

    def layers_of(block, arguments, _):
        grids = []
        handles = [d.register_forward_hook(lambda m, i, o: grids.append(tuple(o.shape[2:]))) for d in block.down]
        seen.append((tuple(arguments[0].shape[2:]), grids))
        return handles

    with torch.device("meta"):
        network = U2Net(3, 1, 2, channels=(4,) * 5, strides=[1, [2, 2, 1], 2, 2, 2]).eval()
        for block in network.modules():
            if isinstance(block, RSU):
                block.register_forward_pre_hook(lambda block, arguments: layers_of(block, arguments, None) and None)
        network(torch.empty(1, 1, 32, 48, 16))
    levels = [(32, 48, 16), (16, 24, 16), (8, 12, 8), (4, 6, 4), (2, 3, 2)]
    order = [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert [size for size, _ in seen] == [levels[i] for i in order]
    for i, (_, grids) in zip(order, seen, strict=True):
        if i >= 3:  # RSU-4F
            assert grids == [levels[i]] * 4
        else:  # all levels below, and once more the deepest
            assert grids == [*levels[i:], levels[-1]]


def test_dilations_are_the_papers():
    network = U2Net.small(2, 3, 1)
    for block in network.encoder[4:]:
        rates = [layer[1][0].dilation[0] for layer in block[1].down]
        assert rates == [1, 2, 4, 8]
        assert [layer[0].dilation[0] for layer in block[1].up] == [4, 2, 1]
    heights = [len(block[1].down) for block in network.encoder]
    assert heights == [7, 6, 5, 4, 4, 4]
    assert [block[1].down[-1][1][0].dilation[0] for block in network.encoder[:4]] == [2] * 4


def test_training_returns_the_fusion_and_six_sides_of_full_size_and_eval_the_fusion():
    torch.manual_seed(0)
    network = U2Net(2, 1, 2, channels=(4,) * 6, norm="group")  # eval and training compute the same
    x = torch.randn(2, 1, 45, 64)
    fused, *sides = network(x)
    assert [tuple(side.shape) for side in [fused, *sides]] == [(2, 2, 45, 64)] * 7
    torch.testing.assert_close(network.fuse(torch.cat(sides, dim=1)), fused)
    assert torch.equal(network.eval()(x), fused)


def test_a_block_is_residual():
    block = RSU([(3, 3)] * 3, [(1, 1), (2, 2), (1, 1)], [(1, 1)] * 3, 2, 3, 4, "instance", "relu").eval()
    x = torch.randn(1, 2, 8, 9)
    for p in block.up[-1].parameters():
        torch.nn.init.zeros_(p)
    torch.testing.assert_close(block(x), block.first(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner_channels": [4, 4]}, "3 of them"),
        ({"decoder_inner_channels": 0}, "above 0"),
        ({"channels": [4]}, "two levels"),
        ({"activation": "gelu"}, "activation 'gelu'"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        U2Net(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (4, 4, 4)} | arguments)
    assert message in str(caught.value)
