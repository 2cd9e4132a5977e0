"""Attaches the measures of whole cases to an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.handlers import from_engine

from pipeline.errors import DataError, GeometryError, PipelineError
from pipeline.geometry import Grid, length_unit
from pipeline.io import is_section
from pipeline.metrics import (
    Row,
    Summary,
    class_names,
    diagonal_mm,
    measure_case,
    summarise,
    write_tables,
)

LOGGED = ("dice", "iou", "hausdorff_95_mm", "hausdorff_95_mm_penalised", "lesion_f1", "absolute_volume_difference_ml")


class CaseMeasures(Metric):
    """Every measure of every case, once; the mean Dice over classes is the metric itself.

    In a config: ``key_val_metric: {"dice": {"_target_": "pipeline.handlers.CaseMeasures", "classes": {"1":
    "lesion"}}}``.

    At the end of an epoch ``engine.state.metrics`` holds the mean Dice over classes under the name that the metric was
    attached with; the other measures of `LOGGED` as means over classes and, with ``_<class>`` behind, per class, as for
    ``dice``; the counts ``missed`` and ``false_alarms``, likewise; and
    ``cases``. A mean that does not exist (the distance where every case was missed) is left out, so that a curve has
    a gap there and not a value. ``engine.state.case_rows`` and ``engine.state.summary``, also on the metric as
    ``rows`` and ``summary``, have everything. ``pipeline.metrics.summarise`` says how averages count what is empty.

    Distributed: every rank ends with the rows of all ranks, and a case that a sampler repeated to fill up its ranks
    counts once.

    Args:
        classes: id -> name of the classes, ids from 1.
        tolerance_mm: tolerance of the normalised surface Dice, in the rows.
        lesion_overlap: share of a lesion that must be covered for it to be found; 0 asks for one voxel.
        output_dir: where rank 0 writes the tables (`pipeline.metrics.write_tables`) after every epoch; by default
            nowhere.
        output_transform: gives (predictions, labels) from the engine's output: two lists of (1, H, W, D) or (1, H, W)
            integer label maps on each case's own grid. Labels are MetaTensors: their affine gives the spacing. The
            case's id is ``case_id`` in the meta of either, or else the last folder and the name of the label's file.

    Raises:
        DataError: from ``update``, naming the case; also where two cases of one process share an id.
        GeometryError: where a prediction lies on another grid than its label.
    """

    def __init__(
        self,
        classes: Mapping[int, str] | Mapping[str, str],
        tolerance_mm: float = 1.0,
        lesion_overlap: float = 0.0,
        output_dir: str | PathLike[str] | None = None,
        output_transform: Callable[[Any], Any] = from_engine(["pred", "label"]),  # noqa: B008 - it has no state
    ) -> None:
        self.classes = class_names(classes)
        self.tolerance_mm, self.lesion_overlap = tolerance_mm, lesion_overlap
        self.output_dir = None if output_dir is None else Path(output_dir)
        super().__init__(output_transform=output_transform, skip_unrolling=True)

    def reset(self) -> None:
        self._rows_by_case: dict[str, list[Row]] = {}
        self.rows: list[Row] = []
        self.summary: Summary | None = None

    def update(self, output: tuple[Sequence[torch.Tensor], Sequence[MetaTensor]]) -> None:
        for prediction, label in zip(*output, strict=True):
            case_id = case_id_of(prediction, label)
            if case_id in self._rows_by_case:
                raise DataError("the id of an earlier case", case=case_id, expected="one id per case")
            try:
                self._rows_by_case[case_id] = self._measure(case_id, prediction, label)
            except PipelineError as error:
                raise error.for_case(case_id) from error

    def _measure(self, case_id: str, prediction: torch.Tensor, label: torch.Tensor) -> list[Row]:
        grid = _grid(label)
        if grid is None:
            raise DataError("a label without an affine", expected="a MetaTensor, whose affine gives the spacing in mm")
        own_grid = _grid(prediction)
        if own_grid is not None and own_grid.shape == grid.shape and not own_grid.same_grid(grid):
            raise GeometryError(
                f"a prediction {own_grid.distance_mm(grid):.3g} {length_unit(label.ndim - 1)} away from its label",
                expected="both on the case's own grid",
                fix="restore the prediction before it is measured",
            )
        spacing = grid.spacing_mm[: label.ndim - 1]
        results = measure_case(prediction[0], label[0], spacing, self.classes, self.tolerance_mm, self.lesion_overlap)
        diagonal = diagonal_mm(label.shape[1:], spacing)
        return [Row(case_id, diagonal, result) for result in results]

    def compute(self) -> float:
        """Gathers the cases of all ranks; the mean Dice over classes."""
        gathered: dict[str, list[Row]] = {}
        for of_rank in idist.all_gather(self._rows_by_case) if idist.get_world_size() > 1 else [self._rows_by_case]:
            gathered.update(of_rank)
        if not gathered:
            raise NotComputableError("CaseMeasures saw no case")
        # In the order of the ids, so that no figure depends on the number of ranks.
        self.rows = [row for case_id in sorted(gathered) for row in gathered[case_id]]
        self.summary = summarise(self.rows)
        return self.summary.mean.measures["dice"].mean

    def completed(self, engine: Engine, name: str) -> None:
        mean_dice = self.compute()
        assert self.summary is not None
        figures = _figures(self.summary)
        for stale in figures:
            engine.state.metrics.pop(stale, None)
        engine.state.metrics.update({key: value for key, value in figures.items() if not np.isnan(value)})
        engine.state.metrics[name] = mean_dice
        engine.state.case_rows, engine.state.summary = self.rows, self.summary
        if self.output_dir is not None and idist.get_rank() == 0:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            write_tables(self.rows, self.summary, self.output_dir)


def _figures(summary: Summary) -> dict[str, float]:
    figures: dict[str, float] = {}
    for line in (summary.mean, *summary.classes):
        suffix = "" if line is summary.mean else f"_{line.class_name}"
        figures |= {measure + suffix: line.measures[measure].mean for measure in LOGGED}
        figures |= {f"missed{suffix}": line.missed, f"false_alarms{suffix}": line.false_alarms}
    # The mean Dice goes by the name that the metric is attached with.
    del figures["dice"]
    return figures | {"cases": summary.mean.cases}


def _grid(label_map: torch.Tensor) -> Grid | None:
    if not isinstance(label_map, MetaTensor):
        return None
    shape = (*label_map.shape[1:], 1)[:3]
    return Grid(shape, label_map.affine.cpu().numpy())


def case_id_of(*label_maps: torch.Tensor) -> str:
    """The id in the meta data of a case's label maps, or else the last folder and the name of the last one's file."""
    metas = [label_map.meta for label_map in label_maps if isinstance(label_map, MetaTensor)]
    for meta in metas:
        if "case_id" in meta:
            return str(meta["case_id"])
    for meta in reversed(metas):
        if "filename_or_obj" in meta:
            path = Path(str(meta["filename_or_obj"]))
            name = path.stem if is_section(path) else path.name.removesuffix(".gz").removesuffix(".nii")
            return f"{path.parent.name}/{name}"
    raise DataError("a label without an id", expected='"case_id" or "filename_or_obj" in its meta data')
