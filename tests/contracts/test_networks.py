"""What every network promises. A new one is listed once, in MEMBERS."""

import io
import re

import pytest
import torch
from monai.data import MetaTensor

from pipeline import networks
from pipeline.errors import ConfigError
from pipeline.networks import (
    FCN,
    DeepLabV3Plus,
    MultiEncoderUNet,
    PSPNet,
    SegNet,
    U2Net,
    UNet,
    UNet3Plus,
    UNetAsPublished,
    UNetPlusPlus,
)


def unet(spatial_dims, in_channels, out_channels):
    return UNet(spatial_dims, in_channels, out_channels, channels=(4, 8, 16))


def unet_as_published(spatial_dims, in_channels, out_channels):
    features, depth = (8, 2) if spatial_dims == 2 else (4, 1)
    return UNetAsPublished(spatial_dims, in_channels, out_channels, features, depth, dropout=0.0)


def unet_plus_plus(spatial_dims, in_channels, out_channels):
    return UNetPlusPlus(spatial_dims, in_channels, out_channels, channels=(4, 8, 16))


def unet_3plus(spatial_dims, in_channels, out_channels):
    return UNet3Plus(spatial_dims, in_channels, out_channels, channels=(4, 8, 16))


def multi_encoder_unet(spatial_dims, in_channels, out_channels):
    return MultiEncoderUNet(spatial_dims, in_channels, out_channels, channels=(4, 8, 16), modality_dropout=0.0)


def fcn(spatial_dims, in_channels, out_channels):
    return FCN(spatial_dims, in_channels, out_channels, channels=(4, 8, 16), skips=1, dropout=0.0)


def deeplab_v3_plus(spatial_dims, in_channels, out_channels):
    return DeepLabV3Plus(
        spatial_dims,
        in_channels,
        out_channels,
        channels=(8, 16, 16, 16),
        strides=(1, 2, 2, 2),
        blocks_per_stage=1,
        rates=(1, 2),
        pyramid_channels=8,
        skip_channels=8,
        norm="instance",
    )


def u2net(spatial_dims, in_channels, out_channels):
    return U2Net(spatial_dims, in_channels, out_channels, channels=(8, 8), norm="instance")


def segnet(spatial_dims, in_channels, out_channels):
    return SegNet(spatial_dims, in_channels, out_channels, channels=(8, 16), norm="instance")


def pspnet(spatial_dims, in_channels, out_channels):
    return PSPNet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=(8, 16, 16),
        strides=(1, 2, 2),
        blocks_per_stage=1,
        atrous_levels=1,
        head_channels=16,
        norm="instance",
        dropout=0.0,
        activation="leaky_relu",  # without a norm, all of a grid's few maps may be below 0
    )


# Each builds a small network without dropout; the sizes are an anisotropic input that it takes, by spatial_dims.
MEMBERS = {
    "DeepLabV3Plus": (deeplab_v3_plus, {2: (12, 16), 3: (12, 8, 16)}),
    "FCN": (fcn, {2: (12, 16), 3: (12, 8, 16)}),
    "MultiEncoderUNet": (multi_encoder_unet, {2: (12, 16), 3: (12, 8, 16)}),
    "PSPNet": (pspnet, {2: (12, 16), 3: (12, 8, 16)}),
    "SegNet": (segnet, {2: (12, 16), 3: (12, 8, 16)}),
    "U2Net": (u2net, {2: (12, 16), 3: (12, 8, 16)}),
    "UNet": (unet, {2: (12, 16), 3: (12, 8, 16)}),
    "UNet3Plus": (unet_3plus, {2: (12, 16), 3: (12, 8, 16)}),
    "UNetPlusPlus": (unet_plus_plus, {2: (12, 16), 3: (12, 8, 16)}),
    "UNetAsPublished": (unet_as_published, {2: (52, 56), 3: (28, 24, 26)}),
}


@pytest.fixture(params=[(name, dims) for name in MEMBERS for dims in (2, 3)], ids=lambda p: f"{p[0]}-{p[1]}d")
def member(request):
    name, dims = request.param
    build, sizes = MEMBERS[name]
    torch.manual_seed(0)
    network, x = build(dims, 2, 3), torch.randn(2, 2, *sizes[dims])
    return network, x


def channels_last(tensor_or_network, dims):
    return tensor_or_network.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)


