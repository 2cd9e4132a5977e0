"""What a training or an evaluation came to, for those who started it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunSummary:
    """What a training or an evaluation came to.

    Args:
        run_dir: the folder that holds everything.
        metrics: of the last validation, by the names of ``metrics.csv``.
        table: the same for people, N and misses beside every mean.
        seconds: wall clock, from the call.
        refused: cases that could not be used, each with its reason.
    """

    run_dir: Path
    metrics: dict[str, float]
    table: str
    seconds: float
    refused: list[str] = field(default_factory=list)


def summarised(parser: Any, run_dir: Path, started: float, *datasets: str) -> RunSummary:
    """Of a run that has ended.

    Args:
        parser: that the run was made with.
        started: ``time.time()`` at the call.
        datasets: sections of the config whose refused cases are named.
    """
    refused = [str(case) for section in datasets for case in parser.get_parsed_content(section).refused]
    metrics = dict(parser.get_parsed_content("validate#evaluator").state.metrics)
    return RunSummary(run_dir, metrics, _table(parser), time.time() - started, refused)


def _table(parser: Any) -> str:
    """The table of the measures per case, and below it that of each further metric which has one."""
    from pipeline.metrics import format_table

    measures = next(iter(parser.get_parsed_content("validate#key_metric").values()))
    tables = [format_table(measures.summary)]
    further = "validate#further_metrics"  # a bundle from elsewhere may lack it
    metrics = parser.get_parsed_content(further) if further in parser else None
    tables += [metric.table() for metric in (metrics or {}).values() if hasattr(metric, "table")]
    return "\n\n".join(tables)
