import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.special import softmax

from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.inference import DenseCRFd, dense_crf
from pipeline.inference.permutohedral import PermutohedralLattice

WIDTHS = {"smoothness_mm": 2.0, "appearance_mm": 6.0, "appearance_intensity": 0.4}


def brute_force(
    logits, image, spacing_mm, smoothness_weight, appearance_weight, iterations, smoothness_mm, appearance_mm,
    appearance_intensity,
):  # fmt: skip
    """The mean field of the paper's algorithm 1, every pair of voxels on its own, float64."""
    voxels = [np.array(v) for v in np.ndindex(logits.shape[1:])]
    n = len(voxels)
    smoothness, appearance = np.empty((n, n)), np.empty((n, n))
    for i, a in enumerate(voxels):
        for j, b in enumerate(voxels):
            mm = np.sum(((a - b) * np.array(spacing_mm)) ** 2)
            intensity = np.sum((image[(slice(None), *a)] - image[(slice(None), *b)]) ** 2)
            smoothness[i, j] = np.exp(-mm / 2 / smoothness_mm**2)
            appearance[i, j] = np.exp(-mm / 2 / appearance_mm**2 - intensity / 2 / appearance_intensity**2)
    for kernel in (smoothness, appearance):
        total = kernel.sum(1)
        kernel /= np.sqrt(total[:, None] * total[None, :])
    kernel = smoothness_weight * smoothness + appearance_weight * appearance
    unary = logits.reshape(len(logits), n).astype(np.float64)
    probabilities = softmax(unary, axis=0)
    others = 1 - np.eye(len(logits))
    for _ in range(iterations):
        probabilities = softmax(unary - others @ (probabilities @ kernel.T), axis=0)
    return probabilities.reshape(logits.shape)


