"""Networks, losses, augmentation and inference on a GPU, each against itself on a CPU."""

import copy

import pytest
import torch
from torch import nn

from pipeline.engines.muon import orthogonal
from pipeline.engines.precision import candidates
from pipeline.inference import OverlapTileInferer, Runtime, SlidingWindowInferer
from pipeline.inference.means import half_types, torch_means
from pipeline.networks import UNet, UNetAsPublished
from pipeline.networks.instance_norm import InstanceNorm
from pipeline.planning.memory import StepSpec, account, measure
from pipeline.transforms import RandSpatialPatchd
from pipeline.transforms.batch_sampling import BatchSampler
from tests.contracts import test_losses, test_networks
from tests.inference.test_slabs import together
from tests.transforms.test_batch import PATCH, case, drawn_batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=tolerance)


def require(dtype):
    if dtype is torch.bfloat16 and "bfloat16" not in half_types(GPU):
        pytest.skip("this GPU has no bfloat16")


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(3, 2, 3, channels=(8, 16, 32)).eval()


def image(*size, seed=1):
    return torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(seed))


def test_an_orthogonal_step_with_tf32_and_without():
    matrices = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in [(32, 864), (96, 64)]]
    expected = orthogonal(matrices)
    for mine, wanted in zip(orthogonal([matrix.to(GPU) for matrix in matrices]), expected, strict=True):
        close(mine, wanted)
    torch.backends.cuda.matmul.allow_tf32 = True  # put back by conftest.py
    for mine, wanted in zip(orthogonal([matrix.to(GPU) for matrix in matrices]), expected, strict=True):
        close(mine, wanted, 0.05)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", test_networks.MEMBERS)
