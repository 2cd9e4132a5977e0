"""Noise, blur, brightness, contrast, gamma, bias field, low resolution, dropouts: values against formulas and scipy."""

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, RandSimulateLowResolution
from scipy import ndimage
from scipy.interpolate import BSpline

from pipeline.errors import ConfigError
from pipeline.transforms import (
    RandBiasFieldd,
    RandBlurd,
    RandBrightnessd,
    RandChannelDropoutd,
    RandContrastd,
    RandGammad,
    RandLowResolutiond,
    RandNoised,
    RandSliceDropoutd,
)

SPACING = (1.0, 0.8, 5.0)
RNG = np.random.default_rng(0)
IMAGE = torch.from_numpy(RNG.normal(size=(2, 13, 12, 7)).astype(np.float32))


def changed(transform, image=IMAGE, spacing=SPACING, seed=0) -> tuple[torch.Tensor, dict]:
    transform.set_random_state(seed)
    drawn = transform.draw(image.shape, spacing)
    return transform.apply(image[None], [drawn], [spacing])[0], drawn


def test_noise_has_the_drawn_deviation_and_is_white():
    image = torch.zeros(2, 60, 60, 20)
    result, drawn = changed(RandNoised("image", prob=1.0, std=[0.05, 0.2], channel_wise=True), image)
    for channel, std in zip(result, drawn["std"], strict=True):
        assert 0.05 <= std <= 0.2
        assert float(channel.std()) == pytest.approx(std, rel=0.02)
        assert float(channel.mean()) == pytest.approx(0, abs=0.01 * std * 5)
        neighbours = float((channel[1:] * channel[:-1]).mean()) / std**2
        assert neighbours == pytest.approx(0, abs=0.02)
    assert float((result[0] * result[1]).mean()) == pytest.approx(0, abs=2e-3 * 0.2)


def test_blur_is_one_gaussian_in_millimetres():
    result, drawn = changed(RandBlurd("image", prob=1.0, sigma_mm=[1.0, 3.0], channel_wise=True))
    for before, after, sigma in zip(IMAGE, result, drawn["sigma_mm"], strict=True):
        expected = ndimage.gaussian_filter(before.double().numpy(), [sigma / side for side in SPACING], mode="mirror")
        np.testing.assert_allclose(after, expected, atol=1e-6)


def test_blur_by_default_follows_the_finest_voxel_side():
    sigmas = [
        RandBlurd("image").set_random_state(s)._draw((1, 4, 4, 4), (2.0, 3.0, 9.0))["sigma_mm"][0] for s in range(50)
    ]
    assert 1.0 <= min(sigmas) < 1.1
    assert 1.9 < max(sigmas) <= 2.0


def test_brightness():
    transform = RandBrightnessd("image", prob=1.0, factor=[0.5, 2.0], offset=[-1.0, 1.0], channel_wise=True)
    result, drawn = changed(transform)
    for channel in range(2):
        expected = IMAGE[channel] * drawn["factor"][channel] + drawn["offset"][channel]
        torch.testing.assert_close(result[channel], expected)


def test_contrast_keeps_mean_and_range():
    image = IMAGE + 4
    result, drawn = changed(RandContrastd("image", prob=1.0, factor=0.6), image)
    assert drawn["factor"] == [0.6, 0.6]
    mean = image.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(result, mean + 0.6 * (image - mean), rtol=0, atol=1e-5)
    stronger, _ = changed(RandContrastd("image", prob=1.0, factor=1.5), image)
    for before, after in zip(image, stronger, strict=True):
        assert float(after.min()) == float(before.min())
        assert float(after.max()) == float(before.max())
        assert float(after.std()) > float(before.std())


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("retain", [False, True])
def test_gamma_equals_monai(invert, retain):
    result, drawn = changed(RandGammad("image", prob=1.0, retain_stats=retain, invert_prob=float(invert)))
    assert drawn["invert"] is invert
    for before, after in zip(IMAGE, result, strict=True):
        reference = AdjustContrast(drawn["gamma"][0], invert_image=invert, retain_stats=retain)(before[None])[0]
        torch.testing.assert_close(after, torch.as_tensor(reference), rtol=0, atol=2e-4)  # MONAI adds 1e-7 to the range


def test_gamma_retains_mean_and_deviation():
    result, _ = changed(RandGammad("image", prob=1.0, gamma=2.0))
    for before, after in zip(IMAGE.double(), result.double(), strict=True):
        assert float(after.mean()) == pytest.approx(float(before.mean()), abs=1e-6)
        assert float(after.std()) == pytest.approx(float(before.std()), rel=1e-6)


