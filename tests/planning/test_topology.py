"""Levels against nnU-Net's published plans, and what a network accepts."""

import math

import pytest
import torch

from pipeline.networks import UNet
from pipeline.planning.topology import shrinking, topology


@pytest.mark.parametrize(
    ("patch", "spacing", "strides"),
    [
        # Published 3d_fullres plans of nnU-Net (Isensee et al. 2021, supplementary table of network topologies).
        ((128, 128, 128), (1.0, 1.0, 1.0), [[1, 1, 1]] + [[2, 2, 2]] * 5),  # BraTS
        (
            (20, 320, 256),
            (3.6, 0.62, 0.62),
            [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
        ),
        ((40, 56, 40), (1.0, 1.0, 1.0), [[1, 1, 1]] + [[2, 2, 2]] * 3),  # hippocampus
    ],
)
def test_strides(patch, spacing, strides):
    assert [list(stride) for stride in topology(patch, spacing).strides] == strides


@pytest.mark.parametrize("patch", [(1, 1, 1), (3, 5, 2), (7, 7, 7), (64, 80, 10), (33, 17, 129), (20, 20, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 5.0)])
@pytest.mark.parametrize("never_pooled", [(), (2,)])
def test_a_network_takes_the_patch(patch, spacing, never_pooled):
    levels = topology(patch, spacing, never_pooled)
    assert all(got >= wanted for got, wanted in zip(levels.patch_size, patch, strict=True))
    network = UNet(3, 1, 2, levels.channels(2), levels.kernel_sizes, levels.strides, 1)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 1, *levels.patch_size)).shape[2:] == levels.patch_size
    if never_pooled:
        assert levels.total_stride[2] == 1


def test_patches_shrink_and_end():
    sizes = [math.prod(levels.patch_size) for levels in shrinking((200, 180, 90), (200, 180, 90), (1.0, 1.0, 2.5))]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[-1] < 32**3


def test_the_axis_that_covers_most_shrinks_first():
    first, second = shrinking((64, 64, 64), (64, 200, 200), (1.0, 1.0, 1.0))[:2]
    assert first.patch_size == (64, 64, 64)
    assert second.patch_size[0] < 64
    assert second.patch_size[1:] == (64, 64)
