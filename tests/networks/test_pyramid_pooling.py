import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError
from pipeline.networks.pyramid_pooling import PyramidPooling, SpatialPyramidPooling, averages


@pytest.mark.parametrize("size", [(13, 13), (10, 7), (1, 40), (224, 3), (5, 6, 7), (1, 1, 2)])
def test_spatial_pyramid_pooling_gives_50_numbers_per_map_in_2d_whatever_the_size(size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    got = SpatialPyramidPooling()(x)
    per_map = sum(b ** len(size) for b in (6, 3, 2, 1))
    assert got.shape == (2, 3 * per_map)
    assert len(size) == 3 or per_map == 50
    # By hand: the first bin of the 6 per axis, the last of the 3 per axis, the whole map.
    first = tuple(slice(0, -(-n // 6)) for n in size)
    last = tuple(slice(2 * n // 3, n) for n in size)
    axes = tuple(range(2, 2 + len(size)))
    six, three = 3 * 6 ** len(size), 3 * 3 ** len(size)
    torch.testing.assert_close(got[:, 0], x[(slice(None), 0, *first)].amax([a - 1 for a in axes]))
    torch.testing.assert_close(got[:, six + three - 1], x[(slice(None), 2, *last)].amax([a - 1 for a in axes]))
    torch.testing.assert_close(got[:, -3:], x.amax(axes))


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(60, 60), (7, 5), (1, 4), (9, 4, 13)])
def test_averages_are_torchs_adaptive_ones(size, bins):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pool = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
    torch.testing.assert_close(averages(x, bins), pool(x, bins))


def test_pyramid_pooling_puts_the_grids_beside_the_features():
    torch.manual_seed(0)
    pool = PyramidPooling(2, 4, 3, bins=(1, 2), norm="batch").eval()
    x = torch.randn(2, 4, 8, 6)
    got = pool(x)
    assert got.shape == (2, pool.channels, 8, 6)
    assert pool.channels == 10
    torch.testing.assert_close(got[:, :4], x)
    for i, bins in enumerate((1, 2)):
        grid = pool.grids[i](F.adaptive_avg_pool2d(x, bins))
        grown = F.interpolate(grid, (8, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(got[:, 4 + 3 * i : 7 + 3 * i], grown)


@pytest.mark.parametrize("bins", [(), (2, 0)])
def test_a_grid_without_bins_is_refused(bins):
    with pytest.raises(ConfigError, match="bins per axis"):
        SpatialPyramidPooling(bins)