def test_bias_field_is_the_spline_in_millimetres_and_leaves_the_background():
    image = IMAGE.clone()
    image[:, :4] = 0
    result, drawn = changed(RandBiasFieldd("image", prob=1.0, std=0.4, control_mm=12.0), image)
    assert (result[:, :4] == 0).all()
    darkest = image.amin((1, 2, 3), keepdim=True)
    field = ((result - darkest) / (image - darkest))[:, 4:].log().double()
    (control,) = np.asarray(drawn["control"])
    expected = control
    for size, side in zip(image.shape[1:], SPACING, strict=True):
        # The middle of the axis lies in the middle of the control points.
        places = (np.arange(size) - (size - 1) / 2) * side / 12.0 + (expected.shape[0] - 1) / 2
        weights = np.stack(
            [
                np.nan_to_num(BSpline.basis_element(np.arange(n - 2, n + 3), extrapolate=False)(places))
                for n in range(expected.shape[0])
            ]
        )
        expected = np.tensordot(expected, weights, axes=([0], [0]))
    bright = (image - darkest)[:, 4:] > 1
    for channel in range(2):
        ours, theirs = field[channel][bright[channel]], torch.from_numpy(expected)[4:][bright[channel]]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_bias_field_has_the_drawn_deviation():
    transform = RandBiasFieldd("image", prob=1.0, std=0.3, control_mm=10.0)
    image = torch.zeros(1, 40, 40, 40)
    image[0, 0, 0, 0] = -1.0
    image[0, 1:] = 1.0
    logs = [((changed(transform, image, (1.0, 1.0, 1.0), seed)[0][0, 1:] + 1) / 2).log() for seed in range(6)]
    assert float(torch.stack(logs).std()) == pytest.approx(0.3, rel=0.1)


def test_low_resolution_leaves_thick_axes_and_blurs_fine_ones():
    result, drawn = changed(RandLowResolutiond("image", prob=1.0, resolution_mm=4.0))
    assert drawn["resolution_mm"] == [4.0, 4.0]
    # Nothing happens along the third axis, whose voxels are 5 mm: each slice changes as it would alone.
    alone, _ = changed(RandLowResolutiond("image", prob=1.0, resolution_mm=4.0), IMAGE[..., 3], SPACING[:2])
    torch.testing.assert_close(result[..., 3], alone, rtol=0, atol=1e-6)
    same, _ = changed(RandLowResolutiond("image", prob=1.0, resolution_mm=0.7))
    assert torch.equal(same, IMAGE)


def test_low_resolution_is_near_monais_for_a_smooth_image():
    x, y = np.meshgrid(np.linspace(0, 3, 24), np.linspace(0, 2, 30), indexing="ij")
    image = torch.from_numpy(np.sin(x + y)[None].astype(np.float32))
    ours, _ = changed(RandLowResolutiond("image", prob=1.0, resolution_mm=2.0), image, (1.0, 1.0))
    theirs = RandSimulateLowResolution(prob=1.0, zoom_range=(0.5, 0.5), upsample_mode="bilinear")(image)
    # Theirs takes the nearest voxel where a larger one holds a mean: half a voxel's difference.
    assert float((ours - image)[:, 2:-2, 2:-2].abs().max()) < 0.02
    assert float((ours - torch.as_tensor(theirs)).abs().max()) < 0.15


def test_low_resolution_along_one_axis():
    transform = RandLowResolutiond("image", prob=1.0, resolution_mm=6.0, axes="one")
    seen = set()
    for seed in range(12):
        result, drawn = changed(transform, seed=seed)
        (axis,) = drawn["axes"]
        seen.add(axis)
        others = tuple(other + 1 for other in range(3) if other != axis)
        # Sums over the other axes' voxels are filtered along the one; a sum along it is not kept at the borders.
        filtered, _ = changed(
            RandLowResolutiond("image", prob=1.0, resolution_mm=6.0),
            IMAGE.mean(others)[:, :, None],
            (SPACING[axis], 100.0),
        )
        torch.testing.assert_close(result.mean(others), filtered[..., 0], rtol=0, atol=1e-6)
    assert seen == {0, 1, 2}
    with pytest.raises(ConfigError, match="axes='two'"):
        RandLowResolutiond("image", axes="two")


def test_slices_are_lost_across_the_thick_axis():
    result, drawn = changed(RandSliceDropoutd("image", prob=1.0, most=3, value=-9.0), seed=1)
    assert drawn["axis"] == 2
    assert 1 <= len(drawn["slices"]) <= 3
    for index in range(7):
        if index in drawn["slices"]:
            assert (result[..., index] == -9.0).all()
        else:
            assert torch.equal(result[..., index], IMAGE[..., index])
    transform = RandSliceDropoutd("image", prob=1.0, most=99)
    assert all(len(transform.set_random_state(s).draw((1, 5, 5, 3), SPACING)["slices"]) < 3 for s in range(30))
    assert transform.draw((1, 5, 5, 5), (1.0, 1.0, 1.0))["axis"] == 2


def test_of_the_channels_that_are_there_one_stays():
    transform = RandChannelDropoutd("image", prob=1.0, most=5).set_random_state(0)
    image = torch.ones(4, 3, 3)
    lost = set()
    for _ in range(60):
        present = torch.tensor([True, False, True, True])
        result = transform({"image": image, "present": present})["image"]
        zeroed = {c for c in range(4) if not result[c].any()}
        assert 1 not in zeroed  # the absent one is not counted, and is ZeroAbsentChannelsd's
        assert 1 <= len(zeroed) <= 2
        assert (result[sorted({0, 1, 2, 3} - zeroed)] == 1).all()
        lost |= zeroed
    assert lost == {0, 2, 3}
