"""Attaches the ISBI 2012 challenge's scores of membranes to an evaluator."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
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
from monai.handlers import from_engine

from pipeline.errors import DataError, PipelineError
from pipeline.handlers.case_measures import case_id_of
from pipeline.io.atomic import write_text
from pipeline.metrics import MEMBRANE_SCORES, MembraneScores, Statistics, bootstrap, membrane_scores


class MembraneMeasures(Metric):
    """Pixel error, V^Rand and V^Info of every section (`pipeline.metrics.membrane_scores`); V^Rand is the metric
    itself.

    In a bundle: ``validate: {further_metrics: {v_rand: {_target_: pipeline.handlers.MembraneMeasures}}}``.
    At the end of an epoch ``engine.state.metrics`` holds the means over the sections, under the scores' names, and the
    metric's ``scores`` (by case id) and ``statistics`` everything.

    Distributed: every rank ends with the sections of all ranks.

    Args:
        cell: class id of what is inside the membranes.
        output_dir: where rank 0 writes ``membranes.csv``, a row per section, and ``membranes.json``, mean and 95%
            interval per score, after every epoch; by default nowhere.
        output_transform: gives (predictions, labels) from the engine's output, two lists of label maps (1, H, W).

    Raises:
        DataError: from ``update``, naming the case; also where two cases of one process share an id.
    """

    def __init__(
        self,
        cell: int = 1,
        output_dir: str | PathLike[str] | None = None,
        output_transform: Callable[[Any], Any] = from_engine(["pred", "label"]),  # noqa: B008 - it has no state
    ) -> None:
        self.cell, self.output_dir = cell, None if output_dir is None else Path(output_dir)
        super().__init__(output_transform=output_transform, skip_unrolling=True)

    def reset(self) -> None:
        self._of_rank: dict[str, MembraneScores] = {}
        self.scores: dict[str, MembraneScores] = {}
        self.statistics: dict[str, Statistics] = {}

    def update(self, output: tuple[Sequence[torch.Tensor], Sequence[MetaTensor]]) -> None:
        for prediction, label in zip(*output, strict=True):
            case_id = case_id_of(prediction, label)
            if case_id in self._of_rank:
                raise DataError("the id of an earlier case", case=case_id, expected="one id per case")
            try:
                self._of_rank[case_id] = membrane_scores(_plain(prediction), _plain(label), self.cell)
            except PipelineError as error:
                raise error.for_case(case_id) from error

    def compute(self) -> float:
        """Gathers the sections of all ranks; the mean V^Rand."""
        gathered: dict[str, MembraneScores] = {}
        for of_rank in idist.all_gather(self._of_rank) if idist.get_world_size() > 1 else [self._of_rank]:
            gathered.update(of_rank)
        if not gathered:
            raise NotComputableError("MembraneMeasures saw no section")
        self.scores = dict(sorted(gathered.items()))
        self.statistics = bootstrap(
            {name: [getattr(scores, name) for scores in self.scores.values()] for name in MEMBRANE_SCORES}
        )
        return self.statistics["v_rand"].mean

    def completed(self, engine: Engine, name: str) -> None:
        v_rand = self.compute()
        means = {score: statistics.mean for score, statistics in self.statistics.items()} | {name: v_rand}
        for score, mean in means.items():
            engine.state.metrics.pop(score, None)
            if not math.isnan(mean):
                engine.state.metrics[score] = mean
        if self.output_dir is not None and idist.get_rank() == 0:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            _write(self.scores, self.statistics, self.output_dir)

    def table(self) -> str:
        """The means for a console, with the 95% interval of V^Rand and V^Info."""
        rows = [("sections", str(len(self.scores)))]
        for name, shown in (("pixel_error", "pixel error"), ("v_rand", "V^Rand"), ("v_info", "V^Info")):
            found = self.statistics[name]
            interval = "" if math.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]"
            rows.append((shown, f"{found.mean:.4f}{interval}"))
        widths = [max(map(len, row)) for row in rows]
        lines = ([*zip(line, widths, strict=True)] for line in zip(*rows, strict=True))
        return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)


def _plain(label_map: torch.Tensor) -> torch.Tensor:
    if label_map.ndim != 3:
        raise DataError(f"a label map of shape {tuple(label_map.shape)}", expected="(1, H, W): sections")
    return (label_map.as_tensor() if isinstance(label_map, MetaTensor) else label_map)[0]


def _write(scores: dict[str, MembraneScores], statistics: dict[str, Statistics], folder: Path) -> None:
    """Both tables, each whole or not at all; undefined values are empty cells and null."""
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("case_id", *MEMBRANE_SCORES))
    for case_id, of_case in scores.items():
        values = asdict(of_case).values()
        writer.writerow((case_id, *("" if math.isnan(value) else value for value in values)))
    write_text(folder / "membranes.csv", text.getvalue())
    summary = {
        name: {key: None if math.isnan(value) else value for key, value in asdict(found).items()}
        for name, found in statistics.items()
    }
    write_text(folder / "membranes.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
