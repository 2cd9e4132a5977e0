import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference import mirrored


def test_the_mean_over_all_flips_is_that_of_the_definition():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(2, 3, 3, padding=1)
    images = torch.randn(2, 2, 5, 6, 7)
    with torch.no_grad():
        passes = [network(images.flip(d)).flip(d) for d in ([], [2], [4], [2, 4])]
        assert torch.allclose(mirrored(network, [0, 2])(images), torch.stack(passes).mean(0), atol=1e-6)


def test_a_network_that_does_not_see_direction_is_left_as_it_is():
    images = torch.randn(1, 1, 4, 5)
    assert torch.allclose(mirrored(lambda x: x**2, [0, 1])(images), images**2, atol=1e-6)


def test_no_axes_no_wrapper():
    network = torch.nn.Identity()
    assert mirrored(network, ()) is network


@pytest.mark.parametrize("axes", [[0, 0], [-1]])
def test_axes_that_make_no_sense_are_refused(axes):
    with pytest.raises(ConfigError, match="mirror axes"):
        mirrored(torch.nn.Identity(), axes)


def test_an_axis_that_the_image_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="2 spatial axes"):
        mirrored(torch.nn.Identity(), [2])(torch.zeros(1, 1, 4, 4))
