import pytest
import torch
import torch.nn.functional as F

from pipeline.networks.bilinear_deconvolution import (
    FixedDeconvolution,
    bilinear_kernel,
    initialise_bilinear,
    learned_deconvolution,
)


def test_kernels_have_the_published_taps():
    assert [len(bilinear_kernel(f)) for f in (1, 2, 8, 16, 32)] == [1, 4, 16, 32, 64]
    # Voxels `factor` apart, each spread by the kernel: a constant stays one.
    for factor in (2, 3, 5, 8):
        taps = F.pad(bilinear_kernel(factor), (0, -len(bilinear_kernel(factor)) % factor))
        torch.testing.assert_close(taps.view(-1, factor).sum(0), torch.ones(factor))


@pytest.mark.parametrize("factor", [(2, 2), (8, 3), (1, 4), (2, 1, 3)])
def test_both_are_torchs_transposed_convolution_with_a_bilinear_kernel(factor):
    x = torch.randn(2, 3, *[5, 4, 3][: len(factor)])
    transposed = F.conv_transpose2d if len(factor) == 2 else F.conv_transpose3d
    kernel = torch.ones(())
    for f in factor:
        taps = 2 * f - f % 2
        centre = (taps - 1) / 2
        kernel = kernel[..., None] * torch.tensor([1 - abs(t - centre) / f for t in range(taps)])
    expected = transposed(x, kernel.expand(3, 1, *kernel.shape), stride=factor, groups=3)
    torch.testing.assert_close(FixedDeconvolution(factor)(x), expected)
    learned = learned_deconvolution(len(factor), 3, factor)
    initialise_bilinear(learned)
    torch.testing.assert_close(learned(x), expected)
