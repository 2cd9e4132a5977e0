from itertools import product

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.inferers import SlidingWindowInferer as PeerInferer

from pipeline.errors import ConfigError
from pipeline.inference import SlidingWindowInferer, pad, window_corners
from pipeline.networks import UNet


def per_voxel(images):
    """A network whose output depends on one voxel alone: any correct tiling gives what one pass gives."""
    return torch.cat([images.sum(1, keepdim=True), images[:, :1] ** 2, images[:, :1] - 3], dim=1)


def small_network(spatial_dims, in_channels=2):
    torch.manual_seed(3)
    conv = torch.nn.Conv3d if spatial_dims == 3 else torch.nn.Conv2d
    return torch.nn.Sequential(conv(in_channels, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 3, 3, padding=1)).eval()


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((20, 17, 9), (8, 8, 4)),
        ((5, 4, 2), (16, 16, 16)),  # smaller than the window on every axis
        ((21, 1, 13), (8, 8, 8)),  # one voxel across
        ((21, 6, 13), (None, -1, 8)),  # whole axes
        ((19, 30), (8, 16)),
        ((3, 2), (32, 32)),
    ],
)
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_per_voxel_network_gives_what_one_pass_gives(size, window, mode, batch):
    images = torch.randn(batch, 2, *size)
    logits = SlidingWindowInferer(window, sw_batch_size=4, overlap=0.6, mode=mode)(images, per_voxel)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, per_voxel(images), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_blending_is_the_weighted_mean_voxel_by_voxel(mode):
    """The oracle: numpy, float64, one window at a time, the Gaussian written out."""
    image = torch.randn(1, 2, 11, 9, 6)
    network, window, overlap = small_network(3), (6, 4, 4), (0.5, 0.25, 0.5)
    total, weights = np.zeros((3, 11, 9, 6)), np.zeros((11, 9, 6))
    axes = [np.exp(-((np.arange(w) - (w - 1) / 2) ** 2) / (2 * (w * 0.25) ** 2)) for w in window]
    importance = np.einsum("i,j,k->ijk", *axes) if mode == "gaussian" else np.ones(window)
    importance = np.maximum(importance, 1e-3)
    # steps of 3, 3 and 2 voxels at most; 5, 5 and 2 voxels to go
    for i, j, k in product([0, 2, 5], [0, 2, 5], [0, 2]):
        with torch.no_grad():
            logits = network(image[:, :, i : i + 6, j : j + 4, k : k + 4])[0].double().numpy()
        total[:, i : i + 6, j : j + 4, k : k + 4] += logits * importance
        weights[i : i + 6, j : j + 4, k : k + 4] += importance
    found = SlidingWindowInferer(window, sw_batch_size=2, overlap=overlap, mode=mode, sigma_scale=0.25)(image, network)
    np.testing.assert_allclose(found[0].numpy(), total / weights, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [((32, 24, 16), (16, 16, 8), 0.5), ((40, 28, 8), (16, 16, 8), 0.25), ((40, 24), (16, 8), 0.5)],
)
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_agrees_with_monai_where_the_windows_lie_in_the_same_places(size, window, overlap, mode):
    images, network = torch.randn(2, 2, *size), small_network(len(size))
    arguments = {"roi_size": window, "sw_batch_size": 3, "overlap": overlap, "mode": mode}
    with torch.no_grad():
        peer = PeerInferer(**arguments)(images, network)
    ours = SlidingWindowInferer(**arguments)(images, network)
    torch.testing.assert_close(ours, peer, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("padding_mode", "cval"), [("constant", 0.5), ("reflect", 0), ("replicate", 0), ("circular", 0)]
)
def test_pads_as_monai_does(padding_mode, cval):
    image, network = torch.randn(1, 2, 12, 13, 16), small_network(3)
    arguments = {"roi_size": 16, "mode": "gaussian", "padding_mode": padding_mode, "cval": cval}
    with torch.no_grad():
        peer = PeerInferer(**arguments)(image, network)
    torch.testing.assert_close(SlidingWindowInferer(**arguments)(image, network), peer, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [4, 5, 9, 10, 23, 64])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.5, 0.75, 0.9])
def test_windows_cover_with_the_overlap_asked_for_and_no_window_too_many(size, overlap):
    window = 4
    starts = [s for (s,) in window_corners([size], [window], [overlap])]
    step = max(1, int(window * (1 - overlap) + 1e-6))
    assert starts[0] == 0
    assert starts[-1] == size - window
    gaps = np.diff(starts)
    assert all(1 <= gap <= step for gap in gaps)
    assert len(gaps) == -(-(size - window) // step)
    assert len(set(gaps)) <= 2  # evenly spread: steps differ by one voxel at most
    assert np.ptp(gaps) <= 1 if len(gaps) else True


def test_one_window_is_the_networks_own_output():
    image, network = torch.randn(2, 2, 8, 8, 8), small_network(3)
    with torch.no_grad():
        assert torch.equal(SlidingWindowInferer(8, sw_batch_size=2)(image, network), network(image))


@pytest.mark.parametrize(("window", "seen"), [(None, (32, 36)), ((None, 16), (32, 16)), ((24, -1), (24, 36))])
def test_a_whole_axis_is_rounded_up_to_what_the_network_takes(window, seen):
    """Mirrored by half of what is missing on each side, and cropped again."""
    sizes = set()

    def network(images):
        sizes.add(tuple(images.shape[2:]))
        return per_voxel(images)

    network.total_stride = (4, 4)
    images = torch.randn(2, 2, 30, 33)
    logits = SlidingWindowInferer(window)(images, network)
    assert sizes == {seen}
    torch.testing.assert_close(logits, per_voxel(images), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(30, 33), (32, 36), (3, 9), (9, 10, 13)])
