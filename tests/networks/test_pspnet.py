import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.networks import PSPNet

SMALL = {"channels": (8, 16, 16, 32), "strides": (1, 2, 2, 2), "blocks_per_stage": 1, "head_channels": 8}


def test_the_published_network():
    """Output stride 8; four grids of 512 maps beside 2048, 4096 into the head (figure 3)."""
    with torch.device("meta"):
        network = PSPNet(2, 3, 21)
        logits, auxiliary = network(torch.empty(2, 3, 473, 473))
    assert network.total_stride == (8, 8)
    assert network.pyramid.channels == 4096
    assert [grid[0].out_channels for grid in network.pyramid.grids] == [512] * 4
    assert logits.shape == (2, 21, 473, 473)
    assert auxiliary.shape == (2, 21, 60, 60)
    head = 9 * 4096 * 512 + 1024 + 512 * 21 + 21
    grids = 4 * (2048 * 512 + 1024)
    aside = 9 * 1024 * 256 + 512 + 256 * 21 + 21
    assert sum(p.numel() for p in network.parameters()) == 42_500_160 + grids + head + aside


def test_auxiliary_logits_come_in_training_alone_and_only_if_asked_for():
    network = PSPNet(3, 1, 2, norm="instance", **SMALL)
    x = torch.randn(1, 1, 16, 17, 8)
    assert [tuple(y.shape) for y in network(x)] == [(1, 2, 16, 17, 8), (1, 2, 8, 9, 4)]
    assert network.eval()(x).shape == (1, 2, 16, 17, 8)
    without = PSPNet(3, 1, 2, norm="instance", deep_supervision=False, **SMALL)
    assert without(x).shape == (1, 2, 16, 17, 8)
    assert not any(name.startswith("auxiliary") for name in without.state_dict())


def test_batch_norm_does_not_train_on_one_samples_mean():
    with pytest.raises(ConfigError, match="batch_size=2"):
        PSPNet(2, 1, 2, **SMALL)(torch.zeros(1, 1, 16, 16))
    finer = PSPNet(2, 1, 2, bins=(2, 3), **SMALL)
    assert finer(torch.randn(1, 1, 16, 16))[0].shape == (1, 2, 16, 16)


def test_grids_without_bins_are_refused():
    with pytest.raises(ConfigError, match="bins per axis"):
        PSPNet(2, 1, 2, bins=(), **SMALL)
