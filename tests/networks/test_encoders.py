import pytest
import torch
from monai.networks.nets.resnet import ResNetBlock

from pipeline.errors import ConfigError
from pipeline.networks.blocks import ConvNormAct
from pipeline.networks.encoders import ENCODERS, ResidualBlock, make_encoder
from pipeline.networks.resampling import DOWNSAMPLING


def build(kind, downsampling="strided_convolution", dims=3, **options):
    torch.manual_seed(0)
    thick = [[3] * (dims - 1) + [1], [3] * dims, [3] * dims, [3] * dims]
    steps = [[1] * dims, [2] * (dims - 1) + [1], [2] * dims, [1] * dims]
    return make_encoder(kind, dims, 2, (4, 6, 8, 8), thick, steps, downsampling=downsampling, **options)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("downsampling", DOWNSAMPLING)
@pytest.mark.parametrize("kind", ENCODERS)
def test_stages_give_the_channels_and_sizes_of_their_levels_and_learn(kind, downsampling, dims):
    x = torch.randn(2, 2, *((8, 8) if dims == 2 else (8, 12, 4)))
    sizes = [(8, 8), (4, 8), (2, 4), (2, 4)] if dims == 2 else [(8, 12, 4), (4, 6, 4), (2, 3, 2), (2, 3, 2)]
    stages = build(kind, downsampling, dims)
    features = []
    for stage in stages:
        x = stage(x)
        features.append(x)
    assert [tuple(f.shape) for f in features] == [(2, c, *s) for c, s in zip((4, 6, 8, 8), sizes, strict=True)]
    sum((f * f.detach().cos()).sum() for f in features).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stages.parameters())


def counted(stages):
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
    return [sum(isinstance(m, kinds) and max(m.kernel_size) == 3 for m in stage.modules()) for stage in stages]


def test_convolutions_per_level():
    assert counted(build("plain")) == [2, 2, 2, 2]
    assert counted(build("plain", convolutions_per_stage=3)) == [3, 3, 3, 3]
    assert counted(build("vgg")) == [2, 2, 3, 3]
    assert counted(build("residual", convolutions_per_stage=4)) == [4, 4, 4, 4]
    assert counted(build("dense", "max_pool", convolutions_per_stage=3)) == [3, 3, 3, 3]


def test_dense_layers_see_all_before_them():
    stage = make_encoder("dense", 2, 3, (8,), [(3, 3)], [(1, 1)], convolutions_per_stage=4)[0]
    # Four layers that grow by 8 / 4, on 3 channels; the sum-up sees the input and all of them.
    assert [layer.conv.in_channels for layer in stage.layers] == [3, 5, 7, 9]
    assert [layer.conv.out_channels for layer in stage.layers] == [2, 2, 2, 2]
    assert (stage.join.conv.in_channels, stage.join.conv.out_channels) == (11, 8)


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block_is_monais_with_the_same_weights(stride):
    torch.manual_seed(0)
    ours = ResidualBlock(3, 4, 6, (3,) * 3, (stride,) * 3, "batch", 0.0, "relu").eval()
    for name, parameter in ours.named_parameters():
        if "norm" in name or name in ("second.1.weight", "second.1.bias", "shortcut.1.weight", "shortcut.1.bias"):
            torch.nn.init.normal_(parameter)
    shortcut = torch.nn.Sequential(torch.nn.Conv3d(4, 6, 1, stride, bias=False), torch.nn.BatchNorm3d(6))
    peer = ResNetBlock(4, 6, spatial_dims=3, stride=stride, downsample=shortcut).eval()
    names = {"first.conv": "conv1", "first.norm": "bn1", "second.0": "conv2", "second.1": "bn2"}
    names |= {"shortcut.0": "downsample.0", "shortcut.1": "downsample.1"}
    state = {}
    for key, value in ours.state_dict().items():
        name, kind = key.rsplit(".", 1)
        state[f"{names[name]}.{kind}"] = value
    peer.load_state_dict(state)
    x = torch.randn(2, 4, 6, 4, 8)
    torch.testing.assert_close(ours(x), peer(x), atol=1e-5, rtol=1e-5)


def test_a_block_that_changes_nothing_has_an_identity_as_shortcut():
    assert isinstance(ResidualBlock(2, 4, 4, (3, 3), (1, 1), "batch", 0.0, "relu").shortcut, torch.nn.Identity)


def test_group_norm_and_relu_reach_every_convolution():
    for kind in ENCODERS:
        stages = build(kind, norm="group", activation="relu")
        blocks = [m for m in stages.modules() if isinstance(m, ConvNormAct)]
        assert blocks
        assert all(isinstance(b.norm, torch.nn.GroupNorm) and isinstance(b.act, torch.nn.ReLU) for b in blocks)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("swin", {}, "plain, vgg, residual, dense"),
        ("residual", {"convolutions_per_stage": 3}, "two for each residual block"),
        ("plain", {"convolutions_per_stage": 0}, "1 or more"),
        ("plain", {"downsampling": "average"}, "max_pool"),
        ("plain", {"activation": "gelu"}, "'leaky_relu' or 'relu'"),
    ],
)
def test_what_is_unknown_is_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, **options)
