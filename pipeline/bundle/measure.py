"""`pipeline measure`: two folders of label maps, whoever made them, measured like the cases of an evaluation."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle.build import resolve
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.find import find_bundle
from pipeline.bundle.measured import DONE, FAILED, MISSING, REFUSED, Measured, PairOutcome
from pipeline.data.case_label import load_case_label
from pipeline.data.label import label_ids, load_label
from pipeline.data.onto_grid import reordering
from pipeline.data.pairs import Pair, Pairing, find_pairs, renamed
from pipeline.data.provenance import bundle_identity, command_line, environment, input_digests
from pipeline.data.pseudonyms import MARK, Pseudonyms, hidden_error, without_paths
from pipeline.data.splits import TRAINED_ON
from pipeline.data.stack_rules import StackRules
from pipeline.errors import ConfigError, DataError, GeometryError, LabelError
from pipeline.geometry import Grid
from pipeline.io import Volume, read_image_grid
from pipeline.metrics import Row, absent_class, diagonal_mm, measure_case, summarise

logger = logging.getLogger("pipeline.bundle")

_MOST_IDS = 128
"""Ids, where nothing says which classes there are: a whole body has 117; objects, or an image's values, are more."""

_TABLE = "predictions.json"

_NAME_CLASSES = (
    "numbers of objects are measured as one class by a bundle with label_holds: instances (such as --bundle "
    "nuclei_microscopy_segmentation); classes are named by --classes 1=NAME,2=NAME or --bundle BUNDLE"
)


@dataclass(frozen=True)
class _Asked:
    """What is measured, and how label maps are read; without ``classes`` those that occur."""

    classes: Mapping[int, str]
    rules: StackRules
    tolerance_mm: float
    lesion_overlap: float
    pseudonymous: bool


@dataclass
class _Done:
    outcome: PairOutcome
    rows: list[Row] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()


