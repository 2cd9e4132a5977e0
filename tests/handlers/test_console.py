"""What the terminal shows of work that goes on."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stderr

from ignite.engine import Engine

from pipeline.handlers import CaseProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_of(bar: CaseProgress, seconds: float) -> str:
    """What a terminal shows of three cases that take so long each."""
    engine = Engine(lambda engine, case: time.sleep(seconds))
    bar.attach(engine)
    with redirect_stderr(Terminal()) as terminal:
        engine.run(range(3))
    return terminal.getvalue()


def test_a_short_validation_shows_no_bar():
    assert "validating" not in shown_of(CaseProgress("validating", delay_s=60.0), 0.0)


def test_a_long_one_shows_how_far_it_is_and_leaves_nothing():
    shown = shown_of(CaseProgress("validating", delay_s=0.1), 0.15)
    assert "validating:  67%" in shown
    assert shown.split("\r")[-2].isspace()


def test_an_evaluation_shows_its_bar_from_the_start_and_leaves_it():
    shown = shown_of(CaseProgress(), 0.0)
    assert "evaluating:   0%" in shown
    assert "3/3" in shown.split("\r")[-1]