def test_networks_and_their_gradients(name, dims):
    """In float64, in which the order of sums moves no activation over a ReLU's zero."""
    build, sizes = test_networks.MEMBERS[name]
    torch.manual_seed(0)
    network, x = build(dims, 2, 3).double().train(), torch.randn(2, 2, *sizes[dims], dtype=torch.float64)

    def run(network, x):
        logits = network(x)
        levels = logits if isinstance(logits, list) else [logits]
        sum((level * level.detach().cos()).mean() for level in levels).backward()
        return [*levels, *(parameter.grad for parameter in network.parameters())]

    found = run(copy.deepcopy(network).to(GPU), x.to(GPU))
    for mine, expected in zip(found, run(network, x), strict=True):
        close(mine, expected, 1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", test_networks.MEMBERS)
def test_networks_in_half_precision(name, dtype):
    require(dtype)
    build, sizes = test_networks.MEMBERS[name]
    torch.manual_seed(0)
    network, x = build(3, 2, 3).eval(), torch.randn(2, 2, *sizes[3])
    expected = network(x)
    with torch.autocast("cuda", dtype):
        logits = network.to(GPU)(x.to(GPU))
    tolerance = 0.2 if name == "SegNet" else 0.03  # whose indices name another voxel where rounding makes two tie
    assert (logits.float().cpu() - expected).abs().mean() < tolerance * expected.std()


@pytest.mark.parametrize("name", test_losses.MEMBERS)
def test_losses_and_their_gradients(name):
    loss = test_losses.MEMBERS[name]()
    for size in ((7, 6), (5, 4, 3)):
        logits, target = test_losses.example(size)
        values = []
        for device in (GPU, CPU):
            there = logits.double().to(device).requires_grad_()
            value = loss(there, target.to(device), torch.ones_like(target, dtype=torch.float64, device=device))
            value.backward()
            values.append((value.detach(), there.grad))
        for mine, expected in zip(*values, strict=True):
            close(mine, expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_instance_norm_and_its_gradients(dtype, dims, last):
    require(dtype)
    torch.manual_seed(0)
    norm, x = InstanceNorm(6).double(), torch.randn(3, 6, *(5, 8, 7)[:dims], dtype=torch.float64) * 3 + 2
    torch.nn.init.normal_(norm.weight)
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[dims] if last else torch.contiguous_format
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]
    asked = torch.randn_like(x)

    def run(norm, x, layout):
        x = x.requires_grad_()
        y = norm(x)
        norm.zero_grad()
        y.backward(asked.to(y).contiguous(memory_format=layout))  # other kernels where the layouts differ
        return y, x.grad, norm.weight.grad / 30, norm.bias.grad / 30

    expected = run(norm, x.clone(), torch.contiguous_format)
    norm.to(GPU, torch.float64 if dtype is torch.float64 else torch.float32)
    for layout_of_gradient in {layout, torch.contiguous_format}:
        found = run(norm, x.to(GPU, dtype).contiguous(memory_format=layout), layout_of_gradient)
        assert found[0].is_contiguous(memory_format=layout)
        for mine, theirs in zip(found, expected, strict=True):
            close(mine.double(), theirs, tolerance)


@pytest.mark.parametrize("interpolation", ["linear", "majority", "nearest"])
@pytest.mark.parametrize("border", ["mirror", "edge"])
def test_patches_of_a_batch(interpolation, border):
    transform = RandSpatialPatchd(
        ["image", "label"], patch_size=PATCH, affine_probability=0.8, elastic_probability=0.7, elastic_std_mm=2.0,
        flip_axes=(0, 1, 2), padding_mode=border, shear_degrees=5.0, confine_thick_slices=False,
    ).set_random_state(1)  # fmt: skip
    boxes, patches = drawn_batch(transform, [case(index % 4) for index in range(16)])
    boxes = boxes["image" if interpolation == "linear" else "label"]
    found, expected = (BatchSampler(patches, PATCH, device)(boxes, interpolation) for device in (GPU, CPU))
    assert found.is_cuda
    if interpolation == "linear":
        close(found, expected, 2e-4)
    else:
        assert (found.cpu() != expected).float().mean() < 1e-4  # where two are equally near


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sw_batch_size": 4},
        {"sw_batch_size": "auto"},
        {"mirror_axes": (0, 2)},
        {"mirror_axes": (0, 1, 2), "average": "probabilities"},
        {"scales": (1.0, 0.75)},
        {"background": 0.05},
        {"runtime": "float32+channels_last"},
    ],
)
@pytest.mark.parametrize("size", [(40, 33, 20), (9, 30, 2)])
def test_sliding_windows(unet, size, options):
    x = image(*size)
    x[:, :, : size[0] // 3] = -3.0  # windows that are constant, and others
    inferer = SlidingWindowInferer((16, 16, 16), overlap=0.5, **options)
    expected = inferer(x, unet)
    unet.to(GPU)
    there = SlidingWindowInferer((16, 16, 16), overlap=0.5, **options)
    logits = there(x.to(GPU), unet)
    assert logits.is_cuda
    close(logits, expected, 1e-3)
    close(together(there.slabs(x.to(GPU), unet)), expected[0], 1e-3)
    # Images and logits in main memory, the network on the GPU: for volumes that a GPU can't hold.
    apart = SlidingWindowInferer((16, 16, 16), overlap=0.5, sw_device=GPU, device=CPU, **options)
    logits = apart(x, unet)
    assert not logits.is_cuda
    close(logits, expected, 1e-3)


def test_overlap_tiles():
    torch.manual_seed(0)
    network, x = UNetAsPublished(2, 2, 3, 4, 2, dropout=0.0).eval(), torch.randn(1, 2, 70, 90)
    inferer = OverlapTileInferer((60, 60))
    expected = inferer(x, network)
    close(inferer(x.to(GPU), network.to(GPU)), expected, 1e-4)


@pytest.mark.parametrize("name", [one.name for one in torch_means(GPU if torch.cuda.is_available() else CPU)])
def test_every_means_does_what_the_network_does(unet, name, tmp_path):
    unet.to(GPU)
    x = image(24, 24, 24).to(GPU)
    means = {one.name: one for one in torch_means(GPU)}[name]
    if means.build is not None:
        means.build(unet, x[..., :16, :16, :16], tmp_path)
    with torch.no_grad():
        window = x[..., :16, :16, :16].contiguous()
        found, expected = means.load(unet, window, tmp_path)(window), unet(window)
    close(found.float(), expected.cpu(), 1e-3 if "float32" in name else 0.1)


def test_the_fastest_means_is_found_and_kept(unet, tmp_path):
    """Of a network that shows some foreground, so that what rounds can be compared."""
    with torch.no_grad():
        unet.to(GPU).get_submodule(unet.last_convolution).bias[1] += 0.1
    x = image(48, 48, 32).to(GPU)
    for _ in range(2):
        runtime = Runtime("auto", work=range(100), cache_dir=str(tmp_path), least_agreement=0.9, least_foreground=0.5)
        logits = SlidingWindowInferer((16, 16, 16), runtime=runtime)(x, unet)
        trials = runtime.record["trials"]
        assert {"float32", *half_types(GPU)} <= set(trials)
        assert not any("does not work" in trial["refused"] for trial in trials.values()), trials
        plain = SlidingWindowInferer((16, 16, 16))(x, unet)
        assert (logits.argmax(1) == plain.argmax(1)).float().mean() > 0.9


def test_a_training_step_is_measured_and_what_does_not_fit_is_known():
    spec = StepSpec(2, 3, (16, 32), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 2), (64, 64, 64), 2)
    measured = measure(spec, "cuda")
    assert measured.seconds > 0
    counted = account(spec, measured.precision).bytes
    assert 0.5 * counted < measured.bytes < 4 * counted
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**28 / total)
    try:
        assert measure(spec, "cuda") is None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_gpus_arithmetic_is_tried_in_half_precision_too():
    names = [one.name for one in candidates(GPU, nn.Conv3d(1, 1, 1))]
    assert (names[0], len(names)) == ("float32", 3)
