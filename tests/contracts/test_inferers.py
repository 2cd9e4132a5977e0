"""What every inferer of `pipeline.inference` owes: logits on the inputs' own spatial size, whatever that size is."""

import inspect

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import Inferer

import pipeline.inference

SETTINGS = {
    "SlidingWindowInferer": {"roi_size": 8, "sw_batch_size": 2},
    "OverlapTileInferer": {"roi_size": 8, "sw_batch_size": 2},
}
INFERERS = [
    name
    for name in pipeline.inference.__all__
    if inspect.isclass(getattr(pipeline.inference, name)) and issubclass(getattr(pipeline.inference, name), Inferer)
]


@pytest.fixture(params=INFERERS)
def inferer(request):
    config = {"inferer": {"_target_": f"pipeline.inference.{request.param}", **SETTINGS[request.param]}}
    return ConfigParser(config).get_parsed_content("inferer")


def network(images):
    return torch.cat([images, images[:, :1] * 2], dim=1)


@pytest.mark.parametrize("size", [(8, 8, 8), (21, 13, 9), (7, 3, 2), (1, 1, 1), (11, 17), (5, 1)])
def test_a_per_voxel_network_gives_what_one_pass_gives(inferer, size):
    images = torch.randn(2, 3, *size)
    logits = inferer(images, network)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(images), atol=1e-6, rtol=1e-5)


def test_the_inputs_are_left_as_they_were(inferer):
    images = torch.randn(1, 1, 11, 9, 5)
    before = images.clone()
    inferer(images, network)
    assert torch.equal(images, before)


def test_images_of_a_batch_do_not_touch_each_other(inferer):
    images = torch.randn(3, 1, 11, 9, 5)
    together = inferer(images, network)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], inferer(images[i : i + 1], network))


def test_meta_data_of_the_inputs_come_back(inferer):
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    images = MetaTensor(torch.randn(1, 1, 11, 9, 5), affine=affine, meta={"case_id": "sub-01"})
    logits = inferer(images, network)
    assert isinstance(logits, MetaTensor)
    assert torch.equal(logits.affine, affine)
    assert logits.meta["case_id"] == "sub-01"
