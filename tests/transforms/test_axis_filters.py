import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.transforms.axis_filters import filter_axes, gaussian_matrix, low_resolution_matrix

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(13, 9, 7), (12, 17)])
@pytest.mark.parametrize("sigma", [0.1, 0.6, 1.7, 4.0])
def test_gaussian_equals_scipy(shape, sigma):
    """Also where the kernel is wider than the image, and mirrored more than once."""
    image = RNG.normal(size=shape)
    sigmas = [sigma / (axis + 1) for axis in range(len(shape))]
    expected = ndimage.gaussian_filter(image, sigmas, mode="mirror")
    matrices = [[gaussian_matrix(size, s)] for size, s in zip(shape, sigmas, strict=True)]
    result = filter_axes(torch.from_numpy(image)[None, None], matrices)[0, 0]
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_every_sample_and_channel_has_its_own_filter():
    images = torch.from_numpy(RNG.normal(size=(2, 3, 5, 6, 4)))
    own = [[RNG.normal(size=(size, size)) for _ in range(6)] for size in (5, 6, 4)]
    own[1][2] = None
    result = filter_axes(images, own)
    for sample in range(2):
        for channel in range(3):
            first, second, third = (matrices[3 * sample + channel] for matrices in own)
            second = np.eye(6) if second is None else second
            expected = np.einsum("ai,bj,ck,ijk->abc", first, second, third, images[sample, channel])
            np.testing.assert_allclose(result[sample, channel], expected, atol=1e-12)


def test_no_filter_is_a_copy():
    images = torch.rand(1, 2, 4, 5)
    result = filter_axes(images, [[None], [None]])
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 5.0, 40.0])
def test_low_resolution_is_the_mean_over_larger_voxels(size, factor):
    """Against brute force: a piecewise constant signal, integrated on a fine raster, then interpolated by numpy."""
    signal = RNG.normal(size=size)
    count = max(1, int(np.ceil(size / factor - 1e-6)))
    centres = (size - 1) / 2 + (np.arange(count) - (count - 1) / 2) * factor
    fine = (np.arange(2000) + 0.5) / 2000 - 0.5
    means = []
    for centre in centres:
        places = centre + fine * factor
        inside = (places > -0.5) & (places < size - 0.5)
        means.append(signal[np.round(places[inside]).astype(int)].mean())
    expected = np.interp(np.arange(size), centres, means)
    np.testing.assert_allclose(low_resolution_matrix(size, factor) @ signal, expected, atol=5e-3)


def test_the_own_resolution_changes_nothing():
    np.testing.assert_allclose(low_resolution_matrix(9, 1.0), np.eye(9), atol=1e-12)


@pytest.mark.parametrize("matrix", [gaussian_matrix(11, 2.0), low_resolution_matrix(11, 2.7)])
def test_a_constant_stays_constant(matrix):
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert (matrix >= 0).all()
