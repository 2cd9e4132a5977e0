"""When validation runs: by epochs, or as often as 5% of a budget allows; always at the end, never twice there."""

import itertools

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from pipeline.handlers import Validation


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


def test_every_second_epoch_and_at_the_end(validator):
    train(Validation(validator, interval=2), epochs=5, length=3)
    assert validator.ran_at == [6, 12, 15]


def test_the_last_epoch_is_not_validated_twice(validator):
    train(Validation(validator, interval=1), epochs=2, length=3)
    assert validator.ran_at == [3, 6]


def test_under_a_budget_time_decides_and_the_closing_validation_is_reserved(validator):
    def clock(engine):  # one iteration is one second of a budget of 100
        engine.state.elapsed_s, engine.state.progress = float(engine.state.iteration), engine.state.iteration / 100

    validation = Validation(validator, budget_s=100.0)
    engine = train(validation, epochs=1, length=100, clock=clock)
    assert validator.ran_at[0] == 10  # after a tenth of the budget
    assert validator.ran_at[-1] == 100
    assert 0 < engine.state.reserve_s < 5


def test_validation_stays_below_its_share_of_the_time(validator, monkeypatch):
    seconds = iter(range(0, 100000, 4))  # every look at the clock is four seconds later: a validation takes four
    monkeypatch.setattr("pipeline.handlers.validation.time.perf_counter", lambda: float(next(seconds)))

    def clock(engine):
        engine.state.elapsed_s, engine.state.progress = float(engine.state.iteration), engine.state.iteration / 1000

    train(Validation(validator, budget_s=1000.0), epochs=1, length=1000, clock=clock)
    gaps = [b - a for a, b in itertools.pairwise(validator.ran_at[:-1])]
    assert set(gaps) == {80}  # 4 s are 5% of 80 s


def test_the_trainers_precision_is_handed_over(validator):
    validator.follows_trainer, validator.precision = True, "float32"

    def choose(engine):
        engine.state.precision = "what the trainer chose"

    train(Validation(validator), epochs=1, length=1, clock=choose)
    assert validator.precision == "what the trainer chose"
