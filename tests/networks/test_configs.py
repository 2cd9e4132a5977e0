from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "networks").glob("*.yaml"))
NAMED_STRIDES = ("deeplab_v3_plus_3d", "pspnet_3d")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_base_file_builds_a_network_of_the_bundles_channels(file):
    config = ConfigParser.load_config_file(file) | {"in_channels": 3, "out_channels": 2}
    assert set(config) == {"network_def", "in_channels", "out_channels"}
    with torch.device("meta"):  # shapes without arithmetic
        network = ConfigParser(config).get_parsed_content("network_def").eval()
    dims = int(file.stem[-2])
    assert network.spatial_dims == dims
    unpadded = hasattr(network, "input_size_for")
    size = network.input_size_for((2,) * dims) if unpadded else [2 * s for s in network.total_stride]
    with torch.device("meta"):
        assert network(torch.empty(1, 3, *size)).shape[1] == 2


BY_CHANNELS = [  # the others' levels follow from a depth, or differ from their own default by named strides
    file for file in CONFIGS if not file.stem.startswith("unet_published") and file.stem not in NAMED_STRIDES
]


@pytest.mark.parametrize("file", BY_CHANNELS, ids=lambda file: file.stem)
def test_a_bundle_with_another_number_of_levels_names_no_more_than_their_channels(file):
    config = ConfigParser.load_config_file(file) | {"in_channels": 1, "out_channels": 2}
    dims = int(file.stem[-2])
    config["network_def"] |= {"channels": [8, 16, 32, 64] if dims == 2 else [8, 16, 32, 64, 64]}
    with torch.device("meta"):
        network = ConfigParser(config).get_parsed_content("network_def").eval()
        size = [2 * s for s in network.total_stride]
        assert network(torch.empty(1, 1, *size)).shape == (1, 2, *size)


def test_the_room_has_base_files():
    assert {file.stem for file in CONFIGS} >= {"unet_2d", "unet_3d"}
