"""Precision is chosen by timing, and can be asked for by the name that a run recorded."""

import time

import pytest
import torch

from pipeline.engines.precision import Precision, candidates, fastest
from pipeline.errors import ConfigError

CPU = torch.device("cpu")
LAYER = torch.nn.Conv3d(2, 4, 3, padding=1)


@pytest.mark.parametrize("precision", candidates(CPU, LAYER))
def test_a_recorded_name_gives_the_same_precision_back(precision):
    again = Precision.parse(precision.name)
    assert (again.dtype, again.channels_last) == (precision.dtype, precision.channels_last)


@pytest.mark.parametrize("name", ["half", "bfloat16+fast", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ConfigError, match="auto"):
        Precision.parse(name)


def test_what_the_cpu_has_no_kernels_for_is_not_tried(monkeypatch):
    """There one step takes a minute where float32 takes two seconds."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert [candidate.name for candidate in candidates(CPU, LAYER)] == ["float32", "float32+channels_last"]


def shortcut(convolution=torch.nn.Conv2d, channels=4, stride=2):
    return torch.nn.Sequential(torch.nn.ReLU(), convolution(channels, 8, 1, stride=stride))


def test_a_layer_that_would_write_past_its_buffer_is_not_trained_in_channels_last(monkeypatch):
    """The strided 1x1 shortcut of a small 2D residual encoder, where there is no AVX-512."""
    network = shortcut()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not any(candidate.channels_last for candidate in candidates(CPU, network))
    with pytest.raises(ConfigError, match=r"'float32\+channels_last'(.|\n)*layer 1,(.|\n)*auto, or float32"):
        Precision.parse("float32+channels_last").prepare(network)
    Precision().prepare(network)
    for sound in (shortcut(torch.nn.Conv3d), shortcut(channels=8), shortcut(stride=1), LAYER):
        assert any(candidate.channels_last for candidate in candidates(CPU, sound))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert any(candidate.channels_last for candidate in candidates(CPU, network))


def test_the_fastest_candidate_wins_and_all_timings_are_kept(has_bfloat16):
    slow = {torch.float32: 0.03, torch.bfloat16: 0.01}
    chosen = fastest(lambda precision: time.sleep(slow[precision.dtype] + 0.005 * precision.channels_last), CPU, LAYER)
    assert chosen.dtype is torch.bfloat16
    assert not chosen.channels_last
    assert set(chosen.seconds) == {candidate.name for candidate in candidates(CPU, LAYER)}


def test_long_steps_are_tried_as_often_as_they_must_be(monkeypatch, has_bfloat16):
    clock, tried = [0.0], []

    def step(precision):
        tried.append(precision.name)
        clock[0] += {torch.float32: 30.0, torch.bfloat16: 10.0}[precision.dtype]

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert fastest(step, CPU, LAYER).dtype is torch.bfloat16
    assert [tried.count(candidate.name) for candidate in candidates(CPU, LAYER)] == [1, 1, 2, 2]


def test_storage_order_changes_no_value():
    network = torch.nn.Conv3d(2, 4, 3, padding=1)
    image = torch.randn(1, 2, 5, 6, 7)
    expected = network(image)
    precision = Precision(channels_last=True)
    precision.prepare(network)
    stored = precision.store(image)
    assert stored.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(network(stored), expected)


def test_autocast_runs_convolutions_in_the_precision():
    network = torch.nn.Conv3d(1, 1, 1)
    with Precision(torch.bfloat16).autocast(CPU):
        assert network(torch.zeros(1, 1, 2, 2, 2)).dtype is torch.bfloat16
    with Precision().autocast(CPU):
        assert network(torch.zeros(1, 1, 2, 2, 2)).dtype is torch.float32
