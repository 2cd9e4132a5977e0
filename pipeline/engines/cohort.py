"""Predict a whole cohort: one bad case never stops the others, and a table says how each of them ended."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.data.pseudonyms import MARK
from pipeline.engines.cohort_case import CasePredictor
from pipeline.engines.cohort_history import History
from pipeline.engines.cohort_ledger import Ledger
from pipeline.engines.cohort_result import CaseKey, CaseOutcome, CohortResult
from pipeline.engines.cohort_stages import Stages
from pipeline.engines.cohort_turns import Alone
from pipeline.errors import DataError
from pipeline.io.atomic import remove_unfinished
from pipeline.io.sole_writer import sole_writer

logger = logging.getLogger(__name__)

Item = Mapping[Hashable, Any]


def predict_cohort(
    items: Sequence[Item],
    preprocessing: Callable[[Item], Item],
    network: torch.nn.Module,
    inferer: Callable[..., Any],
    postprocessing: Callable[[Item], Item],
    device: torch.device | str,
    output_dir: str | Path,
    *,
    class_names: Mapping[int, str] | Mapping[str, str],
    progress: bool = True,
    made_with: str = "",
    redo: bool = False,
    suffix: str = ".nii.gz",
    record: Mapping[str, Any] | None = None,
    processes: Alone | None = None,
) -> CohortResult:
    """Predict one case after another: while the network works on one, the next ones are read and prepared, and the last
    ones are restored and written.

    A run that was killed goes on when it is started again, and so does one that has ended: of each case, the result
    stays that still holds (`pipeline.engines.cohort_kept.still_holds`), and the others are made. Cases at which a run
    was killed come last, in case it was one of them that killed it. What has been found out is on the disk before the
    next case ends (`pipeline.engines.cohort_history.History`).

    Args:
        items: data-list items, each with a ``case_id`` of its own (unless ``relative`` folders tell them apart).
        preprocessing: item -> item with ``image``, a MetaTensor (C, H, W, D), of a section (C, H, W). Runs in other
            threads.
        network: put into eval mode on ``device``.
        inferer: (image (1, C, H, W, D), network) -> logits (1, K, H, W, D), see `CasePredictor`.
        postprocessing: item with ``image`` and the logits ``pred`` (K, H, W, D) -> item with ``pred``, labels
            (1, H, W, D) on the case's own grid, and ``pred_path``, where it was written (``written``, if it was more
            than one file). Runs in another thread, at least from its second step on.
        device: where the network runs.
        output_dir: for ``predictions.csv``, ``predictions.json``, and ``failures.log`` if there are failures.
        class_names: id -> name of every class of which the volume is reported; a section has none.
        progress: show a progress bar with the time left.
        made_with: a digest of all that a result depends on beside its inputs. Without it no earlier result is kept.
        redo: make all results again, also those that somebody has changed, in the place of whatever lies there.
        suffix: ``<output_dir>/<relative>/<case_id><suffix>`` is where ``postprocessing`` puts a label map. One that
            lies there and that no run has written is not written over: its case is refused.
        record: stands in ``predictions.json`` beside the cases; looked at when that is written, at the end.
        processes: how the cases are shared with other processes; by default there are none. All of them get the whole
            result, and the first writes the tables.

    Tables that can't be written are an error in the log, and in the result; then the journal stays.

    Raises:
        DataError: no cases, or two with one id, or an output folder that can't be written to, or that another run is
            writing to: before any work.
        KeyboardInterrupt: as it comes, after the table of what is done has been written.
    """
    _require_distinct(items)
    output_dir, processes = Path(output_dir), processes or Alone()
    predictor = CasePredictor(network, inferer, postprocessing, device)
    history = History(output_dir, processes.rank, pseudonymous=any(item.get(MARK) for item in items))
    log = output_dir / ("failures.log" if processes.rank == 0 else f"failures.{processes.rank}.log")
    first = processes.rank == 0
    with contextlib.ExitStack() as held:
        _make(output_dir)
        if first:
            held.enter_context(sole_writer(output_dir))
            _tidy_up(output_dir, items)
            history.read()
            history.settle()
        order = processes.agree(_order(items, history))
        if not first:
            history.read()
        log.unlink(missing_ok=True)
        names = {int(label): name for label, name in class_names.items()}
        ledger = Ledger(output_dir, history, names, made_with, redo, suffix, log, predictor.device)
        stages = Stages([items[number] for number in order], preprocessing, predictor, ledger, processes)
        outcomes: list[tuple[int, CaseOutcome]] = []
        result = CohortResult(())
        try:
            stages.run(outcomes, progress and first)
        finally:
            history.close()
            ended = sorted(outcomes, key=lambda one: order[one[0]])
            result = CohortResult(
                tuple(outcome for _, outcome in ended),
                complete=len(outcomes) == len(items),
                record=record or {},
                earlier=_not_looked_at(history, [outcome for _, outcome in ended]),
            )
            if first and (result.complete or processes.world_size == 1):
                result = _written(result, output_dir, history)
    return result


def _written(result: CohortResult, output_dir: Path, history: History) -> CohortResult:
    try:
        result.write(output_dir)
    except DataError as error:  # a full disk: the results are whole, and what is known of them is not lost
        logger.error("%s", error)
        return replace(result, unwritten=str(error))
    history.forget_journals({outcome.key for outcome in result.outcomes})
    return result


def _make(output_dir: Path) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            "a file where a folder of this path should be", file=output_dir, fix="choose another output folder"
        ) from error
    except OSError as error:
        raise DataError(
            f"an output folder that can't be made ({(error.strerror or str(error)).lower()})",
            file=output_dir,
            fix="choose another",
        ) from error


def _tidy_up(output_dir: Path, items: Sequence[Item]) -> None:
    """Remove what killed runs have left of files that were not finished, where these cases' results go."""
    folders = {output_dir / str(item.get("relative", ".")) for item in items}
    removed = sum(remove_unfinished(folder) for folder in {output_dir, *folders} if folder.is_dir())
    if removed:
        logger.info("%d unfinished files of a run that was killed are removed from %s", removed, output_dir)


def _key(item: Item) -> CaseKey:
    return str(item.get("relative", ".")), str(item["case_id"])


def _order(items: Sequence[Item], history: History) -> list[int]:
    """Cases at which a run was killed come last."""
    return sorted(range(len(items)), key=lambda number: _key(items[number]) in history.unfinished)


def _not_looked_at(history: History, outcomes: Sequence[CaseOutcome]) -> tuple[CaseOutcome, ...]:
    seen = {outcome.key for outcome in outcomes}
    return tuple(outcome for key, outcome in history.outcomes.items() if key not in seen)


def _require_distinct(items: Sequence[Item]) -> None:
    if not items:
        raise DataError("no cases to predict", expected="at least one")
    seen = Counter((str(item.get("relative", "")), str(item["case_id"])) for item in items)
    twice = sorted(case for (_, case), n in seen.items() if n > 1)
    if twice:
        raise DataError(
            f"case ids that occur more than once: {', '.join(twice)}",
            expected="distinct ids, because results are named after them",
            fix="rename the cases",
        )
