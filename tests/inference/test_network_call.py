"""The network is not run where its answer is known, and otherwise in batches; the result is as if it had been."""

import pytest
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.inference import SlidingWindowInferer
from pipeline.inference.network_call import constant_values

OFFSET = 5.0


class Counting(torch.nn.Module):
    """Padded, so a window's border matters; counts the windows that it sees."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(2)
        self.conv = torch.nn.Conv3d(2, classes, 3, padding=1)
        self.windows, self.calls = 0, 0

    def forward(self, images):
        self.windows += len(images)
        self.calls += 1
        return self.conv(images)


def in_a_corner(background=(0.0, -1.0)):
    """Content in one corner of 32 x 24 x 16 voxels, each channel constant elsewhere."""
    image = torch.tensor(background).reshape(1, 2, 1, 1, 1).repeat(1, 1, 32, 24, 16)
    image[:, :, :9, :7, :5] = torch.randn(1, 2, 9, 7, 5).abs() + OFFSET
    return image


def one_by_one(image, net):
    """What comes out where every window is run: a bump too small to see tells the windows apart."""
    ramp = torch.arange(image[0, 0].numel(), dtype=torch.float32).reshape(image.shape[2:]) * 1e-9
    return SlidingWindowInferer(8)(image + ramp, net)


@pytest.mark.parametrize("batch", [1, 4, "auto"])
def test_constant_windows_are_run_once_and_nothing_changes(batch):
    image, net = in_a_corner(), Counting()
    logits = SlidingWindowInferer(8, sw_batch_size=batch)(image, net)
    assert net.windows == 3 * 2 * 2 + 1  # starts 0, 4, 8 x 0, 4 x 0, 4 hold content; of the others one
    reference = Counting()
    expected = one_by_one(image, reference)
    assert reference.windows == 7 * 5 * 3
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_each_constant_is_another_window():
    image = torch.zeros(1, 2, 40, 8, 8)
    image[:, :, 16:] = 1.0
    image[:, 1, 28:] = 2.0
    net = Counting()
    SlidingWindowInferer(8)(image, net)
    # starts 0 4 8 | 12 | 16 20 | 24 | 28 32: three constants, and two windows across a step
    assert net.windows == 5


def test_a_channel_that_differs_in_one_voxel_is_no_constant():
    window = torch.zeros(1, 2, 8, 8, 8)
    assert constant_values(window) == bytes(8)
    window[0, 1, 7, 6, 5] = 1e-6
    assert constant_values(window) is None
    assert constant_values(torch.full((1, 1, 4, 4), torch.nan)) is None


def test_images_of_a_batch_share_their_constants():
    net = Counting()
    SlidingWindowInferer(8)(torch.zeros(3, 2, 16, 8, 8), net)
    assert net.windows == 1


def test_windows_go_in_batches_across_images():
    net = Counting()
    SlidingWindowInferer(8, sw_batch_size=4)(torch.randn(2, 2, 16, 8, 8), net)
    assert (net.windows, net.calls) == (6, 2)
    assert SlidingWindowInferer(8, sw_batch_size="auto")(torch.randn(1, 2, 16, 8, 8), net).shape[1] == 3
    assert (net.windows, net.calls) == (9, 5)  # one by one on a CPU


def test_windows_without_content_are_background_where_that_is_asked_for():
    noisy = in_a_corner((0.0, 0.0)) + 0.1 * torch.rand(1, 2, 32, 24, 16)
    net, all_windows = Counting(), Counting()
    logits = SlidingWindowInferer(8, background=0.05)(noisy, net)
    expected = SlidingWindowInferer(8)(noisy, all_windows)
    assert all_windows.windows == 7 * 5 * 3
    assert net.windows == 3 * 2 * 2
    assert logits[:, :, 17:].argmax(1).eq(0).all()
    assert logits[:, :, 17:].softmax(1)[:, 0].min() > 1 - 1e-5
    # Where only windows with content reach, nothing has changed.
    torch.testing.assert_close(logits[:, :, :8, :4, :4], expected[:, :, :8, :4, :4])


def test_bright_windows_are_content_however_even_they_are():
    image, net = torch.zeros(1, 2, 32, 8, 8), Counting()
    image[:, :, 16:] = 1 + 1e-3 * torch.rand(1, 2, 16, 8, 8)
    SlidingWindowInferer(8, background=0.1)(image, net)
    assert net.windows == 5  # one constant, one across the step, three within


def test_the_network_is_prepared_once_with_its_first_batch():
    seen = []

    class Prepared(SlidingWindowInferer):
        def prepared(self, network, example, args, kwargs):
            seen.append(tuple(example.shape))
            return super().prepared(lambda windows: network(windows) + 1, example, args, kwargs)

    image, net = torch.randn(1, 2, 16, 8, 8), Counting()
    found = Prepared(8, sw_batch_size=2)(image, net)
    assert seen == [(2, 2, 8, 8, 8)]
    torch.testing.assert_close(found, SlidingWindowInferer(8)(image, net) + 1)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"background": share} for share in (1.0, -0.1)),
        *({"scales": scales} for scales in ([], [0.0], [0.05], 0.5, ["a"])),
        {"memory_mib": -1},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        SlidingWindowInferer(8, **arguments)


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_result(lost):
    def network(windows):
        logits = windows.repeat(1, 2, 1, 1, 1)
        return logits.where(logits != OFFSET, lost)

    image = torch.randn(1, 1, 16, 8, 8)
    assert SlidingWindowInferer(8)(image, network).isfinite().all()
    image[0, 0, 12, 3, 4] = OFFSET
    words = "2 NaN and 0 infinite" if lost != lost else "0 NaN and 2 infinite"
    with pytest.raises(DataError, match=f"{words} logits of 1024 in 1 windows.*runtime=float32"):
        SlidingWindowInferer(8)(image, network)
    with pytest.raises(DataError, match="logits of 1024"):
        SlidingWindowInferer(8, mirror_axes=[0], average="probabilities")(image, network)


def test_large_logits_are_a_result():
    image = torch.full((1, 1, 8, 8, 8), 3e38)  # whose sum is beyond float32
    assert SlidingWindowInferer(8)(image, lambda windows: windows.repeat(1, 2, 1, 1, 1)).isfinite().all()
