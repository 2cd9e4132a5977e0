"""What is compiled once per machine, made ready before a budget's clock starts."""

from __future__ import annotations

import logging

logger = logging.getLogger("pipeline.bundle")


def compile_ahead() -> float:
    """Compile the loops that a training runs; the seconds that it took, 0 where this machine has them already."""
    from pipeline.metrics.compile_loops import compile_loops
    from pipeline.transforms.resampling import compile_loop

    seconds = compile_loop() + compile_loops()
    if seconds >= 1:  # not what a second call in this process takes
        logger.info("Compiled in %.0f s, once per machine; that is not part of the budget", seconds)
    return seconds
