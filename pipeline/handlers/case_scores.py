"""What attaches a measure that has one set of figures per case, and no classes, to an evaluator."""

from __future__ import annotations

import csv
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.data import MetaTensor

from pipeline.errors import DataError, PipelineError
from pipeline.handlers.case_measures import case_id_of
from pipeline.io.atomic import write_text
from pipeline.metrics import Statistics, bootstrap


class CaseScores(Metric):
    """Figures of every case, once, and their means; which, a subclass says: ``NAMES``, ``KEY``, ``FILE``, ``measure``.

    At the end of an epoch ``engine.state.metrics`` holds the means over the cases, under the figures' names, and the
    metric's ``scores`` (by case id) and ``statistics`` everything.

    Distributed: every rank ends with the cases of all ranks, and a case that a sampler repeated counts once.

    Args:
        output_dir: where rank 0 writes ``<FILE>.csv``, a row per case, and ``<FILE>.json``, mean and 95% interval per
            figure, after every epoch; by default nowhere.
        output_transform: gives two lists from the engine's output: what is measured, and the labels.

    Raises:
        DataError: from ``update``, naming the case; also where two cases of one process share an id.
    """

    NAMES: tuple[str, ...]
    """The figures."""
    KEY: str
    """The one that is the metric itself."""
    FILE: str

    def __init__(self, output_dir: str | PathLike[str] | None, output_transform: Callable[[Any], Any]) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        super().__init__(output_transform=output_transform, skip_unrolling=True)

    @abstractmethod
    def measure(self, predicted: torch.Tensor, label: torch.Tensor) -> Any:
        """A dataclass with the figures of one case, from plain tensors with a channel axis."""

    def reset(self) -> None:
        self._of_rank: dict[str, Any] = {}
        self.scores: dict[str, Any] = {}
        self.statistics: dict[str, Statistics] = {}

    def update(self, output: tuple[Sequence[torch.Tensor], Sequence[MetaTensor]]) -> None:
        for predicted, label in zip(*output, strict=True):
            case_id = case_id_of(predicted, label)
            if case_id in self._of_rank:
                raise DataError("the id of an earlier case", case=case_id, expected="one id per case")
            try:
                self._of_rank[case_id] = self.measure(_plain(predicted), _plain(label))
            except PipelineError as error:
                raise error.for_case(case_id) from error

    def compute(self) -> float:
        """Gathers the cases of all ranks; the mean of ``KEY``."""
        gathered: dict[str, Any] = {}
        for of_rank in idist.all_gather(self._of_rank) if idist.get_world_size() > 1 else [self._of_rank]:
            gathered.update(of_rank)
        if not gathered:
            raise NotComputableError(f"{type(self).__name__} saw no case")
        self.scores = dict(sorted(gathered.items()))
        values = {name: [getattr(scores, name) for scores in self.scores.values()] for name in self.NAMES}
        self.statistics = bootstrap(values)
        return self.statistics[self.KEY].mean

    def completed(self, engine: Engine, name: str) -> None:
        key = self.compute()
        means = {score: statistics.mean for score, statistics in self.statistics.items()} | {name: key}
        for score, mean in means.items():
            engine.state.metrics.pop(score, None)
            if not math.isnan(mean):
                engine.state.metrics[score] = mean
        if self.output_dir is not None and idist.get_rank() == 0:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            _write(self.scores, self.statistics, self.output_dir / self.FILE)

    def table_of(self, counted: str, shown: Mapping[str, str]) -> str:
        """The number of cases and the means for a console; ``shown`` maps figures to headings."""
        rows = [(counted, str(len(self.scores)))]
        for name, heading in shown.items():
            found = self.statistics[name]
            interval = "" if math.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]"
            rows.append((heading, f"{found.mean:.4f}{interval}"))
        widths = [max(map(len, row)) for row in rows]
        lines = ([*zip(line, widths, strict=True)] for line in zip(*rows, strict=True))
        return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def _plain(values: torch.Tensor) -> torch.Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else values


def _write(scores: Mapping[str, Any], statistics: Mapping[str, Statistics], stem: Path) -> None:
    """Both tables, each whole or not at all; undefined values are empty cells and null."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("case_id", *statistics))
    for case_id, of_case in scores.items():
        values = (getattr(of_case, name) for name in statistics)
        writer.writerow((case_id, *("" if math.isnan(value) else value for value in values)))
    write_text(stem.with_name(f"{stem.name}.csv"), text.getvalue())
    summary = {
        name: {key: None if math.isnan(value) else value for key, value in asdict(found).items()}
        for name, found in statistics.items()
    }
    write_text(stem.with_name(f"{stem.name}.json"), json.dumps(summary, indent=2, allow_nan=False) + "\n")
