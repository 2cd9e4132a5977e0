import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError
from pipeline.networks import UNet3Plus
from pipeline.networks.unet_3plus import ClassificationGuide
from pipeline.networks.up_convolution import UpConvolution

SMALL = {"channels": (4, 8, 16), "norm": "instance"}


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_count_is_the_published_one():
    """26.97 M (table 1): with a bias for each scale of a norm, as the authors have it: none has any effect."""
    network = UNet3Plus(2, 3, 1, deep_supervision=False)
    biases = sum(module.num_features for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert parameters(network) + biases == 26_971_777


def test_decoder_has_the_parameters_of_the_papers_formula():
    """Section 2.1: 3 x 3 x [(sum of what X_De^i sees) x 64 + (5 x 64)^2] for each level of the decoder."""
    network = UNet3Plus(2, 1, 2)
    encoder, decoder = [64, 128, 256, 512, 1024], 320
    for stage, i in zip(network.decoder, (4, 3, 2, 1), strict=True):
        seen = sum(encoder[:i]) + decoder * (4 - i) + encoder[4]
        convolutions = [m for m in stage.modules() if isinstance(m, torch.nn.Conv2d)]
        assert sum(m.weight.numel() for m in convolutions) == 9 * (seen * 64 + decoder**2)


@pytest.mark.parametrize(
    ("kernel", "factor", "size"),
    [
        ((3, 3), (2, 2), (5, 7)),
        ((3, 5), (4, 1), (4, 3)),
        ((1, 3), (2, 3), (1, 1)),
        ((3, 3, 3), (2, 4, 2), (3, 4, 2)),
        ((3, 3, 1), (2, 2, 1), (3, 4, 5)),
    ],
)
def test_up_convolution_is_a_convolution_of_the_up_sampled(kernel, factor, size):
    torch.manual_seed(0)
    up = UpConvolution(len(size), 3, 4, kernel, factor)
    x = torch.randn(2, 3, *size, requires_grad=True)
    mode = "bilinear" if len(size) == 2 else "trilinear"

    def gradients(y):
        return torch.autograd.grad((y * y.detach().cos()).sum(), (x, up.conv.weight))

    expected = up.conv(F.interpolate(x, scale_factor=[float(f) for f in factor], mode=mode, align_corners=False))
    torch.testing.assert_close(up(x), expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gradients(up(x)), gradients(expected), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    ("dims", "size", "strides"), [(2, (8, 16), [1, 2, 2]), (3, (8, 8, 6), [1, [2, 2, 1], [2, 2, 2]])]
)
def test_it_is_equation_1_written_out(dims, size, strides, norm):
    """Pool or up-sample, convolve, norm and activate each skip by itself, concatenate, fuse; all as the paper says."""
    torch.manual_seed(0)
    network = UNet3Plus(dims, 2, 3, channels=(4, 8, 16), strides=strides, norm=norm)
    for module in network.modules():
        if "Norm" in type(module).__name__ and hasattr(module, "weight"):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 2, *size)
    mode = "bilinear" if dims == 2 else "trilinear"
    pool = F.max_pool2d if dims == 2 else F.max_pool3d

    def normed(y, norm_module, part):
        weight, bias = (p.view(3, -1)[part] for p in (norm_module.weight, norm_module.bias))
        axes = tuple(range(2, y.dim())) if norm == "instance" else (0, *range(2, y.dim()))
        y = (y - y.mean(axes, keepdim=True)) / (y.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return F.relu(y * weight.view(1, -1, *[1] * dims) + bias.view(1, -1, *[1] * dims))

    features = []
    y = x
    for stage in network.encoder:
        y = stage(y)
        features.append(y)
    for i, stage in zip((1, 0), network.decoder, strict=True):
        parts = []
        for k, skip in enumerate(stage.skips):
            source, fine = features[k], features[i].shape[2:]
            if k < i:
                step = [a // b for a, b in zip(source.shape[2:], fine, strict=True)]
                source = pool(source, step, step)
            elif k > i:
                source = F.interpolate(source, fine, mode=mode, align_corners=False)
            parts.append(normed(skip.conv(source), stage.norm, k))
        features[i] = stage.fuse(torch.cat(parts, dim=1))
    expected = [
        F.interpolate(head(level), size, mode=mode, align_corners=False)
        for head, level in zip(network.heads, features, strict=True)
    ]
    for mine, theirs in zip(network(x), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_eval_is_the_finest_level_and_deep_supervision_reaches_all():
    torch.manual_seed(0)
    network = UNet3Plus(2, 1, 2, classification_guided=True, **SMALL)
    network.guide.dropout.p = 0.0
    x = torch.randn(2, 1, 8, 8)
    levels = network(x)
    assert [tuple(level.shape) for level in levels] == [(2, 2, 8, 8)] * 3
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    torch.testing.assert_close(network.eval()(x), levels[0])
    plain = UNet3Plus(2, 1, 2, deep_supervision=False, **SMALL)
    assert len(plain.heads) == 1
    assert plain(x).shape == (2, 2, 8, 8)


def test_skip_channels_follow_the_first_level_or_the_argument():
    assert UNet3Plus(2, 1, 2, **SMALL).decoder[0].norm.weight.shape == (12,)
    assert UNet3Plus(2, 1, 2, skip_channels=5, **SMALL).decoder[0].norm.weight.shape == (15,)


def test_the_guide_multiplies_the_odds_of_a_class_by_its_probability_anywhere():
    guide = ClassificationGuide(2, 3).eval()
    with torch.no_grad():
        guide.presence.weight.copy_(torch.eye(2))
        guide.presence.bias.zero_()
    features = torch.full((1, 2, 4, 4), -9.0)
    features[0, 0, 1, 2] = 9.0  # one voxel is enough for the first class; nothing speaks for the second
    gate = guide(features)
    assert gate.shape == (1, 3, 1, 1)
    odds = gate.exp().flatten()
    torch.testing.assert_close(odds, torch.tensor([1.0, 0.99988, 0.000123]), atol=1e-5, rtol=1e-2)
    assert ClassificationGuide(2, 1)(torch.zeros(2, 2, 4, 4, 4)).shape == (2, 1, 1, 1, 1)


def test_the_guide_learns_from_the_segmentation_alone():
    """Heads that see class 1 everywhere, in images of which half hold none: the guide learns to hold them back."""
    torch.manual_seed(0)
    network = UNet3Plus(2, 1, 2, channels=(4, 8), classification_guided=True)
    for head in network.heads:
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([0.0, 2.0])
    x = torch.randn(8, 1, 8, 8)
    x[:4] += 3
    target = torch.zeros(8, 8, 8, dtype=torch.long)
    target[:4] = 1
    optimiser = torch.optim.Adam(network.guide.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(network(x)[0], target).backward()
        optimiser.step()
    assert torch.equal(network.eval()(x).argmax(1), target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "2 or 3"),
        ({"kernel_sizes": [3, 2, 3]}, "odd"),
        ({"activation": "gelu"}, "activation 'gelu'"),
        ({"encoder": "transformer"}, "encoder 'transformer'"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        UNet3Plus(**{"spatial_dims": 3, "in_channels": 1, "out_channels": 2} | SMALL | arguments)
    assert message in str(caught.value)


def test_one_voxel_alone_is_refused_to_a_norm_that_cannot_take_it():
    batch = UNet3Plus(2, 1, 2, channels=(4, 8, 16))
    assert batch(torch.randn(2, 1, 4, 4))[0].shape == (2, 2, 4, 4)
    with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
        batch(torch.randn(1, 1, 4, 4))
    dense = UNet3Plus(2, 1, 2, channels=(4, 8, 16), norm="group", encoder="dense").eval()
    with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
        dense(torch.randn(1, 1, 4, 4))