def noisy_case(size, classes=3, channels=1, seed=0):
    """Two or three halves that the image shows clearly and the logits badly."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(np.indices(size)[0] * classes // size[0], classes - 1)
    image = np.stack([truth + 0.1 * rng.standard_normal(size) for _ in range(channels)])
    logits = 1.5 * (np.arange(classes).reshape(-1, *[1] * len(size)) == truth) + rng.standard_normal((classes, *size))
    return logits.astype(np.float32), image.astype(np.float32), truth


@pytest.mark.parametrize(
    ("size", "spacing_mm"), [((13, 11), (1.0, 2.5)), ((7, 6, 4), (0.7, 1.0, 3.0)), ((1, 9), (1, 1))]
)
def test_smoothness_alone_is_the_brute_force_mean_field(size, spacing_mm):
    logits, image, _ = noisy_case(size)
    settings = {"smoothness_weight": 2.0, "appearance_weight": 0.0, "iterations": 4, **WIDTHS}
    got = np.exp(dense_crf(logits, image, spacing_mm, **settings))
    np.testing.assert_allclose(got, brute_force(logits, image, spacing_mm, **settings), atol=2e-4)


@pytest.mark.parametrize(
    ("size", "spacing_mm", "channels"),
    [((15, 13), (1.0, 1.5), 1), ((8, 7, 4), (1.0, 1.0, 3.0), 1), ((14, 12), (1, 1), 3)],
)
def test_both_kernels_are_close_to_the_brute_force_mean_field(size, spacing_mm, channels):
    logits, image, _ = noisy_case(size, channels=channels)
    settings = {"smoothness_weight": 1.0, "appearance_weight": 3.0, "iterations": 5, **WIDTHS}
    got = np.exp(dense_crf(logits, image, spacing_mm, **settings))
    expected = brute_force(logits, image, spacing_mm, **settings)
    assert np.abs(got - expected).mean() < 0.01
    assert (got.argmax(0) == expected.argmax(0)).mean() > 0.985
    # Not because nothing has happened: the network's own labels are far from it.
    assert (logits.argmax(0) == expected.argmax(0)).mean() < 0.9


@pytest.mark.parametrize(("dimensions", "error"), [(1, 0.08), (2, 0.12), (3, 0.15), (4, 0.18), (5, 0.24)])
def test_the_lattices_weights_are_those_of_a_gaussian_within_the_stated_error(dimensions, error):
    positions = np.random.default_rng(0).uniform(0, 4, (600, dimensions))
    expected = np.exp(-0.5 * ((positions[:, None] - positions[None, :100]) ** 2).sum(-1))
    got = PermutohedralLattice(positions).filter(np.eye(600, 100))
    got *= (got * expected).sum() / (got * got).sum()  # up to a constant factor
    assert np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)) < error


def test_borders_move_to_where_the_image_has_them():
    logits, image, truth = noisy_case((24, 24), classes=2)
    before = (logits.argmax(0) == truth).mean()
    after = (dense_crf(logits, image, (1.0, 1.0)).argmax(0) == truth).mean()
    assert before < 0.9
    assert after > 0.995


def test_widths_are_in_millimetres():
    logits, image, _ = noisy_case((12, 9, 5))
    once = dense_crf(logits, image, (1.0, 1.0, 4.0), **WIDTHS)
    doubled = dict(WIDTHS, smoothness_mm=4.0, appearance_mm=12.0)
    np.testing.assert_allclose(dense_crf(logits, image, (2.0, 2.0, 8.0), **doubled), once, atol=1e-3)
    assert np.abs(dense_crf(logits, image, (2.0, 2.0, 8.0), **WIDTHS) - once).max() > 0.1


def test_without_weights_or_iterations_it_is_the_networks_own_answer():
    logits, image, _ = noisy_case((6, 5))
    own = softmax(logits, axis=0)
    for settings in ({"smoothness_weight": 0.0, "appearance_weight": 0.0}, {"iterations": 0}):
        np.testing.assert_allclose(np.exp(dense_crf(logits, image, (1.0, 1.0), **settings)), own, atol=1e-6)


def test_the_transform_takes_the_spacing_of_the_image():
    logits, image, _ = noisy_case((8, 7, 4))
    affine = torch.diag(torch.tensor([-0.5, 2.0, 3.0, 1.0], dtype=torch.float64))
    config = {
        "crf": {"_target_": "pipeline.inference.DenseCRFd", "keys": "pred", "iterations": 2, "appearance_mm": 4.0}
    }
    item = {"image": MetaTensor(torch.from_numpy(image), affine=affine), "pred": torch.from_numpy(logits), "other": 1}
    result = ConfigParser(config).get_parsed_content("crf")(item)
    expected = dense_crf(logits, image, (0.5, 2.0, 3.0), iterations=2, appearance_mm=4.0)
    torch.testing.assert_close(result["pred"], torch.from_numpy(expected))
    assert torch.equal(item["pred"], torch.from_numpy(logits))
    assert result["other"] == 1


def test_what_it_cannot_use_is_refused():
    logits, image, _ = noisy_case((6, 5))
    with pytest.raises(ConfigError, match="widths above 0"):
        dense_crf(logits, image, (1.0, 1.0), appearance_mm=0.0)
    for settings in ({"iterations": 1.5}, {"appearance_mm": "20"}, {"smoothness_weight": float("nan")}):
        with pytest.raises(ConfigError, match="widths above 0"):
            dense_crf(logits, image, (1.0, 1.0), **settings)
        with pytest.raises(ConfigError, match="widths above 0"):
            DenseCRFd(**settings)
    with pytest.raises(ConfigError, match="two or more"):
        dense_crf(logits[:1], image, (1.0, 1.0))
    with pytest.raises(GeometryError, match="same spatial shape"):
        dense_crf(logits, image[:, 1:], (1.0, 1.0))
    with pytest.raises(GeometryError, match="for each axis"):
        dense_crf(logits, image, (1.0,))
    with pytest.raises(ConfigError, match="wider kernels"):
        dense_crf(logits, image * 1e9 * np.arange(1, 6), (1e9, 1e9), appearance_mm=1.0, appearance_intensity=1e-9)
    with pytest.raises(ConfigError, match="MetaTensor"):
        DenseCRFd()({"image": torch.from_numpy(image), "pred": torch.from_numpy(logits)})
    with pytest.raises(ConfigError, match="whole image"):
        DenseCRFd()({"image": MetaTensor(torch.from_numpy(image)), "pred": [logits]})


@pytest.mark.parametrize("entry", [0, 1])
def test_values_that_are_not_finite_are_refused_before_they_spread(entry):
    values = [np.zeros((2, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32)]
    values[entry][0, 1, 2] = np.nan
    with pytest.raises(DataError, match=f"{('logits', 'an image')[entry]} with 1 NaN"):
        dense_crf(*values, (1.0, 1.0))
