"""The learning rate follows the progress of the run, whether epochs or a budget of time measure it."""

import time

import pytest
import torch
from ignite.engine import Engine

from pipeline.engines import Schedule
from pipeline.errors import ConfigError


def make(budget_s=None, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return optimizer, Schedule(optimizer, budget_s=budget_s, **kwargs)


def test_cosine_falls_from_the_peak_through_half_of_it_to_the_floor():
    _, schedule = make(warmup_share=0.1, floor=0.01)
    assert schedule.factor(0.0) == 0.01
    assert schedule.factor(0.05) == pytest.approx(0.5)
    assert schedule.factor(0.1) == pytest.approx(1.0)
    assert schedule.factor(0.55) == pytest.approx(0.5)
    assert schedule.factor(1.0) == 0.01


def test_where_weights_are_averaged_the_rate_stays_at_a_quarter():
    for decay in ("cosine", "polynomial"):
        assert make(decay=decay, ema_decay=0.99)[1].factor(1.0) == 0.25
        assert make(decay=decay)[1].factor(1.0) == 0.01
        assert make(decay=decay, ema_decay=0.99, floor=0.0)[1].factor(1.0) == 0.0
    with pytest.raises(ConfigError, match="schedule#floor 2"):
        make(floor=2)


def test_polynomial_is_the_power_of_what_remains():
    _, schedule = make(decay="polynomial", warmup_share=0.0, floor=0.0)
    assert schedule.factor(0.5) == pytest.approx(0.5**0.9)
    assert schedule.factor(1.0) == 0.0


def test_over_epochs_every_iteration_gets_the_rate_of_the_progress_before_it():
    optimizer, schedule = make(warmup_share=0.0, floor=0.0)
    rates = []
    engine = Engine(lambda engine, batch: rates.append(optimizer.param_groups[0]["lr"]))
    engine.state.max_epochs, engine.state.epoch_length, engine.state.iteration, engine.state.epoch = 2, 2, 0, 0
    schedule.attach(engine)
    engine.run([0, 1], max_epochs=2)
    assert rates == pytest.approx([2 * schedule.factor(progress) for progress in (0, 0.25, 0.5, 0.75)])
    assert engine.state.progress == 1


def test_a_budget_ends_the_run_on_time_less_what_is_reserved_for_the_last_validation():
    _, schedule = make(budget_s=0.6)
    engine = Engine(lambda engine, batch: time.sleep(0.01))
    engine.state.max_epochs, engine.state.epoch_length, engine.state.iteration, engine.state.epoch = 1, 5, 0, 0
    engine.state.reserve_s = 0.2
    schedule.attach(engine)
    engine.run([0] * 5, max_epochs=engine.state.max_epochs)
    assert engine.state.epoch > 1  # the epochs that the engine was made for do not count
    assert engine.state.elapsed_s >= 0.4
    assert engine.state.iteration <= 41  # 0.4 s of at least 0.01 s each, and the one under way


def test_the_time_spent_before_a_resume_counts():
    _, schedule = make(budget_s=100.0)
    schedule.load_state_dict({"elapsed_s": 70.0})
    assert 70 <= schedule.state_dict()["elapsed_s"] < 80


@pytest.mark.parametrize("wrong", [{"decay": "linear"}, {"budget_s": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ConfigError):
        make(**wrong)


def test_what_preparing_took_and_which_steps_are_of_this_run_are_known():
    _, schedule = make(budget_s=1000, started_at=time.time() - 40)
    engine = Engine(lambda engine, batch: None)
    schedule.attach(engine)
    engine.state.max_epochs = 1
    engine.run([0, 1], max_epochs=1)
    assert 40 <= engine.state.prepared_s <= engine.state.elapsed_s < 400
    assert (engine.state.steps_before, engine.state.iteration) == (0, 2)
