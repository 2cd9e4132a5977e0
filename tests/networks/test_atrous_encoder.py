import pytest
import torch
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBottleneck

from pipeline.errors import ConfigError
from pipeline.networks.atrous_encoder import AtrousEncoder

CHANNELS, BLOCKS = (4, 16, 32, 48, 64), (2, 1, 2, 2)


def random_norms(network: torch.nn.Module) -> None:
    """At their initial values, running statistics and scales would not show if they were mixed up."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean)


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (64, 75)), (3, (64, 41, 33))])
def test_without_atrous_levels_it_is_monais_resnet(spatial_dims, size):
    torch.manual_seed(0)
    planes = [4, 8, 12, 16]  # a block gives four times as many
    peer = ResNet(ResNetBottleneck, BLOCKS, planes, spatial_dims, 2, conv1_t_stride=2, bias_downsample=False).eval()
    random_norms(peer)
    ours = AtrousEncoder(spatial_dims, 2, CHANNELS, blocks_per_stage=BLOCKS, atrous_levels=0).eval()
    theirs = [value for name, value in peer.state_dict().items() if not name.startswith("fc.")]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs, strict=True)))  # in the same order
    x = torch.randn(1, 2, *size)
    expected = peer.maxpool(peer.act(peer.bn1(peer.conv1(x))))
    got = ours(x)
    for i, layer in enumerate((peer.layer1, peer.layer2, peer.layer3, peer.layer4), start=1):
        expected = layer(expected)
        torch.testing.assert_close(got[i], expected, atol=1e-4, rtol=1e-4)


def test_resnet_101_has_its_parameters():
    """44,549,160 with the classifier of ImageNet, 2048 * 1000 + 1000."""
    with torch.device("meta"):
        network = AtrousEncoder(2, 3)
    assert sum(p.numel() for p in network.parameters()) == 44_549_160 - 2_049_000


@pytest.mark.parametrize("atrous_levels", [1, 2, 3])
@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (48, 65)), (3, (33, 32, 17))])
def test_atrous_levels_compute_the_same_at_the_voxels_that_a_stride_keeps(spatial_dims, size, atrous_levels):
    """The definition of the atrous algorithm (Chen 2017, section 3.1), exact to the border."""
    torch.manual_seed(0)
    strides = [2, 2, 2, 2, [2, 3, 1][:spatial_dims]]
    arguments = {"channels": CHANNELS, "strides": strides, "blocks_per_stage": BLOCKS}
    strided = AtrousEncoder(spatial_dims, 1, atrous_levels=0, **arguments).eval()
    random_norms(strided)
    atrous = AtrousEncoder(spatial_dims, 1, atrous_levels=atrous_levels, **arguments).eval()
    atrous.load_state_dict(strided.state_dict())
    x = torch.randn(1, 1, *size)
    for level, (coarse, fine) in enumerate(zip(strided(x), atrous(x), strict=True)):
        kept = zip(strided.strides[level], atrous.strides[level], strict=True)
        every = (slice(None), slice(None), *(slice(None, None, c // f) for c, f in kept))
        torch.testing.assert_close(fine[every], coarse, atol=1e-4, rtol=1e-4)


def test_output_strides_are_the_published_ones():
    with torch.device("meta"):
        grids = {n: AtrousEncoder(2, 3, atrous_levels=n).strides for n in (0, 1, 2)}
    assert {n: grid[-1] for n, grid in grids.items()} == {0: (32, 32), 1: (16, 16), 2: (8, 8)}
    assert grids[1] == ((2, 2), (4, 4), (8, 8), (16, 16), (16, 16))


def test_the_multi_grid_multiplies_the_dilation_of_the_last_levels_blocks():
    network = AtrousEncoder(2, 1, CHANNELS, blocks_per_stage=3, atrous_levels=1, dilations=(1, 2, 4))
    assert [block.residual[3].dilation for block in network.levels[-1]] == [(1, 1), (4, 4), (8, 8)]
    assert {block.residual[3].dilation for block in network.levels[3]} == {(1, 1)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "2 or 3"),
        ({"channels": (4, 6)}, "multiples of 4"),
        ({"channels": (4,)}, "two levels"),
        ({"blocks_per_stage": (1, 2)}, "4: one per level but the first"),
        ({"atrous_levels": 4}, "0 to 3"),
        ({"kernel_sizes": [7, 3, 3, 2, 3]}, "odd"),
        ({"dilations": ()}, "one number above 0"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        AtrousEncoder(**{"spatial_dims": 2, "in_channels": 1, "channels": CHANNELS, "blocks_per_stage": 1} | arguments)
    assert message in str(caught.value)
