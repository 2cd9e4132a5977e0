import pytest
import torch
import torch.nn.functional as F

from pipeline.networks import SegNet
from pipeline.networks.unpooling import PoolWithIndices, unpool


def test_parameters_are_the_published_29_45_million():
    """Table 5: of 11 classes, with a bias in each convolution, which batch norm takes away again."""
    with torch.device("meta"):
        network = SegNet(2, 3, 11)
    biases = sum(m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.bias is None)
    count = sum(p.numel() for p in network.parameters()) + biases
    assert round(count / 1e6, 2) == 29.45
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 26
    assert [c.out_channels for c in convolutions[13:]] == [512] * 5 + [256] * 3 + [128, 128, 64, 64, 11]


@pytest.mark.parametrize(("size", "factor"), [((8, 6), (2, 2)), ((7, 9), (2, 3)), ((6, 4, 5), (2, 2, 1))])
def test_unpooling_is_torchs(size, factor):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    values, indices = PoolWithIndices(factor)(x)
    torchs = F.max_unpool2d if len(size) == 2 else F.max_unpool3d
    expected = torchs(values, indices, factor, factor, output_size=size)
    got = unpool(values, indices, list(size))
    torch.testing.assert_close(got, expected)
    # Each maximum stands where it stood, and so does its gradient.
    assert torch.equal(got[got != 0], x[got != 0])
    got.sum().backward()
    assert torch.equal(x.grad, (got != 0).double())


def test_what_was_no_maximum_is_filled_in_by_convolutions_alone():
    """Changing a voxel that is no maximum in its window changes nothing behind the pooling."""
    pool = PoolWithIndices([2, 2])
    x = torch.tensor([[[[1.0, 5.0], [3.0, 4.0]]]])
    other = torch.tensor([[[[2.0, 5.0], [0.0, 1.0]]]])
    for a, b in zip(pool(x), pool(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (37, 50)), (3, (9, 14, 5))])
def test_sizes_that_no_stride_divides_are_taken(spatial_dims, size):
    network = SegNet(spatial_dims, 2, 3, channels=(4, 4, 8), norm="instance")
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)
    assert network.total_stride == (8,) * spatial_dims