def output_size(network, size):
    """A padded network keeps the size; an unpadded one loses its margin on each side."""
    margin = getattr(network, "output_margin", (0,) * len(size))
    return tuple(n - 2 * m for n, m in zip(size, margin, strict=True))


def sizes_to_use(refusal):
    """What a refusal names: "use a patch or window of 8 x 8 x 4 or 12 x 8 x 4"."""
    named = re.search(r"use a patch or window of (.*)", str(refusal)).group(1)
    return [tuple(map(int, re.findall(r"\d+", choice))) for choice in named.split(" or ")]


def full_resolution(logits):
    return logits[0] if isinstance(logits, list) else logits


def test_every_public_network_is_listed():
    assert set(MEMBERS) == set(networks.__all__)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_built_from_three_numbers(name, dims):
    with torch.device("meta"):  # shapes without arithmetic: the networks have their full width here
        network = getattr(networks, name)(spatial_dims=dims, in_channels=2, out_channels=3).eval()
        size = (64,) * dims
        try:
            logits = network(torch.empty(1, 2, *size))
        except ConfigError as refusal:
            size = sizes_to_use(refusal)[-1]
            logits = network(torch.empty(1, 2, *size))
    assert logits.shape == (1, 3, *output_size(network, size))


@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 2), (4, 1)])
@pytest.mark.parametrize("name", MEMBERS)
def test_it_takes_any_channels_and_gives_any_classes(name, in_channels, out_channels):
    build, sizes = MEMBERS[name]
    network = build(2, in_channels, out_channels).eval()
    assert network(torch.zeros(1, in_channels, *sizes[2])).shape == (1, out_channels, *output_size(network, sizes[2]))


def test_eval_returns_one_tensor_of_the_inputs_size(member):
    network, x = member
    logits = network.eval()(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3, *output_size(network, x.shape[2:]))
    torch.testing.assert_close(network(x[:1]), logits[:1], atol=1e-5, rtol=1e-4)  # no sample leaks into another


def test_a_size_that_it_cannot_take_is_refused_with_sizes_that_it_can(member):
    network, x = member
    network.eval()
    for axis in range(x.dim() - 2):
        size = [n + (i == axis) for i, n in enumerate(x.shape[2:])]
        try:
            logits = network(torch.zeros(1, 2, *size))
        except ConfigError as refusal:
            for named in sizes_to_use(refusal):
                assert network(torch.zeros(1, 2, *named)).shape == (1, 3, *output_size(network, named))
        else:
            assert logits.shape == (1, 3, *output_size(network, size))


def test_training_returns_levels_from_fine_to_coarse_and_every_parameter_learns(member):
    network, x = member
    logits = network.train()(x)
    levels = logits if isinstance(logits, list) else [logits]
    assert tuple(levels[0].shape) == (2, 3, *output_size(network, x.shape[2:]))
    sizes = [level[0, 0].numel() for level in levels]
    assert sizes == sorted(sizes, reverse=True)
    assert all(level.shape[1] == 3 for level in levels)
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_state_dict_loads_with_weights_only(member):
    network, x = member
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    expected = network.eval()(x)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    file.seek(0)
    network.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(network(x), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_returns_one_tensor_in_both_modes(member):
    network, x = member
    for mode in (True, False):
        scripted = torch.jit.script(network.train(mode))
        assert isinstance(scripted(x), torch.Tensor)
    torch.testing.assert_close(scripted(x), network(x), atol=1e-5, rtol=1e-5)


def test_compiles_without_graph_breaks(member):
    """Traced whole and run as it was traced (backend "eager"): what a generator of code would make of it is torch's."""
    network, x = member
    if x.dim() == 5:  # one layout per number of dimensions: the layouts differ in the norm, which has no dimensions
        network, x = channels_last(network, 3), channels_last(x, 3)
    for mode in (True, False):
        compiled = torch.compile(network.train(mode), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), network(x))
    torch.compiler.reset()


def test_channels_last_is_the_same_function_and_gradient(member):
    """In float64: in float32 a sum in another order can put an activation on the other side of a ReLU's zero, and on
    some processors a layer's kernel is at fault (see `pipeline.engines.precision`)."""
    network, x = member
    network, x, dims = network.double(), x.double(), x.dim() - 2

    def run(x):
        network.train().zero_grad()
        logits = network(x)
        levels = logits if isinstance(logits, list) else [logits]
        sum((level * level.detach().cos()).mean() for level in levels).backward()
        return [*levels, *(p.grad.clone() for p in network.parameters())]

    expected = run(x)
    channels_last(network, dims)
    found = run(channels_last(x, dims))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.contiguous(), want, atol=1e-8, rtol=1e-6)


