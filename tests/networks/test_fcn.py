import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.networks import FCN


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("skips", "size", "crop"), [(0, 544, 19), (1, 560, 27), (2, 568, 31)])
def test_500_pixels_give_the_published_sizes_and_crops(skips, size, crop):
    """FCN-32s, -16s and -8s of 21 classes; the offsets are those of the authors' crop layers."""
    with torch.device("meta"):
        network = FCN(2, 3, 21, skips=skips, padding="published")
        image = torch.empty(1, 3, 500, 500)
        assert network.uncropped(image).shape == (1, 21, size, size)
        assert network(image).shape == (1, 21, 500, 500)
    assert network.crop == [crop, crop]
    assert [join.ahead for join in network.joins] == [[-5, -5], [-9, -9]][:skips]


def test_parameters_are_the_published_134_million():
    """VGG-16's convolutions, fc6 and fc7, and a score of 21 classes; 2 of 3 scores and up-samplings on top for 8s."""
    vgg = sum(
        9 * into * out + out
        for into, out in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
        + [(512, 512)] * 5
    )
    fully_connected = 49 * 512 * 4096 + 4096 + 4096 * 4096 + 4096
    with torch.device("meta"):
        assert parameters(FCN(2, 3, 21, skips=0)) == vgg + fully_connected + 4096 * 21 + 21 == 134_346_581
        finer = (512 * 21 + 21) + (256 * 21 + 21) + 2 * 21 * 21 * 16
        assert parameters(FCN(2, 3, 21)) == 134_346_581 + finer


def mirrored(network: FCN, axis: int) -> FCN:
    """The same network seen in a mirror: every kernel turned round along one axis."""
    twin = FCN(network.spatial_dims, **ARGUMENTS[network.spatial_dims])
    twin.load_state_dict({name: w.flip(axis) if w.dim() > 2 else w for name, w in network.state_dict().items()})
    return twin.eval()


ARGUMENTS = {
    2: {"in_channels": 1, "out_channels": 2, "channels": (3, 4, 5, 6), "padding": "published"},
    3: {"in_channels": 1, "out_channels": 2, "channels": (3, 4, 5, 6), "strides": [1, 2, [2, 2, 1], [3, 2, 2]]},
}


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (10, 18)), (3, (24, 16, 8))])
def test_scores_lie_where_their_voxels_do(spatial_dims, size):
    """A mirrored network makes the mirrored scores of a mirrored image, if no crop is off by a voxel.

    The sizes are such that pooling needs no rounding up, which only happens on one side: 10 + 2 * 99 = 8 * 26.
    """
    torch.manual_seed(0)
    network = FCN(spatial_dims, **ARGUMENTS[spatial_dims]).eval()
    for join in network.joins:  # up-sampling that is no more symmetric than the rest
        torch.nn.init.normal_(join.up.weight, std=0.3)
    x = torch.randn(1, 1, *size)
    for axis in range(2, 2 + spatial_dims):
        mirror = mirrored(network, axis)(x.flip(axis)).flip(axis)
        torch.testing.assert_close(mirror, network(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padding", ["same", "published"])
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 8)])
def test_any_size_is_taken(padding, size):
    network = FCN(2, 1, 3, channels=(2, 2, 2, 4), padding=padding, dropout=0.0)
    assert network(torch.zeros(1, 1, *size)).shape == (1, 3, *size)


def test_each_skip_adds_its_scores():
    torch.manual_seed(0)
    network = FCN(2, 1, 2, channels=(4, 4, 4, 4)).eval()
    x = torch.randn(1, 1, 16, 24)
    with torch.no_grad():
        before = network(x)
        for join in network.joins:
            join.score.bias += torch.tensor([1.0, -2.0])
        # Far from the border, where interpolation of a constant is that constant: one for each of the two skips.
        change = (network(x) - before)[0, :, 8, 8]
    torch.testing.assert_close(change, torch.tensor([2.0, -4.0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skips": 3}, "0 to 2"),
        ({"padding": "valid"}, "'same' or 'published'"),
        ({"norm": "layer"}, "norm 'layer'"),
        ({"strides": [2, 2, 2, 2]}, "first level"),
        ({"spatial_dims": 1}, "2 or 3"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        FCN(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (2, 2, 2, 2)} | arguments)
    assert message in str(caught.value)


def test_one_voxel_at_the_deepest_level_is_refused_where_a_norm_needs_more():
    network = FCN(2, 1, 2, channels=(2, 2, 2, 2), norm="instance")
    with pytest.raises(ConfigError, match="16 x 16"):
        network(torch.zeros(1, 1, 8, 5))
    assert network(torch.zeros(1, 1, 9, 5)).shape == (1, 2, 9, 5)


def test_a_kernel_that_the_published_padding_does_not_make_up_for_is_refused():
    FCN(2, 1, 2, channels=[2] * 6, skips=0, padding="published", kernel_sizes=[3] * 5 + [7])
    with pytest.raises(ConfigError, match=r"a deepest kernel of .*9"):
        FCN(2, 1, 2, channels=[2] * 6, skips=0, padding="published", kernel_sizes=[3] * 5 + [9])
