"""The three stages of a cohort, at work at the same time: read, network, write.

Files are read and prepared in threads of their own, the network runs in the caller's, and results are restored and
written in another. How far reading may run ahead and writing behind is bounded, and with it the memory.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from tqdm import tqdm

from pipeline.data.case_error import lacks_memory
from pipeline.data.file_digests import file_sha256
from pipeline.data.pseudonyms import MARK, without_paths
from pipeline.engines.cohort_case import CasePredictor, causes
from pipeline.engines.cohort_history import History
from pipeline.engines.cohort_inputs import InputDigests
from pipeline.engines.cohort_kept import others_work, require_no_other, still_holds
from pipeline.engines.cohort_reason import explained
from pipeline.engines.cohort_result import DONE, CaseKey, CaseOutcome, CohortResult
from pipeline.engines.cohort_turns import Alone
from pipeline.errors import DataError
from pipeline.geometry import Grid

logger = logging.getLogger(__name__)

Item = Mapping[Hashable, Any]

READERS = {"cpu": 1, "cuda": 3}
"""Threads that prepare cases, by the kind of device: on a CPU the network wants the cores itself."""

REMARKS = "remarks"
"""Entry of an item with sentences about the case that its outcome is to bear."""

WRITING = 2
"""Results that wait to be written, the one that is being written included. Each may hold a volume's logits."""


@dataclass
class Work:
    """A case on its way.

    Args:
        place: in the order of the run.
        source: the item of the data list.
        prepared: what the network needs of it.
        inputs: channel -> SHA-256.
        kept: its outcome, where an earlier result holds.
        error: why it could not be prepared.
        seconds: that it was worked on so far.
        earlier: the outcome that it had.
        begun: whether it has come as far as that its results' place is the run's own.
        others: files in that place which no run had written when it was begun, see `others_work`.
    """

    place: int
    source: Item
    prepared: Item = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    kept: CaseOutcome | None = None
    error: Exception | None = None
    seconds: float = 0.0
    earlier: CaseOutcome | None = None
    begun: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> CaseKey:
        return str(self.source.get("relative", ".")), str(self.source["case_id"])