def test_the_whole_image_goes_through_a_unet_whatever_its_size(size):
    torch.manual_seed(0)
    network = UNet(len(size), 1, 2, channels=(4, 8, 16)).eval()
    image = torch.randn(1, 1, *size)
    missing = [-n % 4 for n in size]
    widths = [(m // 2, m - m // 2) for m in missing]
    with torch.no_grad():
        whole = network(pad(image, widths))
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, size, strict=True))
    assert torch.equal(SlidingWindowInferer(None)(image, network), whole[(..., *inside)])


def test_a_total_stride_of_other_axes_is_refused():
    with pytest.raises(ConfigError, match=r"a total_stride of \(4, 4, 4\); expected 2 spatial axes"):
        SlidingWindowInferer(None)(torch.zeros(1, 1, 8, 8), UNet(3, 1, 2, channels=(4, 8, 16)).eval())


@pytest.mark.parametrize("size", [(6, 5, 4), (13, 5, 12)])
def test_mirroring_is_applied_to_every_window(size):
    image = torch.randn(1, 1, *size)
    network = lambda x: x.roll(1, dims=2)  # noqa: E731  shifts along H; the mirrored pass shifts back
    inferer = SlidingWindowInferer(size, mirror_axes=[0])
    expected = (image.roll(1, dims=2) + image.roll(-1, dims=2)) / 2
    torch.testing.assert_close(inferer(image, network), expected)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_runs_the_network_in_it_and_blends_in_float32(precision):
    seen = []

    def network(images):
        logits = torch.nn.functional.conv3d(images, torch.ones(1, 2, 1, 1, 1))
        seen.append(logits.dtype)
        return logits

    image = torch.randn(1, 2, 12, 8, 8)
    logits = SlidingWindowInferer(8, precision=precision)(image, network)
    assert set(seen) == {getattr(torch, precision)}
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, image.sum(1, keepdim=True), atol=0.05, rtol=0.05)


def test_an_autocast_of_the_caller_is_left_alone():
    image, network = torch.randn(1, 2, 8, 8, 8), small_network(3)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        expected = network(image).float()
        assert torch.equal(SlidingWindowInferer(8)(image, network), expected)


def test_meta_data_come_back_and_decollate_per_item():
    affines = [torch.diag(torch.tensor([s, 1.0, 2.0, 1.0], dtype=torch.float64)) for s in (1.0, 3.0)]
    items = [
        {"image": MetaTensor(torch.randn(2, 9, 6, 5), affine=a, meta={"case_id": f"case {i}"})}
        for i, a in enumerate(affines)
    ]
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))
    seen = []

    def network(images):
        seen.append(type(images))
        return per_voxel(images)

    batch["pred"] = SlidingWindowInferer(4)(batch["image"], network)
    assert set(seen) == {torch.Tensor}  # windows without the cost of meta data
    for item, affine, i in zip(decollate_batch(batch), affines, range(2), strict=True):
        assert item["pred"].meta["case_id"] == f"case {i}"
        assert torch.equal(item["pred"].affine, affine)
        torch.testing.assert_close(item["pred"].as_tensor(), per_voxel(item["image"].as_tensor()[None])[0])


def test_further_arguments_reach_the_network():
    image = torch.randn(1, 1, 6, 6)
    found = SlidingWindowInferer(4)(image, lambda x, factor, *, shift: x * factor + shift, 2.0, shift=1.0)
    torch.testing.assert_close(found, image * 2 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 1.0}, "overlap 1.0"),
        ({"overlap": [0.5, -0.1]}, "overlap"),
        ({"mode": "hann"}, "mode hann"),
        ({"padding_mode": "symmetric"}, "padding_mode symmetric"),
        ({"sw_batch_size": 0}, "sw_batch_size 0"),
        ({"precision": "int8"}, "precision int8"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SlidingWindowInferer(8, **arguments)


def test_what_does_not_fit_the_inputs_or_the_network_is_refused():
    image = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(ConfigError, match=r"roi_size \[8, 8\]; expected 3 entries"):
        SlidingWindowInferer([8, 8])(image, per_voxel)
    with pytest.raises(ConfigError, match="overlap"):
        SlidingWindowInferer(8, overlap=[0.5, 0.5])(image, per_voxel)
    with pytest.raises(ConfigError, match=r"shape \(8, 8, 8\)"):
        SlidingWindowInferer(8)(image[0, 0], per_voxel)
    with pytest.raises(ConfigError, match="returns a list"):
        SlidingWindowInferer(8)(image, lambda x: [x, x])
    with pytest.raises(ConfigError, match=r"logits of shape \(1, 1, 4, 4, 4\)"):
        SlidingWindowInferer(8)(image, lambda x: x[:, :, ::2, ::2, ::2])


def test_gradients_are_not_recorded():
    network = small_network(3)
    assert not SlidingWindowInferer(8)(torch.randn(1, 2, 12, 8, 8), network).requires_grad
