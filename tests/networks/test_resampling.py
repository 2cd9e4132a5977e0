import math

import pytest
import torch
import torch.nn.functional as F
from monai.networks.utils import icnr_init
from monai.networks.utils import pixelshuffle as monai_pixelshuffle
from monai.networks.utils import pixelunshuffle as monai_pixelunshuffle

from pipeline.errors import ConfigError
from pipeline.networks.blocks import initialise_he
from pipeline.networks.resampling import (
    Interpolate,
    PixelShuffle,
    SpaceToDepth,
    downsample,
    pixel_shuffle,
    space_to_depth,
    upsample,
)


@pytest.mark.parametrize(
    ("size", "factor"), [((6, 4), [2, 2]), ((6, 4), [3, 2]), ((4, 6, 8), [2, 2, 2]), ((4, 6, 3), [2, 3, 1])]
)
def test_space_to_depth_then_pixel_shuffle_is_bit_identical(size, factor):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    deep = space_to_depth(x, factor)
    assert deep.shape == (2, 3 * math.prod(factor), *(n // f for n, f in zip(size, factor, strict=True)))
    assert torch.equal(pixel_shuffle(deep, factor), x)
    assert torch.equal(torch.jit.script(space_to_depth)(x, factor), deep)
    assert torch.equal(torch.jit.script(pixel_shuffle)(deep, factor), x)


def test_order_is_torchs_in_2d_and_monais_in_3d():
    planar, volume = torch.randn(2, 3, 6, 4), torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(space_to_depth(planar, [2, 2]), F.pixel_unshuffle(planar, 2))
    assert torch.equal(space_to_depth(volume, [2, 2, 2]), monai_pixelunshuffle(volume, 3, 2))
    deep = torch.randn(2, 16, 2, 3, 4)
    assert torch.equal(pixel_shuffle(deep, [2, 2, 2]), monai_pixelshuffle(deep, 3, 2))


def identity(module: Interpolate) -> Interpolate:
    torch.nn.init.ones_(module.conv.weight)
    return module


def test_linear_by_hand():
    # Centres of the fine pixels lie a quarter of a coarse pixel to each side: weights 3/4 and 1/4, 1 at the border.
    x = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    expected = [[10, 12.5, 17.5, 20], [15, 17.5, 22.5, 25], [25, 27.5, 32.5, 35], [30, 32.5, 37.5, 40]]
    y = identity(Interpolate(2, 1, 1, (2, 2), "linear"))(x)
    torch.testing.assert_close(y[0, 0], torch.tensor(expected), atol=0, rtol=0)
    # In 3D with a thick axis that keeps its size: the same in each slice.
    stack = torch.stack([x, 3 * x], dim=-1)
    deep = identity(Interpolate(3, 1, 1, (2, 2, 1), "linear"))(stack)
    torch.testing.assert_close(deep[0, 0], torch.stack([y[0, 0], 3 * y[0, 0]], dim=-1))


def test_nearest_by_hand():
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert identity(Interpolate(2, 1, 1, (2, 3), "nearest"))(x).tolist() == [[[[1, 1, 1, 2, 2, 2]] * 2]]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_convolving_before_is_the_same_as_after(mode):
    module = Interpolate(3, 4, 2, (2, 2, 2), mode)
    x = torch.randn(1, 4, 3, 4, 2)
    after = F.interpolate(x, scale_factor=2, mode=module.mode, align_corners=False if module.linear else None)
    torch.testing.assert_close(module(x), module.conv(after), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_pixel_shuffle_starts_without_a_checkerboard(dims):
    torch.manual_seed(0)
    module = PixelShuffle(dims, 5, 3, (2,) * dims, (3,) * dims)
    initialise_he(module)
    y = module(torch.randn(2, 5, *(4,) * dims))
    blocks = space_to_depth(y, [2] * dims).unflatten(1, (3, 2**dims))
    assert torch.equal(blocks, blocks[:, :, :1].expand_as(blocks))  # one value per block: nearest interpolation
    assert y.std() > 0.5
    # MONAI ties the same kernels together.
    weight = torch.nn.Parameter(torch.empty_like(module.conv.weight))
    conv = torch.nn.Conv2d(5, 3 * 4, 3) if dims == 2 else torch.nn.Conv3d(5, 3 * 8, 3)
    icnr_init(conv, 2)
    tied = conv.weight.detach().unflatten(0, (3, 2**dims))
    assert weight.shape == conv.weight.shape
    assert torch.equal(tied, tied[:, :1].expand_as(tied))


def test_he_initialisation_of_tied_kernels_has_the_variance_of_the_others():
    torch.manual_seed(0)
    module = PixelShuffle(2, 64, 64, (2, 2), (3, 3))
    initialise_he(module)
    assert module.conv.weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)


@pytest.mark.parametrize("kind", ["transposed_convolution", "nearest", "linear", "pixel_shuffle"])
def test_every_way_up_multiplies_the_size_by_an_anisotropic_factor(kind):
    module = upsample(kind, 3, 4, 2, (2, 3, 1))
    assert module(torch.zeros(1, 4, 3, 2, 5)).shape == (1, 2, 6, 6, 5)


def test_ways_down():
    x = torch.arange(24.0).view(1, 1, 2, 4, 3)
    pool, channels, stride = downsample("max_pool", 3, 1, (2, 2, 1))
    assert pool(x)[0, 0, 0].tolist() == [[15, 16, 17], [21, 22, 23]]
    assert (channels, stride) == (1, (1, 1, 1))
    fold, channels, stride = downsample("space_to_depth", 3, 1, (2, 2, 1))
    assert isinstance(fold, SpaceToDepth)
    assert fold(x)[0, :, 0, 1, 2].tolist() == [8, 11, 20, 23]
    assert (channels, stride) == (4, (1, 1, 1))
    nothing, channels, stride = downsample("strided_convolution", 3, 1, (2, 2, 1))
    assert torch.equal(nothing(x), x)
    assert (channels, stride) == (1, (2, 2, 1))


def test_unknown_ways_are_refused():
    with pytest.raises(ConfigError, match="max_pool, strided_convolution, space_to_depth"):
        downsample("average", 2, 1, (2, 2))
    with pytest.raises(ConfigError, match="transposed_convolution, nearest, linear, pixel_shuffle"):
        upsample("cubic", 2, 1, 1, (2, 2))
