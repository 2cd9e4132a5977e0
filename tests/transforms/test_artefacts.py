"""Ghosts, spikes and motion of MR scans, against Fourier transforms of the whole image."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.errors import ConfigError
from pipeline.transforms import RandGhostingd, RandMotiond, RandSpiked
from pipeline.transforms.ghosting import ghosting_matrix
from pipeline.transforms.motion import positioned

SPACING = (1.0, 0.8, 5.0)
RNG = np.random.default_rng(0)
IMAGE = RNG.gamma(4, 1, size=(2, 14, 15, 6)).astype(np.float32)


def changed(transform, image=IMAGE, spacing=SPACING, seed=0) -> tuple[np.ndarray, dict]:
    drawn = transform.set_random_state(seed).draw(image.shape, spacing)
    return transform.apply(torch.from_numpy(image)[None], [drawn], [spacing])[0].numpy(), drawn


@pytest.mark.parametrize("seed", range(4))
def test_ghosting_weakens_lines_of_k_space(seed):
    result, drawn = changed(RandGhostingd("image", prob=1.0), seed=seed)
    axis = drawn["axis"] + 1
    before, after = np.fft.fft(IMAGE.astype(float), axis=axis), np.fft.fft(result.astype(float), axis=axis)
    size = IMAGE.shape[axis]
    for line in range(size):
        frequency = min(line, size - line)
        weak = frequency and frequency % drawn["ghosts"] == 0
        expected = before.take(line, axis) * (1 - drawn["strength"] if weak else 1)
        np.testing.assert_allclose(after.take(line, axis), expected, atol=1e-3)


def test_ghosts_of_a_point_stand_where_they_should():
    point = np.zeros(24)
    point[5] = 1
    ghosts = ghosting_matrix(24, 4, 0.5) @ point
    places = sorted(np.argsort(-np.abs(ghosts))[:4] % 6)
    assert places == [5, 5, 5, 5]  # 24 / 4 = 6 voxels apart
    assert ghosts[5] > 0.8


@pytest.mark.parametrize("shape", [(2, 14, 15, 6), (1, 12, 13)])
def test_spikes_are_two_points_of_k_space(shape):
    image = RNG.normal(size=shape).astype(np.float32)
    result, drawn = changed(RandSpiked("image", prob=1.0), image, SPACING[: len(shape) - 1])
    (wave,) = drawn["waves"]
    assert any(wave)
    for before, after in zip(image, result, strict=True):
        added = np.fft.fftn((after - before).astype(float))
        voxels, height = before.size, drawn["strength"] * before.std()
        place = tuple(waves % size for waves, size in zip(wave, before.shape, strict=True))
        opposite = tuple(-waves % size for waves, size in zip(wave, before.shape, strict=True))
        assert abs(added[place]) == pytest.approx(height * voxels / 2, rel=1e-3)
        assert abs(added[opposite]) == pytest.approx(height * voxels / 2, rel=1e-3)
        added[place] = added[opposite] = 0
        assert np.abs(added).max() < 1e-2 * height * voxels / 2


def test_spikes_are_never_a_shift_of_the_mean():
    for seed in range(30):
        result, _ = changed(RandSpiked("image", prob=1.0, spikes=3), IMAGE[:, :3, :3, :3], seed=seed)
        np.testing.assert_allclose(result.mean((1, 2, 3)), IMAGE[:, :3, :3, :3].mean((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_motion_equals_k_space_put_together_from_moved_images(seed):
    """Translations alone, by whole voxels, and brute force: the 3D transform, positions by `scipy.ndimage.shift`."""
    transform = RandMotiond("image", prob=1.0, movements=3).set_random_state(seed)
    drawn = transform.draw(IMAGE.shape, SPACING)
    whole = RNG.integers(-2, 3, (3, 3))
    drawn["rotations_degrees"] = np.zeros((3, 3)).tolist()
    drawn["translations_mm"] = (whole * SPACING).tolist()
    result = transform.apply(torch.from_numpy(IMAGE)[None], [drawn], [SPACING])[0].numpy()
    axis = drawn["axis"]
    size = IMAGE.shape[axis + 1]
    for before, after in zip(IMAGE.astype(float), result, strict=True):
        signal = before - before.min()
        bounds = [0, *(round(time * size) for time in drawn["times"]), size]
        moved = iter([ndimage.shift(signal, step, order=0, mode="mirror") for step in whole])
        lines = np.fft.fftshift(np.fft.fftn(signal))
        for first, last in itertools.pairwise(bounds):
            if not first <= size // 2 < last:
                part = [slice(None)] * 3
                part[axis] = slice(first, last)
                lines[tuple(part)] = np.fft.fftshift(np.fft.fftn(next(moved)))[tuple(part)]
        expected = before.min() + np.abs(np.fft.ifftn(np.fft.ifftshift(lines)))
        np.testing.assert_allclose(after, expected, atol=2e-4)


def test_motion_turns_in_millimetres():
    """A quarter turn in the plane of 1 x 2 mm voxels brings a bar of 8 mm along x onto 8 mm along y."""
    image = np.zeros((1, 17, 9, 1), np.float32)
    image[0, 4:13, 4] = 1  # 9 voxels of 1 mm
    turned = positioned(torch.from_numpy(image), [0.0, 0.0, 90.0], [0.0, 0.0, 0.0], (1.0, 2.0, 1.0))
    expected = np.zeros_like(image)
    expected[0, 8, 2:7] = 1  # 5 voxels of 2 mm
    np.testing.assert_allclose(turned[0, 8], expected[0, 8], atol=1e-5)
    moved = positioned(torch.from_numpy(image), [0.0, 0.0, 0.0], [-3.0, 4.0, 0.0], (1.0, 2.0, 1.0))
    expected = np.zeros_like(image)
    expected[0, 1:10, 6] = 1
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_motion_leaves_the_image_where_it_is():
    """Its middle of k-space stays, so a cube's centre of mass moves by far less than the patient did."""
    cube = np.zeros((1, 32, 32, 32), np.float32)
    cube[0, 10:22, 10:22, 10:22] = 1
    for seed in range(6):
        transform = RandMotiond("image", prob=1.0, translation_mm=4.0)
        result, _ = changed(transform, cube, (1.0, 1.0, 1.0), seed)
        centre = ndimage.center_of_mass(result[0].astype(float) ** 2)
        np.testing.assert_allclose(centre, [15.5] * 3, atol=0.5)
        assert np.abs(result - cube).max() > 1e-3


def test_what_a_config_may_not_say():
    with pytest.raises(ConfigError, match=r"axes=\[3\]"):
        RandGhostingd("image", axes=[3])
    with pytest.raises(ConfigError, match="ghosts=1"):
        RandGhostingd("image", ghosts=1)
    with pytest.raises(ConfigError, match="translation_mm=-1"):
        RandMotiond("image", translation_mm=-1)
    with pytest.raises(ConfigError, match="spikes=0"):
        RandSpiked("image", spikes=0)
