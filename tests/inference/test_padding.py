import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference.padding import pad, source_indices


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 2), (50, 47)])
@pytest.mark.parametrize(
    ("mode", "numpy_mode"), [("mirror", "reflect"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_indices_are_those_of_numpy_however_wide_the_padding(size, before, after, mode, numpy_mode):
    expected = np.pad(np.arange(size), (before, after), mode=numpy_mode)
    assert source_indices(size, before, after, mode).tolist() == expected.tolist()


def test_two_slices_are_mirrored_into_a_window_of_ninety_six():
    image = torch.randn(1, 2, 5, 4, 2)
    padded = pad(image, [(0, 0), (1, 1), (47, 47)])
    assert padded.shape == (1, 2, 5, 6, 96)
    assert torch.equal(padded[:, :, :, 1:5, 47:49], image)
    assert torch.equal(padded[..., 46], padded[..., 48])  # the voxel beside the edge, not the edge again
    assert torch.equal(padded[:, :, :, 0], padded[:, :, :, 2])


def test_constant_fills_in_the_value_on_the_axes_named():
    padded = pad(torch.ones(1, 3, 2), [(1, 0), (0, 2)], "constant", value=-7.0)
    assert padded.shape == (1, 4, 4)
    assert padded[0, 1:, :2].eq(1).all()
    assert padded[0, 0].eq(-7).all()
    assert padded[0, :, 2:].eq(-7).all()


def test_nothing_to_add_copies_nothing():
    image = torch.randn(1, 1, 4, 4)
    assert pad(image, [(0, 0), (0, 0)]) is image
    assert pad(image, [(0, 0), (0, 0)], "constant") is image


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'mirrored'.*mirror, reflect"):
        pad(torch.zeros(1, 1, 2), [(1, 1)], "mirrored")
