"""What every network promises. A new one is listed once, in MEMBERS."""

import io

import pytest
import torch

from pipeline import networks
from pipeline.networks import UNet


def unet(spatial_dims, in_channels, out_channels, **options):
    return UNet(spatial_dims, in_channels, out_channels, channels=(4, 8, 16), **options)


# Each builds a small network; `size` is an anisotropic input that it takes, by spatial_dims.
MEMBERS = {
    "UNet": (unet, {2: (12, 16), 3: (12, 8, 16)}),
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


def test_every_public_network_is_listed():
    assert set(MEMBERS) == set(networks.__all__)


@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_built_from_three_numbers(name):
    network = getattr(networks, name)(spatial_dims=3, in_channels=2, out_channels=3)
    assert network(torch.zeros(1, 2, 16, 16, 16))[0].shape == (1, 3, 16, 16, 16)


def test_eval_returns_one_tensor_of_the_inputs_size(member):
    network, x = member
    logits = network.eval()(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3, *x.shape[2:])
    torch.testing.assert_close(network(x[:1]), logits[:1], atol=1e-5, rtol=1e-4)  # no sample leaks into another


def test_training_returns_levels_from_fine_to_coarse_and_every_parameter_learns(member):
    network, x = member
    levels = network.train()(x)
    assert isinstance(levels, list)
    sizes = [level[0, 0].numel() for level in levels]
    assert tuple(levels[0].shape) == (2, 3, *x.shape[2:])
    assert sizes == sorted(sizes, reverse=True)
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


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_compiles_without_graph_breaks(member, last):
    network, x = member
    if last:
        network, x = channels_last(network, x.dim() - 2), channels_last(x, x.dim() - 2)
    for mode in (True, False):
        compiled = torch.compile(network.train(mode), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), network(x))
    torch.compiler.reset()


def test_channels_last_is_the_same_function_and_gradient(member):
    network, x = member
    dims = x.dim() - 2

    def run(x):
        network.train().zero_grad()
        levels = network(x)
        sum((level * level.detach().cos()).mean() for level in levels).backward()
        return [*levels, *(p.grad.clone() for p in network.parameters())]

    expected = run(x)
    channels_last(network, dims)
    for got, want in zip(run(channels_last(x, dims)), expected, strict=True):
        torch.testing.assert_close(got.contiguous(), want, atol=1e-4, rtol=1e-3)


def test_bfloat16_autocast_is_within_tolerance(member):
    network, x = member
    expected = network.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x).float()
    assert (logits - expected).abs().mean() < 0.03 * expected.std()


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
    axes = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    target = torch.where(radius < 0.5, 1, torch.where(radius < 0.85, 2, 0))[None]
    image = torch.stack([target.float(), torch.randn_like(target.float())], dim=1) * 0.5 + 0.3 * x
    optimiser = torch.optim.Adam(network.train().parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(image)[0], target).backward()
        optimiser.step()
    prediction = network.eval()(image).argmax(1)
    for k in (1, 2):
        p, g = prediction == k, target == k
        assert 2 * (p & g).sum() / (p.sum() + g.sum()) >= 0.95
