"""Slabs: the same logits, and the same labels on the case's own grid, without the whole volume of them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference import OverlapTileInferer, Restored, Slabs, SlidingWindowInferer, restore_to_grid


def network(spatial_dims, classes=4):
    torch.manual_seed(1)
    conv = torch.nn.Conv3d if spatial_dims == 3 else torch.nn.Conv2d
    return torch.nn.Sequential(conv(1, 4, 3, padding=1), torch.nn.ReLU(), conv(4, classes, 3, padding=1)).eval()


def together(slabs):
    """All pieces put together; NaN where none came, and every voxel of a neighbour as that neighbour gave it."""
    whole = None
    for place, piece in slabs:
        if whole is None:
            whole = torch.full((len(piece), *slabs.spatial_shape), torch.nan, device=piece.device)
        there = whole[(slice(None), *place)]
        assert torch.equal(there[~there.isnan()], piece[~there.isnan()])
        whole[(slice(None), *place)] = piece
    return whole


SIZES = [
    ((20, 17, 9), (8, 8, 4), 0.5),
    ((9, 17, 20), (8, 8, 8), 0.5),
    ((5, 4, 2), (16, 16, 16), 0.5),
    ((21, 1, 13), (8, 8, 8), 0.75),
    ((33, 16, 16), (8, 8, 8), 0.0),  # windows that abut
    ((19, 30), (8, 16), 0.6),
    ((8, 8), (8, 8), 0.5),
]


@pytest.mark.parametrize(("size", "window", "overlap"), SIZES)
@pytest.mark.parametrize("memory_mib", [1024, 0, 0.01])
def test_the_pieces_are_the_logits_of_the_whole_image(size, window, overlap, memory_mib):
    inferer = SlidingWindowInferer(window, overlap=overlap, sw_batch_size=3, memory_mib=memory_mib)
    image, net = torch.randn(1, 1, *size), network(len(size))
    slabs = inferer.slabs(image, net)
    assert slabs.spatial_shape == size
    found = together(slabs)
    assert torch.equal(found, inferer(image, net)[0])
    assert torch.equal(together(slabs), found)  # a second time, from the start


def test_pieces_follow_the_longest_axis_and_touch():
    size = (12, 40, 16)
    ends = [place[1].stop for place, _ in SlidingWindowInferer(8).slabs(torch.randn(1, 1, *size), network(3))]
    assert ends == sorted(ends)
    seen = torch.zeros(size, dtype=torch.int64)  # in how many pieces each pair of neighbours along the last axis lies
    for place, _ in SlidingWindowInferer(8).slabs(torch.randn(1, 1, *size), network(3)):
        seen[(*place[:2], slice(place[2].start, place[2].stop - 1))] += 1
    assert seen[..., :-1].min() >= 1


def test_what_waits_is_a_fraction_of_the_volume(monkeypatch):
    """Layers of 8 planes of 64 overlap by 4: with all in a file, no carry holds memory."""
    written = []
    from pipeline.inference import carry

    real = carry.tempfile.TemporaryFile

    def file(**kwargs):
        written.append(real(**kwargs))
        return written[-1]

    monkeypatch.setattr(carry.tempfile, "TemporaryFile", file)
    inferer = SlidingWindowInferer(8, memory_mib=0)
    slabs = inferer.slabs(torch.randn(1, 1, 64, 16, 16), network(3))
    sizes = [max(f.seek(0, 2) for f in written) for _ in slabs if written]
    layer = 4 * 16 * 16 * 4 * 4  # classes x plane x overlap x bytes
    assert max(sizes) == layer
    assert all(f.closed for f in written)


def test_a_full_disk_is_an_error_in_words(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.inference.carry.tempfile.TemporaryFile", full)
    inferer = SlidingWindowInferer(8, memory_mib=0)
    with pytest.raises(DataError, match=r"no space left on device .*TMPDIR"):
        list(inferer.slabs(torch.randn(1, 1, 16, 8, 8), network(3)))


def test_tiles_come_in_slabs_too():
    class Unpadded(torch.nn.Module):
        output_margin, total_stride = (1, 1), (1, 1)
        conv = torch.nn.Conv2d(1, 2, 3)

        def forward(self, images):
            return self.conv(images)

    for inferer in (OverlapTileInferer(10, memory_mib=0), SlidingWindowInferer(10, overlap=0.5)):
        image, net = torch.randn(1, 1, 21, 30), Unpadded()
        assert torch.equal(together(inferer.slabs(image, net)), inferer(image, net)[0])


def test_an_image_pyramid_is_one_piece():
    inferer = SlidingWindowInferer(8, scales=[1.0, 0.5])
    image, net = torch.randn(1, 1, 12, 9, 8), network(3)
    ((place, piece),) = inferer.slabs(image, net)
    assert place == (slice(0, 12), slice(0, 9), slice(0, 8))
    assert torch.equal(piece, inferer(image, net)[0])


def test_slabs_are_of_one_image():
    with pytest.raises(ConfigError, match="one at a time"):
        SlidingWindowInferer(8).slabs(torch.zeros(2, 1, 8, 8, 8), network(3))


def oblique(degrees):
    turn = np.eye(4)
    angle = np.deg2rad(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


GRIDS = {
    "the same": Grid((30, 18, 12), np.eye(4)),
    "turned round": Grid((12, 30, 18), np.array([[0, -1, 0, 29], [0, 0, -1, 17], [1, 0, 0, 0], [0, 0, 0, 1.0]])),
    "finer": Grid((61, 37, 25), np.diag([0.5, 0.5, 0.5, 1])),
    "coarser, shifted": Grid((11, 10, 12), np.array([[2.7, 0, 0, 0.3], [0, 1.9, 0, -3], [0, 0, 1, 0.5], [0, 0, 0, 1]])),
    "oblique": Grid((34, 22, 12), oblique(12)),
    "a quarter turn about a voxel": Grid((18, 30, 12), oblique(90) + np.array([[0] * 3 + [20.0]] + [[0] * 4] * 3)),
    "beside it": Grid((5, 5, 5), np.eye(4) + 100 * np.eye(4, k=3)),
}


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize("regions", [None, [1, 3, 2, 7]])
def test_restored_slabs_are_restored_logits(name, regions):
    inferer, image, net = SlidingWindowInferer(8, memory_mib=0), torch.randn(1, 1, 30, 18, 12), network(3)
    grid, settings = GRIDS[name], {"regions": regions, "keep_probabilities": True}
    expected, probabilities = restore_to_grid(inferer(image, net)[0], np.eye(4), grid, **settings)
    labels, found = restore_to_grid(inferer.slabs(image, net), np.eye(4), grid, **settings)
    assert torch.equal(labels, expected)
    torch.testing.assert_close(found, probabilities, atol=1e-5, rtol=0)
    assert expected.any() == (name != "beside it")
    labels, _ = restore_to_grid(inferer.slabs(image, net), np.eye(4), grid, regions=regions)
    assert torch.equal(labels, expected)


def test_a_section_in_slabs():
    inferer, image, net = SlidingWindowInferer(8), torch.randn(1, 1, 30, 18), network(2)
    grid = Grid((45, 27), np.diag([2 / 3, 2 / 3, 1, 1]))
    expected, _ = restore_to_grid(inferer(image, net)[0], np.eye(4), grid)
    labels, _ = restore_to_grid(inferer.slabs(image, net), np.eye(4), grid)
    assert labels.shape == (45, 27)
    assert torch.equal(labels, expected)


def test_the_transform_takes_slabs_as_it_takes_logits():
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    meta = {"original_affine": np.diag([1.0, 1.0, 3.0, 1.0]), "spatial_shape": [40, 24, 9], "case_id": "sub-1"}
    image = MetaTensor(torch.randn(1, 20, 12, 9), affine=affine, meta=meta)
    inferer, net = SlidingWindowInferer(8, mirror_axes=[0]), network(3)
    slabs = inferer.slabs(image[None], net)
    assert isinstance(slabs, Slabs)
    restored = Restored(minimum_component_ml=0.05)
    expected = restored({"image": image, "pred": inferer(image[None], net)[0]})["pred"]
    found = restored({"image": image, "pred": slabs})["pred"]
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert found.meta["case_id"] == "sub-1"
    with pytest.raises(GeometryError, match="case sub-1"):
        restored({"image": image[:, 1:], "pred": slabs})
