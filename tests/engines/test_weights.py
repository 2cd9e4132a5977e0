"""One file of weights, or several that answer as one."""

import pytest
import torch

from pipeline.engines import with_weights
from pipeline.errors import BundleError, ConfigError
from pipeline.inference import mean_logits


@pytest.fixture
def files(tmp_path):
    paths = []
    for seed in range(3):
        torch.manual_seed(seed)
        paths.append(str(tmp_path / f"fold{seed}.pt"))
        torch.save(torch.nn.Conv3d(1, 2, 3, padding=1).state_dict(), paths[-1])
    return paths


def network():
    return torch.nn.Conv3d(1, 2, 3, padding=1)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_several_files_are_the_mean_of_their_networks(files, average):
    cpu, image = torch.device("cpu"), torch.randn(1, 1, 4, 5, 6)
    ensemble = with_weights(network(), files, cpu, average)
    singles = [with_weights(network(), file, cpu) for file in files]
    assert not ensemble.training
    with torch.no_grad():
        torch.testing.assert_close(ensemble(image), mean_logits([single(image) for single in singles], average))


def test_a_list_of_one_is_that_network(files):
    found = with_weights(network(), files[:1], torch.device("cpu"))
    assert type(found) is torch.nn.Conv3d


def test_none_and_missing_ones_are_refused(files, tmp_path):
    with pytest.raises(ConfigError, match="empty list of weights"):
        with_weights(network(), [], torch.device("cpu"))
    with pytest.raises(BundleError, match=r"other\.pt"):
        with_weights(network(), [files[0], str(tmp_path / "other.pt")], torch.device("cpu"))


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(files, lost):
    state = torch.load(files[0], weights_only=True)
    state["weight"][0, 0, 1, 1, 1] = lost
    torch.save(state, files[0])
    with pytest.raises(BundleError, match=r"NaN or infinite values in 1 of 2 tensors \['weight'\]"):
        with_weights(network(), files[0], torch.device("cpu"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], r"no tensors by name \(list\)"),
        (torch.ones(3), r"no tensors by name \(Tensor\)"),
        ({"weight": 1.0, "bias": None}, r"no tensors by name \(dict\)"),
        ({"network": {}, "average": {}, "optimizer": {}}, r"a checkpoint of a training(.|\n)*take models/model\.pt"),
        ({"weight": torch.ones(2, 1, 3, 3, 3).long(), "bias": torch.ones(2)}, "another type in 1 of 2 tensors"),
        ({"weight": torch.ones(2, 1, 3, 3, 3).to_sparse(), "bias": torch.ones(2)}, "another type in 1 of 2 tensors"),
    ],
)
def test_what_is_no_state_dict_of_floats_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(BundleError, match=said):
        with_weights(network(), str(tmp_path / "x.pt"), torch.device("cpu"))
