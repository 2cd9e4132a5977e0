"""Means of several answers: mirror images, networks, sizes."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference import Ensemble, SlidingWindowInferer, mean_logits, mirrored
from pipeline.inference.rescaling import rescaled


def convolution(seed, classes=3):
    torch.manual_seed(seed)
    return torch.nn.Conv3d(1, classes, 3, padding=1).eval()


@pytest.fixture
def answers():
    return [torch.randn(2, 4, 5, 3) * 4 for _ in range(3)]


def test_probabilities_have_the_arithmetic_mean_and_logits_the_geometric(answers):
    probabilities = torch.stack([a.softmax(1) for a in answers])
    torch.testing.assert_close(mean_logits(answers, "probabilities").softmax(1), probabilities.mean(0))
    geometric = probabilities.log().mean(0).exp()
    torch.testing.assert_close(mean_logits(answers).softmax(1), geometric / geometric.sum(1, keepdim=True))


def test_a_class_that_one_answer_excludes_stays_possible_and_finite():
    sure, other = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    mean = mean_logits([sure, other, other], "probabilities")
    assert mean.isfinite().all()
    torch.testing.assert_close(mean.softmax(1), torch.tensor([[1 / 3, 2 / 3]]))
    assert mean_logits([sure], "probabilities").isfinite().all()


def test_the_answers_are_left_as_they_were(answers):
    before = [a.clone() for a in answers]
    mean_logits(answers)
    mean_logits(answers, "probabilities")
    assert all(torch.equal(a, b) for a, b in zip(answers, before, strict=True))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_mirror_images_are_averaged_as_asked_together_or_one_by_one(average):
    network, images, batches = convolution(0), torch.randn(2, 1, 5, 6, 7), []

    def counted(x):
        batches.append(len(x))
        return network(x)

    with torch.no_grad():
        passes = [network(images.flip(d)).flip(d) for d in ([], [2], [4], [2, 4])]
        expected = mean_logits(passes, average)
        for together, seen in ((False, [2] * 4), (True, [8]), (None, [2] * 4)):
            batches.clear()
            found = mirrored(counted, [0, 2], average, together)(images)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            assert batches == seen


def test_an_ensemble_is_the_mean_of_its_networks():
    networks, image = [convolution(seed) for seed in range(3)], torch.randn(1, 1, 12, 9, 8)
    inferer = SlidingWindowInferer(8)
    for average in ("logits", "probabilities"):
        ensemble = Ensemble(networks, average)
        with torch.no_grad():
            torch.testing.assert_close(ensemble(image), mean_logits([n(image) for n in networks], average))
    found = inferer(image, Ensemble(networks))
    torch.testing.assert_close(found, torch.stack([inferer(image, n) for n in networks]).mean(0), atol=1e-5, rtol=0)


def test_an_ensemble_has_its_networks_stride_and_margin():
    networks = [convolution(seed) for seed in range(2)]
    assert not hasattr(Ensemble(networks), "output_margin")
    for network in networks:
        network.output_margin, network.total_stride = (1, 2, 3), (4, 4, 4)
    ensemble = Ensemble(networks)
    assert (ensemble.output_margin, ensemble.total_stride) == ((1, 2, 3), (4, 4, 4))
    networks[1].output_margin = (1, 1, 1)
    with pytest.raises(ConfigError, match=r"output_margin of .* and "):
        Ensemble(networks)
    with pytest.raises(ConfigError, match="no networks"):
        Ensemble([])


def test_a_pyramid_of_a_linear_image_changes_nothing():
    """Interpolation is exact on a ramp, but for the border, where it has only one side."""
    ramp = torch.arange(24.0).reshape(1, 1, 24, 1, 1).expand(1, 1, 24, 16, 8)
    for scale in (0.5, 2.0):
        found = rescaled(ramp, scale, lambda x: x)
        torch.testing.assert_close(found[:, :, 1:-1], ramp[:, :, 1:-1], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="average"):
        SlidingWindowInferer(8, average="median")


def test_each_size_is_predicted_and_averaged():
    seen, image = [], torch.randn(1, 1, 20, 12, 9)
    network = convolution(4)

    def noting(windows):
        seen.append(tuple(windows.shape[2:]))
        return network(windows)

    found = SlidingWindowInferer(None, scales=[1.0, 0.5, 1.5], average="probabilities")(image, noting)
    assert seen == [(20, 12, 9), (10, 6, 4), (30, 18, 14)]
    with torch.no_grad():
        expected = mean_logits([rescaled(image, scale, network) for scale in (1.0, 0.5, 1.5)], "probabilities")
    torch.testing.assert_close(found, expected)


def test_what_is_finer_than_the_copy_is_averaged_not_picked():
    stripes = torch.tensor([0.0, 1.0]).repeat(8).reshape(1, 1, 16, 1, 1).expand(1, 1, 16, 4, 4)
    copies = []
    rescaled(stripes, 0.5, lambda x: copies.append(x) or x)
    torch.testing.assert_close(copies[0], torch.full((1, 1, 8, 2, 2), 0.5))
