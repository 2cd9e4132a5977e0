"""When validation runs: by epochs, or as often as 5% of a budget allows; always at the end, never twice there."""

import itertools

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from pipeline.errors import ConfigError
from pipeline.handlers import Validation
from pipeline.handlers.validation import share_of_time


@pytest.fixture
def validator():
    network = torch.nn.Identity()
    loader = [{"image": torch.zeros(1, 1, 2, 2), "label": torch.zeros(1, 1, 2, 2)}]
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, network)
    evaluator.ran_at = []
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: engine.ran_at.append(engine.state.trainer_iteration))
    return evaluator


def train(validation, epochs, length, clock=None):
    engine = Engine(lambda engine, batch: None)
    if clock is not None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, clock)
    validation.attach(engine)
    engine.run(range(length), max_epochs=epochs)
    return engine


def slow_clock(monkeypatch, seconds):
    """Every look at the clock is so many seconds later: a validation takes as long."""
    looks = itertools.count(0, seconds)
    monkeypatch.setattr("pipeline.handlers.validation.time.perf_counter", lambda: float(next(looks)))


def test_every_second_epoch_and_at_the_end(validator):
    train(Validation(validator, interval=2), epochs=5, length=3)
    assert validator.ran_at == [6, 12, 15]


def test_the_last_epoch_is_not_validated_twice(validator):
    train(Validation(validator, interval=1), epochs=2, length=3)
    assert validator.ran_at == [3, 6]


def test_without_an_interval_so_many_epochs_that_it_takes_a_tenth_of_the_time(validator):
    train(Validation(validator), epochs=9, length=3)  # one case, nine iterations each
    assert validator.ran_at == [9, 18, 27]


def test_an_interval_that_is_none_is_refused(validator):
    for interval in (0, "2"):
        with pytest.raises(ConfigError, match=f"val_interval {interval!r}"):
            Validation(validator, interval=interval)


def test_the_first_one_waits_for_as_many_iterations_but_not_beyond_half_of_the_budget(validator):
    def clock(engine):  # one iteration is ten seconds of a budget of 100
        engine.state.elapsed_s, engine.state.progress = 10.0 * engine.state.iteration, engine.state.iteration / 10

    train(Validation(validator, budget_s=100.0), epochs=1, length=10, clock=clock)
    assert validator.ran_at[0] == 5


def test_under_a_budget_time_decides_and_the_closing_validation_is_reserved(validator):
    def clock(engine):  # one iteration is one second of a budget of 100
        engine.state.elapsed_s, engine.state.progress = float(engine.state.iteration), engine.state.iteration / 100

    validation = Validation(validator, budget_s=100.0)
    engine = train(validation, epochs=1, length=100, clock=clock)
    assert validator.ran_at[0] == 10  # after a tenth of the budget
    assert validator.ran_at[-1] == 100
    assert 0 < engine.state.reserve_s < 5


def test_validation_stays_below_its_share_of_the_time(validator, monkeypatch):
    slow_clock(monkeypatch, 4)

    def clock(engine):
        engine.state.elapsed_s, engine.state.progress = float(engine.state.iteration), engine.state.iteration / 1000

    train(Validation(validator, budget_s=1000.0), epochs=1, length=1000, clock=clock)
    gaps = [b - a for a, b in itertools.pairwise(validator.ran_at[:-1])]
    assert set(gaps) == {80}  # 4 s are 5% of 80 s


def test_one_that_the_closing_one_would_follow_too_soon_is_left_to_it(validator, monkeypatch):
    slow_clock(monkeypatch, 20)

    def clock(engine):
        engine.state.elapsed_s, engine.state.progress = float(engine.state.iteration), engine.state.iteration / 1000

    # After 100 s the next two are due 400 s later each; at 900 s the closing one would follow after 60 s of training.
    train(Validation(validator, budget_s=1000.0), epochs=1, length=1000, clock=clock)
    assert validator.ran_at == [100, 500, 1000]


def test_the_share_of_the_time_that_validation_takes_is_kept(validator, monkeypatch):
    shares = []
    validator.add_event_handler(Events.COMPLETED, lambda engine: shares.append(share_of_time(engine)))
    seconds = iter([0, 90, 100, 104, 194, 214, 220])  # begins; starts, is looked at, ends; once more
    monkeypatch.setattr("pipeline.handlers.validation.time.perf_counter", lambda: float(next(seconds)))
    train(Validation(validator, interval=1), epochs=2, length=1)
    assert shares == [10 / 100, 20 / 110]
    monkeypatch.undo()
    alone = Engine(lambda engine, batch: None)
    assert share_of_time(alone) is None


def test_the_trainers_precision_is_handed_over(validator):
    validator.follows_trainer, validator.precision = True, "float32"

    def choose(engine):
        engine.state.precision = "what the trainer chose"

    train(Validation(validator), epochs=1, length=1, clock=choose)
    assert validator.precision == "what the trainer chose"
