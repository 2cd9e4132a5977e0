"""Unpadded networks: tiles with what surrounds them, seamless; sections back to their files."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from pipeline.errors import ConfigError, GeometryError
from pipeline.inference import (
    OverlapTileInferer,
    Restored,
    SaveImageOnGridd,
    SlidingWindowInferer,
    output_margin,
    pad,
    restore_to_grid,
    tile_corners,
)
from pipeline.inference.restore import own_grid
from pipeline.io import read_section, write_section
from pipeline.networks import UNetAsPublished


class Unpadded(nn.Module):
    """A U-Net of two levels without padding: even sizes from 12 on lose 4 per side."""

    def __init__(self, spatial_dims=2, channels=1, classes=3):
        super().__init__()
        torch.manual_seed(0)
        conv, pool, up = {
            2: (nn.Conv2d, nn.MaxPool2d, nn.ConvTranspose2d),
            3: (nn.Conv3d, nn.MaxPool3d, nn.ConvTranspose3d),
        }[spatial_dims]
        self.first, self.pool, self.deep = conv(channels, 4, 3), pool(2), conv(4, 4, 3)
        self.up, self.last = up(4, 4, 2, 2), conv(8, classes, 3)
        self.output_margin, self.total_stride = (4,) * spatial_dims, (2,) * spatial_dims

    def forward(self, x):
        if any(n % 2 for n in x.shape[2:]):
            raise ConfigError(f"a size of {tuple(x.shape[2:])}", expected="even numbers")
        skip = self.first(x).relu()
        x = self.up(self.deep(self.pool(skip)).relu())
        crop = tuple(slice(2, n - 2) for n in skip.shape[2:])
        return self.last(torch.cat([skip[(..., *crop)], x], dim=1))


def whole(network, images):
    """One pass over the image, mirrored by the margin, and by one voxel more where its size is odd."""
    widths = [(4, 4 + n % 2) for n in images.shape[2:]]
    with torch.no_grad():
        logits = network(pad(images, widths))
    return logits[(..., *(slice(0, n) for n in images.shape[2:]))]


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((40, 30), (16, 16)),
        ((33, 47), (20, 12)),
        ((8, 9), 32),
        ((26, 22), (None, -1)),
        ((1, 3), 16),
        ((18, 13, 11), (16, 14, 12)),
        ((5, 30, 2), 16),
    ],
)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_tiles_give_what_one_pass_over_the_whole_image_gives(size, window, overlap, mode):
    network = Unpadded(len(size)).eval()
    images = torch.randn(2, 1, *size)
    expected = whole(network, images)
    logits = SlidingWindowInferer(window, sw_batch_size=3, overlap=overlap, mode=mode)(images, network)
    assert logits.shape == (2, 3, *size)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(20, 21), (1, 3), (12, 12)])
def test_the_whole_image_goes_through_the_published_unet_whatever_its_size(size):
    """Against one pass over more of the mirrored image than the smallest window has."""
    torch.manual_seed(0)
    network = UNetAsPublished(2, 1, 2, features=2, depth=2).eval()
    image = torch.randn(1, 1, *size)
    window = network.input_size_for([n + 8 for n in size])
    widths = [(m, w - n - m) for m, w, n in zip(network.output_margin, window, size, strict=True)]
    with torch.no_grad():
        whole = network(pad(image, widths))[..., : size[0], : size[1]]
    torch.testing.assert_close(SlidingWindowInferer(None)(image, network), whole, atol=1e-5, rtol=1e-5)


def test_a_network_that_does_not_tell_its_stride_has_seams():
    """What the alignment is for: without it, poolings fall otherwise in every second tile."""
    network = Unpadded().eval()
    images = torch.randn(1, 1, 33, 33)
    network.total_stride = (1, 1)
    logits = SlidingWindowInferer(18, overlap=0.0)(images, network)
    assert (logits - whole(network, images)).abs().max() > 1e-3


def test_mirroring_is_that_of_one_pass_too():
    network = Unpadded().eval()
    images = torch.randn(1, 1, 40, 30)
    expected = sum(whole(network, images.flip(dims)).flip(dims) for dims in ((), (2,), (3,), (2, 3))) / 4
    logits = SlidingWindowInferer(16, overlap=0.0, mirror_axes=(0, 1))(images, network)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_every_voxel_lies_in_a_tile_at_a_multiple_of_the_stride():
    random = np.random.default_rng(0)
    for _ in range(300):
        n, tile, stride = (int(v) for v in random.integers(1, 80, 3))
        overlap = float(random.choice([0, 0.25, 0.5, 0.9]))
        starts = [start for (start,) in tile_corners([n], [tile], [overlap], [stride])]
        assert starts[0] == 0
        assert starts[-1] + tile >= n
        assert all(b - a <= max(tile, 1) for a, b in pairwise(starts))
        if tile >= stride:
            assert all(start % stride == 0 for start in starts)
            assert starts[-1] + tile - n < stride or len(starts) == 1
        if len(starts) > 1 and stride == 1:
            assert max(np.diff(starts)) <= max(1, tile * (1 - overlap))


def test_what_does_not_fit_is_refused():
    network = Unpadded()
    with pytest.raises(ConfigError, match="twice the network's margin"):
        SlidingWindowInferer(8)(torch.zeros(1, 1, 20, 20), network)
    with pytest.raises(ConfigError, match="even numbers"):
        SlidingWindowInferer(17)(torch.zeros(1, 1, 20, 20), network)
    network.output_margin = (3, 3)
    with pytest.raises(ConfigError, match=r"logits of shape .*expected \(10, 10\)"):
        SlidingWindowInferer(16)(torch.zeros(1, 1, 20, 20), network)
    network.output_margin = (3, 3, 3)
    with pytest.raises(ConfigError, match="2 numbers of voxels"):
        SlidingWindowInferer(16)(torch.zeros(1, 1, 20, 20), network)


def test_the_margin_of_what_wraps_a_network():
    network = Unpadded(3)
    assert output_margin(nn.DataParallel(network), 3) == output_margin(network, 3) == (4, 4, 4)
    assert output_margin(nn.Conv2d(1, 1, 1), 2) == (0, 0)


def section_item(folder, shape=(9, 7), **entries):
    write_section(folder / "00.png", np.arange(np.prod(shape)).reshape(shape))
    meta = {"original_affine": np.eye(4), "spatial_shape": list(shape), "filename_or_obj": str(folder / "00.png")}
    image = MetaTensor(torch.zeros(1, *shape), affine=torch.eye(4, dtype=torch.float64), meta=meta)
    logits = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return {"image": image, "pred": logits, **entries}


def test_a_sections_result_is_a_png_of_its_own_pixels(tmp_path):
    item = section_item(tmp_path, relative="a")
    restored = Restored(probabilities_key="probabilities")(item)
    assert own_grid(restored["pred"]).shape == (9, 7)
    np.testing.assert_array_equal(restored["pred"][0], item["pred"].argmax(0))
    names = {"0": "membrane", "1": "cell"}
    save = SaveImageOnGridd(
        output_dir=tmp_path / "out", probabilities_key="probabilities", classes=names, label_values={"1": 255}
    )
    path = tmp_path / "out" / "a" / "00.png"
    assert save(restored)["pred_path"] == str(path)
    np.testing.assert_array_equal(read_section(path).array, 255 * item["pred"].argmax(0).numpy())
    probability = read_section(path.with_name("00_probability_cell.tif")).array
    np.testing.assert_allclose(probability, item["pred"].softmax(0)[1], atol=1e-6)


def test_a_result_of_another_size_is_refused_and_a_section_has_no_volume(tmp_path):
    item = section_item(tmp_path)
    with pytest.raises(ConfigError, match="it has no volume"):
        Restored(minimum_component_ml=1.0)(item)
    restored = Restored()(item)
    restored["pred"] = restored["pred"][:, :-1]
    with pytest.raises(GeometryError, match="9x7 pixels"):
        SaveImageOnGridd(output_dir=tmp_path / "out")(restored)
    assert not (tmp_path / "out").exists()


def test_sections_that_were_resampled_come_back(tmp_path):
    """Scores on half the resolution: each pixel of the section gets the class of the place it lies at."""
    scores = torch.zeros(2, 4, 3)
    scores[1, :2], scores[0, 2:] = 9, 9
    affine = np.diag([2.0, 2.0, 1.0, 1.0])
    affine[:2, 3] = 0.5
    labels, _ = restore_to_grid(scores, affine, own_grid(section_item(tmp_path, (8, 6))["image"]))
    np.testing.assert_array_equal(labels, np.repeat([1, 0], 4)[:, None] * np.ones((8, 6)))


def test_the_number_in_a_stack_is_part_of_the_name(tmp_path):
    item = Restored()(section_item(tmp_path))
    item["image"].meta["filename_or_obj"] = "x/stack.tif#2"
    saved = SaveImageOnGridd(output_dir=tmp_path / "out")(item)
    assert saved["pred_path"] == str(tmp_path / "out" / "stack_002.png")


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((40, 30), 16),
        ((33, 47), (20, 12)),
        ((8, 9), 32),
        ((26, 22), None),
        ((18, 13, 11), 16),
        ((5, 30, 2), (14, 18, 12)),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_overlap_tile_inferer_gives_what_one_pass_gives(size, window, batch):
    network, images = Unpadded(len(size)).eval(), torch.randn(2, 1, *size)
    logits = OverlapTileInferer(window, sw_batch_size=batch)(images, network)
    torch.testing.assert_close(logits, whole(network, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("spatial_dims", "size", "windows"), [(2, (50, 70), (28, 44)), (3, (20, 9, 33), (20, 28))])
def test_the_published_unets_are_seamless_for_any_valid_tile(spatial_dims, size, windows):
    torch.manual_seed(0)
    network = UNetAsPublished(spatial_dims, 1, 2, features=2, depth=1).eval()
    image = torch.randn(1, 1, *size)
    expected = OverlapTileInferer(None)(image, network)
    for window in windows:
        logits = OverlapTileInferer(window)(image, network)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_tiles_step_by_the_total_stride_and_nothing_is_predicted_twice():
    """Published: 388 of 572, stride 16: tiles begin at multiples of 384. Here: 8 of 16 and 6 of 14, stride 4."""

    class Strided(torch.nn.Module):
        output_margin, total_stride = (4, 4), (4, 4)

        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, windows):
            self.seen.append(float(windows[0, 0, 4, 4]))
            return windows[:, :, 4:-4, 4:-4] + 1

    image = torch.arange(16.0 * 16).reshape(1, 1, 16, 16)
    for window, starts in ((16, [0, 8]), (14, [0, 4, 8, 12])):
        network = Strided()
        logits = OverlapTileInferer(window)(image, network)
        assert torch.equal(logits, image + 1)
        assert sorted(network.seen) == [16.0 * i + j for i in starts for j in starts]
        sliding = Strided()
        assert torch.equal(SlidingWindowInferer(window, overlap=0.0)(image, sliding), logits)
        assert sliding.seen == network.seen


def test_of_two_tiles_that_reach_a_voxel_one_is_taken_as_it_is():
    """No blending: the second tile's answer begins where it begins."""

    class Numbered(torch.nn.Module):
        output_margin, total_stride = (2, 2), (4, 4)
        calls = 0

        def forward(self, windows):
            self.calls += 1
            return torch.full((1, 1, *(n - 4 for n in windows.shape[2:])), float(self.calls))

    logits = OverlapTileInferer((10, 10))(torch.randn(1, 1, 6, 10), Numbered())
    assert logits[0, 0, 0].tolist() == [1.0] * 4 + [2.0] * 6
