"""Predict a whole cohort: one bad case never stops the others, and a table says how each of them ended."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from pipeline.data.case_error import case_error, failing_step, lacks_memory
from pipeline.data.pseudonyms import hidden_error, without_paths
from pipeline.engines.cohort_result import DONE, FAILED, REFUSED, CaseOutcome, CohortResult
from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid

logger = logging.getLogger(__name__)

Item = Mapping[Hashable, Any]


def predict_cohort(
    items: Sequence[Item],
    preprocessing: Callable[[Item], Item],
    network: torch.nn.Module,
    inferer: Callable[..., torch.Tensor],
    postprocessing: Callable[[Item], Item],
    device: torch.device | str,
    output_dir: str | Path,
    *,
    class_names: Mapping[int, str] | Mapping[str, str],
    progress: bool = True,
) -> CohortResult:
    """Predict one case after another; the next one is read and prepared while the network works.

    Args:
        items: data-list items, each with a ``case_id`` of its own (unless ``relative`` folders tell them apart).
        preprocessing: item -> item with ``image``, a MetaTensor (C, H, W, D), of a section (C, H, W). Runs in another
            thread.
        network: put into eval mode on ``device``.
        inferer: (image (1, C, H, W, D), network) -> logits (1, K, H, W, D).
        postprocessing: item with ``image`` and the logits ``pred`` (K, H, W, D) -> item with ``pred``, labels
            (1, H, W, D) on the case's own grid, and ``pred_path``, where it was written.
        device: where the network runs.
        output_dir: for ``predictions.csv``, ``predictions.json``, and ``failures.log`` if there are failures.
        class_names: id -> name of every class of which the volume is reported; a section has none.
        progress: show a progress bar with the time left.

    Tables that can't be written are an error in the log, and in the result.

    Raises:
        DataError: no cases, or two with one id: before any work.
        KeyboardInterrupt: as it comes, after the table of what is done has been written.
    """
    _require_distinct(items)
    output_dir = Path(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{(error.strerror or str(error)).lower()} on making the output folder",
            file=output_dir,
            fix="choose another",
        ) from error
    log = output_dir / "failures.log"
    log.unlink(missing_ok=True)
    network = network.to(device).eval()
    names = {int(label): name for label, name in class_names.items()}

    outcomes: list[CaseOutcome] = []
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    try:
        ahead = reader.submit(preprocessing, items[0])
        with tqdm(total=len(items), desc="predict", unit="case", disable=not progress) as bar:
            for i, item in enumerate(items):
                began, case, current = time.perf_counter(), str(item["case_id"]), ahead
                if i + 1 < len(items):
                    ahead = reader.submit(preprocessing, items[i + 1])  # one thread: starts when this case is ready
                prepared: Item = {}
                try:
                    prepared = current.result()
                    found = _predicted(prepared, network, inferer, postprocessing, device, names)
                except Exception as error:
                    found = _explained(error, item, log)
                if found["output"]:
                    found["output"] = _below(Path(found["output"]), output_dir)
                seconds = time.perf_counter() - began
                outcomes.append(CaseOutcome(case, seconds=seconds, repairs=_repairs(prepared, item), **found))
                bar.update()
                bar.set_postfix(CohortResult(tuple(outcomes)).counts)
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        result = CohortResult(tuple(outcomes), complete=len(outcomes) == len(items))
        try:
            result.write(output_dir)
        except DataError as error:  # a full disk: the results are whole, and what is known of them is not lost
            logger.error("%s", error)
            result = replace(result, unwritten=str(error))
    return result


@torch.no_grad()
def _predicted(
    item: Item,
    network: torch.nn.Module,
    inferer: Callable[..., torch.Tensor],
    postprocessing: Callable[[Item], Item],
    device: torch.device | str,
    names: Mapping[int, str],
) -> dict[str, Any]:
    """One prepared case through the network to its result; what the table says about it."""
    image = item["image"]
    logits = inferer(image.as_tensor()[None].to(device), network)[0]
    result = postprocessing({**item, "pred": MetaTensor(logits).copy_meta_from(image)})
    labels = result["pred"]
    output = {"status": DONE, "volumes_ml": {}, "output": str(result.get("pred_path", ""))}
    if labels.ndim < 4:
        return output
    voxels = torch.bincount(labels.as_tensor().flatten(), minlength=max(names, default=0) + 1).tolist()
    voxel_ml = Grid(labels.shape[1:], labels.affine.cpu().numpy()).voxel_volume_ml
    return output | {"volumes_ml": {name: voxels[label] * voxel_ml for label, name in names.items()}}


def _explained(error: Exception, item: Item, log: Path) -> dict[str, Any]:
    """Refused or failed, and why; MONAI wraps what a transform raises, so the reason may lie deeper."""
    step, _ = failing_step(error)
    where = f" (in {step})" if step else ""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, PipelineError):
            named = type(cause)(
                cause.found + where,
                expected=cause.expected,
                fix=cause.fix,
                case=cause.case or str(item["case_id"]),
                file=cause.file,
            )
            return {"status": REFUSED, "reason": str(hidden_error(named, item)), "output": ""}
    reason = without_paths(f"{type(causes[-1]).__name__}: {causes[-1]}{where}", item)
    if any(map(lacks_memory, causes)):
        reason = str(case_error(error, item))
    trace = without_paths("".join(traceback.format_exception(error)), item)
    try:
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"case {item['case_id']}\n{trace}\n")
    except OSError as full:
        reason += f"; its trace is not in {log.name}: {full.strerror or full}"
    return {"status": FAILED, "reason": reason, "output": ""}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _repairs(prepared: Item, item: Item) -> tuple[str, ...]:
    repairs = getattr(prepared.get("image"), "meta", {}).get("repairs", "")
    return tuple(without_paths(repairs, item).splitlines())


def _below(path: Path, folder: Path) -> str:
    """Relative to ``folder`` where it lies in it, so that a table can move with its files."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


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