class Stages:
    """See the module; the arguments are those of `pipeline.engines.cohort.predict_cohort`.

    Args:
        items: in the order in which they are begun.
        names: id -> class.
        log: for the traces of failures.
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocessing: Callable[[Item], Item],
        predictor: CasePredictor,
        output_dir: Path,
        history: History,
        processes: Alone,
        *,
        names: Mapping[int, str],
        made_with: str,
        redo: bool,
        suffix: str,
        log: Path,
    ) -> None:
        self.items, self.preprocessing, self.predictor = items, preprocessing, predictor
        self.output_dir, self.history, self.processes = output_dir, history, processes
        self.names, self.made_with, self.log = names, made_with, log
        self.redo, self.suffix = redo, suffix
        self.digests = InputDigests()
        self._readers = READERS.get(predictor.device.type, 1)
        self._journal_failed = False

    def run(self, outcomes: list[tuple[int, CaseOutcome]], progress: bool) -> None:
        """Take every case that falls to this process to its end.

        Args:
            outcomes: receives (place, outcome) as cases end, and at the end those of the other processes; after an
                interruption it holds those that have ended.
        """
        self._outcomes = outcomes
        self._writing: deque[tuple[Work, Future[CaseOutcome]]] = deque()
        reader = ThreadPoolExecutor(self._readers, thread_name_prefix="reader")
        writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        with tqdm(total=len(self.items), desc="predict", unit="case", disable=not progress) as self._bar:
            try:
                for work in self._read_ahead(reader):
                    self._take_on(work, writer)
                while self._writing:
                    self._collect()
                outcomes[:] = self.processes.gather(outcomes)
                self._bar.update(len(outcomes) - self._bar.n)
            except BaseException:  # Ctrl-C: what has been through the network is still written, nothing else is begun
                self._collect_what_is_whole()
                raise
            finally:
                reader.shutdown(wait=False, cancel_futures=True)
                writer.shutdown(wait=False, cancel_futures=True)

    def _read_ahead(self, reader: ThreadPoolExecutor) -> Iterator[Work]:
        """Cases in their order, prepared; as many more are under way as there are readers."""
        places, under_way = self.processes.draw(len(self.items)), deque[Future[Work]]()
        while True:
            while len(under_way) < self._readers and (place := next(places, None)) is not None:
                under_way.append(reader.submit(self._read, place))
            if not under_way:
                return
            following = under_way.popleft()
            if (place := next(places, None)) is not None:
                under_way.append(reader.submit(self._read, place))
            yield following.result()

    def _read(self, place: int) -> Work:
        began, work = time.perf_counter(), Work(place, self.items[place])
        work.earlier = self.history.outcomes.get(work.key)
        try:
            work.inputs = self.digests(work.source)
            if not self.redo:
                work.kept = still_holds(work.earlier, work.inputs, self.made_with, self.output_dir)
            if work.kept is None:
                self._begin(work)
                work.prepared = self._prepare(work.source)
        except Exception as error:
            work.error = error
        work.seconds = time.perf_counter() - began
        return work

    def _begin(self, work: Work) -> None:
        files = work.earlier.files if work.earlier else {}
        before = self.history.unfinished.get(work.key)
        work.others = others_work({self._place(work), *files}, files, before, self.output_dir)
        if not self.redo:  # what is known of its files has been looked at
            require_no_other([name for name in work.others if name not in files], self.output_dir)
        self._note(lambda: self.history.begin(work.key, work.others))
        work.begun = True

    def _place(self, work: Work) -> str:
        relative, case = work.key
        return _below(self.output_dir / relative / f"{case}{self.suffix}", self.output_dir)

    def _prepare(self, source: Item) -> Item:
        if isinstance(self.preprocessing, Compose):
            return self.preprocessing(source, threading=True)
        return self.preprocessing(source)

    def _take_on(self, work: Work, writer: ThreadPoolExecutor) -> None:
        """A case that has been read: through the network, and on to the writer."""
        while self._writing and (self._writing[0][1].done() or len(self._writing) >= WRITING):
            self._collect()
        if work.kept is not None:
            self._end(work, work.kept)
            return
        error, began = work.error, time.perf_counter()
        if error is None:
            try:
                item, steps_done = self.predictor.through_network(work.prepared)
                work.seconds += time.perf_counter() - began
                self._writing.append((work, writer.submit(self._write, work, item, steps_done)))
                return
            except Exception as failure:
                error = failure
        self._end(work, self._without(work, error))

    def _write(self, work: Work, item: Item, steps_done: int) -> CaseOutcome:
        """The writer's stage. A case is done when its line is in the journal."""
        began = time.perf_counter()
        result = self.predictor.finish(item, steps_done)
        return self._done(work, work.prepared, result, work.seconds + time.perf_counter() - began)

    def _collect(self) -> None:
        """Wait for the first of the results that are being written."""
        work, written = self._writing[0]  # and there it stays meanwhile: Ctrl-C while it is written must not lose it
        try:
            outcome = written.result()
            self._writing.popleft()
        except Exception as error:
            self._writing.popleft()
            outcome = self._without(work, error)
        self._end(work, outcome)

    def _collect_what_is_whole(self) -> None:
        for work, written in self._writing:
            error = written.exception()
            if error is None:
                self._end(work, written.result())
            elif isinstance(error, Exception):  # some of its files may be there
                self._end(work, self._failed(work, error))

    def _without(self, work: Work, error: Exception) -> CaseOutcome:
        """A case that has failed: once more with less memory where that was lacking, or how it ended."""
        work.error, began = None, time.perf_counter()
        if any(map(lacks_memory, causes(error))):
            while self._writing:  # what they hold may be what was lacking
                self._collect()
            logger.warning("case %s found too little memory: it is tried with less", work.source["case_id"])
            try:
                prepared, result = self.predictor.with_less_memory(lambda: self._prepare(work.source), error)
                return self._done(work, prepared, result, work.seconds + time.perf_counter() - began)
            except Exception as last:
                error = last
        work.seconds += time.perf_counter() - began
        return self._failed(work, error)

    def _failed(self, work: Work, error: Exception) -> CaseOutcome:
        status, reason = explained(error, work.source, self.log)
        about, left = self._common(work, work.prepared), work.earlier.files if work.earlier else {}
        if file := next((name for name in left if (self.output_dir / name).exists()), None):
            reason += f"; the result of an earlier run still lies in {file}"
            about |= {"files": left, "grid": work.earlier.grid if work.earlier else {}}  # somebody may have changed it
        if work.begun:  # what has come to lie there since is no work of somebody's either
            with contextlib.suppress(DataError):  # one that can't be read stays what it was on record
                names = {self._place(work), *left}
                own = others_work(names, work.others, None, self.output_dir)  # what the others' work is not
                about["files"] = {**about.get("files", {}), **own}
        outcome = CaseOutcome(**about, status=status, reason=reason, seconds=round(work.seconds, 3))
        self._note(lambda: self.history.end(outcome))
        return outcome

    def _done(self, work: Work, prepared: Item, result: Item, seconds: float) -> CaseOutcome:
        labels, about = result["pred"], self._common(work, prepared)
        if labels.ndim == 4:
            grid = Grid(tuple(labels.shape[1:]), labels.affine.cpu().numpy())
            voxels = torch.bincount(labels.as_tensor().flatten(), minlength=max(self.names, default=0) + 1).tolist()
            about["volumes_ml"] = {name: voxels[label] * grid.voxel_volume_ml for label, name in self.names.items()}
            about["grid"] = {"shape": list(grid.shape), "affine": grid.affine.tolist()}
        if "pred_instances" in result:
            about["instances"] = int(result["pred_instances"].max())
        written = result.get("written") or [result[key] for key in ("pred_path",) if key in result]
        outcome = CaseOutcome(
            **about,
            status=DONE,
            output=_below(Path(result["pred_path"]), self.output_dir) if "pred_path" in result else "",
            files={_below(Path(path), self.output_dir): file_sha256(Path(path)) for path in written},
            seconds=seconds,
        )
        self._note(lambda: self.history.end(outcome))
        return outcome

    def _common(self, work: Work, prepared: Item) -> dict[str, Any]:
        repairs = getattr(prepared.get("image"), "meta", {}).get("repairs", "")
        return {
            "case": work.key[1],
            "relative": work.key[0],
            "inputs": work.inputs,
            "repairs": (*work.source.get(REMARKS, ()), *without_paths(repairs, work.source).splitlines()),
            "made_with": self.made_with,
            "device": str(self.predictor.device),
            "pseudonymous": bool(work.source.get(MARK)),
        }

    def _end(self, work: Work, outcome: CaseOutcome) -> None:
        self._outcomes.append((work.place, outcome))
        work.prepared = {}
        self._bar.update(self.processes.finished(1) - self._bar.n)
        self._bar.set_postfix(CohortResult(tuple(outcome for _, outcome in self._outcomes)).counts)

    def _note(self, write: Callable[[], None]) -> None:
        """What the journal did not take is still in the tables at the end."""
        try:
            write()
        except DataError as error:
            if not self._journal_failed:
                logger.error("%s", error)
            self._journal_failed = True


def _below(path: Path, folder: Path) -> str:
    """Relative to ``folder`` where it lies in it, so that a table can move with its files."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