def test_a_metatensor_trains_as_a_plain_tensor_does(member):
    network, x = member
    network, x = channels_last(network.double().train(), x.dim() - 2), channels_last(x.double(), x.dim() - 2)
    gradients = []
    for image in (x, MetaTensor(x)):
        network.zero_grad()
        logits = network(image)
        sum(level.square().mean() for level in (logits if isinstance(logits, list) else [logits])).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-5)


def test_bfloat16_autocast_is_within_tolerance(member):
    network, x = member
    expected = network.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x).float()
    # Rounded, two voxels of a window may tie, and SegNet's indices name the other one.
    tolerance = 0.2 if isinstance(network, SegNet) else 0.03
    assert (logits - expected).abs().mean() < tolerance * expected.std()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_onnx_gives_the_same_logits(member, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network, x = member
    expected = network.eval()(x).detach()
    torch.onnx.export(network, (x,), str(tmp_path / "network.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_it_overfits_one_case(member):
    """Two classes of which one is a thin shell: every level must learn, up to a Dice of 0.95 each."""
    network, x = member
    x = x[:1]
    size = output_size(network, x.shape[2:])
    axes = [torch.linspace(-1, 1, n) for n in size]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    target = torch.where(radius < 0.5, 1, torch.where(radius < 0.85, 2, 0))[None]
    # Channel 0 shows the classes, within the margin of an unpadded network; channel 1 shows nothing.
    shown = torch.zeros_like(x)
    middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(x.shape[2:], size, strict=True))
    shown[(0, 0, *middle)] = target[0] * 0.5
    image = shown + 0.3 * x
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    worst = torch.tensor(0.0)
    for step in range(1, 401):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(full_resolution(network.train()(image)), target).backward()
        optimiser.step()
        if step % 20 == 0:
            with torch.no_grad():
                prediction = network.eval()(image).argmax(1)
            pairs = [(prediction == k, target == k) for k in (1, 2)]
            worst = min(2 * (p & g).sum() / (p.sum() + g.sum()) for p, g in pairs)
            if worst >= 0.95:
                break
    assert worst >= 0.95


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DeepLabV3Plus(2, 1, 2, rates=6), "rates 6"),
        (lambda: DeepLabV3Plus(2, 1, 2, rates=[]), r"rates \[\]"),
        (lambda: DeepLabV3Plus(3, 1, 2, pyramid_channels=0), "to 0 feature maps"),
        (lambda: DeepLabV3Plus(3, 1, 2, spacing_mm=2.4), "spacing_mm 2.4; expected a list of 3"),
        (lambda: DeepLabV3Plus(2, 1, 2, blocks_per_stage=[1, 1.5]), r"blocks_per_stage \[1, 1\.5\]"),
        (lambda: DeepLabV3Plus(2, 1, 2, atrous_levels=1.5), r"atrous_levels 1\.5"),
        (lambda: PSPNet(2, 1, 2, bins=6), "bins 6"),
        (lambda: PSPNet(2, 1, 2, bins=[1.5]), r"bins \[1\.5\]"),
        (lambda: PSPNet(2, 1, 2, pyramid_channels=0), "to 0 feature maps"),
        (lambda: SegNet(2, 1, 2, strides=2), "strides 2; expected a list of 5"),
        (lambda: UNet(2, 1, 2, channels=8), "channels 8; expected a list"),
        (lambda: UNet(2, 1, 2, channels=[4, 8.5]), r"channels \[4, 8\.5\]"),
        (lambda: UNet(2, 0, 2), "from 0 to 32 feature maps"),
        (lambda: UNet(3, 1, 0), "to 0 feature maps"),
        (lambda: UNet(2, 1, 2, dropout=1.0), r"dropout 1\.0"),
        (lambda: MultiEncoderUNet(3, 3, 2, groups=[1.5, 1.5]), r"groups \[1\.5, 1\.5\]"),
        (lambda: U2Net(2, 1, 2, inner_channels=2.5), r"inner_channels 2\.5"),
        (lambda: FCN(2, 1, 2, convolutions_per_stage=1.5), r"convolutions_per_stage 1\.5"),
    ],
)
def test_values_of_a_wrong_kind_are_refused_by_name(build, said):
    with pytest.raises(ConfigError, match=said):
        build()
