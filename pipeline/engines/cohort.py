"""Predict a whole cohort: one bad case never stops the others, and a table says how each of them ended."""

from __future__ import annotations

import csv
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from pipeline.data.case_error import failing_step
from pipeline.data.pseudonyms import hidden_error, without_paths
from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid

DONE, REFUSED, FAILED = "done", "refused", "failed"
Item = Mapping[Hashable, Any]


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended.

    Args:
        case: its id.
        status: ``done``; ``refused``, where the input can't be used and ``reason`` says what to do about it; ``failed``
            after any other error, whose trace stands in ``failures.log``.
        seconds: wall clock that the case added to the run.
        repairs: what the reader put right in its files, and said so.
        volumes_ml: volume of each class in the result, by the class's name.
        output: file of the result.
    """

    case: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    repairs: tuple[str, ...] = ()
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True)
class CohortResult:
    """The outcomes of a run, in the order of the cases. ``complete`` is False after an interruption."""

    outcomes: tuple[CaseOutcome, ...]
    complete: bool = True

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in (DONE, REFUSED, FAILED)}

    @property
    def exit_code(self) -> int:
        """0 where every case is done, 3 where some were refused or failed, 1 where none is done."""
        done = self.counts[DONE]
        if not done:
            return 1
        return 0 if done == len(self.outcomes) else 3

    def write(self, output_dir: str | Path) -> None:
        """Write ``predictions.csv`` and ``predictions.json``, each whole or not at all."""
        names = list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.volumes_ml))
        columns = ["case", "status", "reason", "seconds", "repairs", *(f"{name}_ml" for name in names), "output"]
        with _replacing(Path(output_dir) / "predictions.csv") as file:
            table = csv.writer(file)
            table.writerow(columns)
            for o in self.outcomes:
                volumes = [f"{o.volumes_ml[name]:.6g}" if name in o.volumes_ml else "" for name in names]
                row = [o.case, o.status, o.reason, f"{o.seconds:.3f}", "; ".join(o.repairs), *volumes, o.output]
                table.writerow(row)
        with _replacing(Path(output_dir) / "predictions.json") as file:
            cases = [asdict(outcome) for outcome in self.outcomes]
            json.dump({"complete": self.complete, "counts": self.counts, "cases": cases}, file, indent=2)


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
        CohortResult(tuple(outcomes), complete=len(outcomes) == len(items)).write(output_dir)
    return CohortResult(tuple(outcomes))


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
    with log.open("a", encoding="utf-8") as file:
        file.write(f"case {item['case_id']}\n{without_paths(''.join(traceback.format_exception(error)), item)}\n")
    reason = without_paths(f"{type(causes[-1]).__name__}: {causes[-1]}{where}", item)
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


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of ``path`` once it is written to the end."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
