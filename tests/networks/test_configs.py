from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "networks").glob("*.yaml"))


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


def test_the_room_has_base_files():
    assert {file.stem for file in CONFIGS} >= {"unet_2d", "unet_3d"}