def measure(
    predictions: str | Path,
    references: str | Path,
    *,
    bundle: str | Path | None = None,
    classes: Mapping[int, str] | None = None,
    out: str | Path | None = None,
    tolerance_mm: float = 1.0,
    lesion_overlap: float = 0.0,
    pseudonyms: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure every prediction against the reference of its name; a pair that can't be used does not stop the others.

    A prediction must lie on the grid of its reference, in whatever axis order. Which classes are measured: those of
    ``classes``, of the bundle, or of the references' dataset, and then other ids are refused; or else every id that
    occurs, by its number, 128 at most; ids that no reference holds are then not in the mean over classes.

    Args:
        predictions, references: see `pipeline.data.pairs`.
        bundle: whose classes are measured, and by whose rules label maps are read.
        classes: id -> name.
        out: folder for ``cases.csv``, ``cases.json``, ``summary.csv``, ``summary.json``, ``pairs.csv`` and
            ``run.json``, and ``failures.log`` if there are failures; by default nothing is written.
        tolerance_mm, lesion_overlap: see `pipeline.metrics.measure_case`.
        pseudonyms: a CSV file with what takes the place of the ids.
        progress: called with how many pairs are done, and of how many.

    Raises:
        DataError: nothing to pair, see `find_pairs`; a table that can't be written.
        ConfigError: more ids in the references than classes are taken from what occurs.
    """
    started = time.time()
    if out is not None and Path(out).resolve() in (Path(predictions).resolve(), Path(references).resolve()):
        raise ConfigError(f"--out {out}, which holds what is measured", expected="a folder of its own for the tables")
    recorded = _recorded_cases(Path(predictions))
    # A record has the inputs in the order of the channels.
    channels = tuple(next((case["inputs"] for case in recorded if isinstance(case.get("inputs"), dict)), ()))
    rules = StackRules()
    known = dict(classes or {})
    if bundle is not None:
        asked_by_bundle = data_rules(resolve(find_bundle(bundle), "evaluate"))
        rules, known, channels = asked_by_bundle.stack, known or asked_by_bundle.classes, asked_by_bundle.channels
    pairing = find_pairs(predictions, references, channels)
    if pseudonyms is not None:
        pairing = renamed(pairing, Pseudonyms.read(pseudonyms))
    known = known or pairing.classes
    _look_at_record(recorded, Path(predictions), pairing, known)
    asked = _Asked(known, rules, tolerance_mm, lesion_overlap, pseudonyms is not None)
    results: list[_Done] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(lambda pair: _measured(pair, asked), pairing.pairs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(pairing.pairs))
    if not known:
        found = (row.result for result in results for row in result.rows)
        _refuse_many({one.class_id for one in found if one.status != "false_alarm"})
    rows = tuple(_complete(results, known))
    outcomes = tuple(result.outcome for result in results)
    summary = summarise(rows, outside_mean=() if known else _in_no_reference(rows)) if rows else None
    measured = Measured(rows, summary, outcomes, pairing.extra)
    return measured if out is None else measured.written(Path(out), _record(pairing, asked, bundle, started))


def _recorded_cases(predictions: Path) -> list[dict[str, Any]]:
    """The cases as `pipeline predict` has recorded them beside its results; none of results of another program."""
    try:
        found = json.loads((predictions / _TABLE).read_text(encoding="utf-8"))
        return [case for case in found["cases"] if isinstance(case, dict)]
    except (OSError, ValueError, KeyError, TypeError):  # none, or of something else
        return []


def _look_at_record(
    cases: Sequence[Mapping[str, Any]], predictions: Path, pairing: Pairing, known: Mapping[int, str]
) -> None:
    """What the record of the cases says, and no result shows.

    Raises:
        ConfigError: results that number objects, where nothing says which class these are of.
    """
    if not known and any(case.get("instances") is not None for case in cases):
        what = "results that number objects, and nothing that says which class these are of"
        raise ConfigError(what, file=predictions / _TABLE, expected="named classes", fix=_NAME_CLASSES)
    trained = {case.get("case") for case in cases if TRAINED_ON in (case.get("repairs") or ())}
    trained &= {pair.case_id for pair in pairing.pairs}
    if trained:
        logger.warning(
            "%d of %d cases are some that the weights were trained on, and count here: what is measured on them says"
            " nothing of other patients; `pipeline evaluate` leaves them out",
            len(trained), len(pairing.pairs),
        )  # fmt: skip


def _measured(pair: Pair, asked: _Asked) -> _Done:
    began = time.perf_counter()
    item = _item(pair) | ({MARK: True} if asked.pseudonymous else {})
    try:
        done = _compared(pair, asked)
        remarks = tuple(without_paths(remark, item) for remark in done.outcome.remarks)
        done.outcome = replace(done.outcome, remarks=remarks)
    except DataError as error:
        status = REFUSED if pair.prediction or pair.problem else MISSING
        done = _Done(PairOutcome(pair.case_id, status, str(hidden_error(error, item))))
    except ConfigError as error:  # the same for every pair
        raise hidden_error(error, item) from error
    except Exception as error:
        trace = without_paths("".join(traceback.format_exception(error)), item)
        reason = without_paths(f"{type(error).__name__}: {error}", item)
        done = _Done(PairOutcome(pair.case_id, FAILED, reason, trace=trace))
    done.outcome = replace(done.outcome, seconds=time.perf_counter() - began)
    return done


def _compared(pair: Pair, asked: _Asked) -> _Done:
    if pair.prediction is None:
        raise DataError(pair.problem or "no prediction of its name", expected="one label map of the reference's name")
    policy = asked.rules.label_policy
    grid = read_image_grid(pair.reference, policy)
    own = read_image_grid(pair.prediction, policy)
    if not grid.same_grid(own) and reordering(own, grid) is None:
        raise GeometryError(
            f"a prediction on another grid ({own})",
            file=pair.prediction,
            expected=f"the reference's grid ({grid})",
            fix="bring it back onto the grid of its reference; where each channel has a mask on a grid of its own, "
            "--bundle BUNDLE takes that of the bundle's first channel",
        )
    prediction, reference = (_label_map(path, grid, asked) for path in (pair.prediction, pair.reference))
    classes = asked.classes or _occurring(prediction.array, reference.array, pair)
    maps, spacing = (prediction.array[0], reference.array[0]), grid.spacing_mm
    results = measure_case(*maps, spacing, classes, asked.tolerance_mm, asked.lesion_overlap) if classes else []
    remarks = [
        f"{role}: {remark}"
        for role, volume in (("prediction", prediction), ("reference", reference))
        for remark in volume.repairs
    ]
    rows = [Row(pair.case_id, diagonal_mm(grid.shape, spacing), result) for result in results]
    return _Done(PairOutcome(pair.case_id, DONE, remarks=tuple(remarks)), rows, grid.shape, spacing)


def _label_map(path: Path, grid: Grid, asked: _Asked) -> Volume:
    """Class ids; of both maps where the bundle's labels number objects, as its results do."""
    rules = asked.rules
    if rules.label_holds == "instances":
        return load_case_label(path, grid, rules).classes
    return load_label(path, grid, tuple(asked.classes) or None, rules.label_values, rules.label_policy)


def _occurring(prediction: np.ndarray, reference: np.ndarray, pair: Pair) -> dict[int, str]:
    """The ids of two label maps as classes, by their numbers."""
    of_reference = {*label_ids(reference)} - {0}
    _refuse_many(of_reference, pair)
    ids = sorted({*label_ids(prediction), *of_reference} - {0})
    if len(ids) > _MOST_IDS or (ids and ids[0] < 0):
        raise LabelError(
            f"{len(ids)} different ids, from {ids[0]} to {ids[-1]}",
            file=pair.prediction,
            expected=f"ids of classes from 1, {_MOST_IDS} at most",
            fix=_NAME_CLASSES,
        )
    return {number: str(number) for number in ids}


def _refuse_many(ids: Collection[int], pair: Pair | None = None) -> None:
    """Ends all where references hold more ids than classes: what they are says no file, and every pair holds others."""
    if len(ids) > _MOST_IDS:
        raise ConfigError(
            f"{len(ids)} different ids in {'the references' if pair is None else 'a reference'}, from {min(ids)} to "
            f"{max(ids)}, and nothing that says what they are",
            case=None if pair is None else pair.case_id,
            file=None if pair is None else pair.reference,
            expected=f"named classes, or {_MOST_IDS} ids at most",
            fix=_NAME_CLASSES,
        )


def _complete(results: Sequence[_Done], classes: Mapping[int, str]) -> Iterator[Row]:
    """The rows of all pairs, each with every class: one that only other cases hold is absent in a case."""
    done = [result for result in results if result.outcome.status == DONE]
    found = {row.result.class_id: row.result.class_name for result in done for row in result.rows}
    names = dict(classes) or {number: found[number] for number in sorted(found)}
    for result in done:
        own = {row.result.class_id: row for row in result.rows}
        for number, name in names.items():
            absent = absent_class(number, name, result.shape, result.spacing_mm)
            diagonal = diagonal_mm(result.shape, result.spacing_mm)
            yield own.get(number) or Row(result.outcome.case_id, diagonal, absent)


def _in_no_reference(rows: Sequence[Row]) -> set[str]:
    """Names of classes that predictions alone hold; none where there are no others, so that a mean is left.

    A stray voxel of an odd id is absent from all other cases, and these would make the mean better by Dice 1 each.
    """
    held = {row.result.class_name for row in rows if row.result.tp + row.result.fn}
    return {row.result.class_name for row in rows} - held if held else set()


def _item(pair: Pair) -> dict[str, Any]:
    paths = {"prediction": pair.prediction} if pair.prediction is not None else {}
    return {"case_id": pair.case_id, "image": {name: str(path) for name, path in paths.items()}} | {
        "label": str(pair.reference)
    }


def _record(pairing: Pairing, asked: _Asked, bundle: str | Path | None, started: float) -> dict[str, Any]:
    return {
        "kind": "measure",
        "status": "completed",
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commands": [command_line(asked.pseudonymous)],
        "settings": {
            "classes": {str(number): name for number, name in asked.classes.items()} or None,
            "tolerance_mm": asked.tolerance_mm,
            "lesion_overlap": asked.lesion_overlap,
        },
        "bundle": None if bundle is None else bundle_identity(find_bundle(bundle)),
        "inputs": input_digests(map(_item, pairing.pairs)),
        "seconds": round(time.time() - started, 1),
    } | environment()
