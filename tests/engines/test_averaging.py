"""The average follows the weights by its formula, and is a network of its own."""

import pytest
import torch
from ignite.engine import Engine

from pipeline.engines import WeightAverage, averaged_copy
from pipeline.errors import ConfigError


def test_the_average_is_the_recursion_written_out():
    network = torch.nn.Linear(1, 1, bias=False)
    average = averaged_copy(network, 0.5)
    expected = network.weight.item()
    values = [1.0, 3.0, -2.0]
    engine = Engine(lambda engine, value: network.weight.data.fill_(value))
    WeightAverage(network, average, 0.5).attach(engine)
    engine.run(values, max_epochs=1)
    for step, value in enumerate(values, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.weight.item(), expected, rtol=1e-5, atol=1e-6)  # the weights are float32
    assert network.weight.item() == -2.0
    assert not average.weight.requires_grad


def test_statistics_of_batch_norm_are_copied_not_averaged():
    network = torch.nn.BatchNorm1d(2)
    average = averaged_copy(network, 0.9)
    engine = Engine(lambda engine, value: network.running_mean.fill_(value))
    WeightAverage(network, average, 0.9).attach(engine)
    engine.run([4.0], max_epochs=1)
    assert average.running_mean.tolist() == [4.0, 4.0]


def test_without_a_decay_the_network_itself_is_what_is_validated():
    network = torch.nn.Linear(1, 1)
    assert averaged_copy(network, None) is network


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2])
def test_a_decay_that_is_none_is_refused(decay):
    network = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=f"ema_decay {decay}; expected at least 0 and below 1"):
        WeightAverage(network, averaged_copy(network, 0.5), decay)
