"""The three stages of a cohort, at work at the same time: read, network, write.

Files are read and prepared in threads of their own, the network runs in the caller's, and results are restored and
written in another. How far reading may run ahead and writing behind is bounded, and with it the memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from monai.transforms import Compose
from tqdm import tqdm

from pipeline.data.case_error import lacks_memory
from pipeline.engines.cohort_case import CasePredictor, causes
from pipeline.engines.cohort_inputs import InputDigests
from pipeline.engines.cohort_kept import still_holds
from pipeline.engines.cohort_ledger import Ledger, Work
from pipeline.engines.cohort_result import CaseOutcome, CohortResult
from pipeline.engines.cohort_turns import Alone

logger = logging.getLogger(__name__)

Item = Mapping[Hashable, Any]

READERS = {"cpu": 1, "cuda": 3}
"""Threads that prepare cases, by the kind of device: on a CPU the network wants the cores itself."""

WRITING = 2
"""Results that wait to be written, the one that is being written included. Each may hold a volume's logits."""


class Stages:
    """See the module; the arguments are those of `pipeline.engines.cohort.predict_cohort`.

    Args:
        items: in the order in which they are begun.
        ledger: for what is to be written down of them.
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocessing: Callable[[Item], Item],
        predictor: CasePredictor,
        ledger: Ledger,
        processes: Alone,
    ) -> None:
        self.items, self.preprocessing, self.predictor = items, preprocessing, predictor
        self.ledger, self.processes = ledger, processes
        self.digests = InputDigests()
        self._readers = READERS.get(predictor.device.type, 1)

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
        ledger = self.ledger
        work.earlier = ledger.history.outcomes.get(work.key)
        try:
            work.inputs = self.digests(work.source)
            if not ledger.redo:
                work.kept = still_holds(work.earlier, work.inputs, ledger.made_with, ledger.output_dir)
            if work.kept is None:
                ledger.begin(work)
                work.prepared = self._prepare(work.source)
        except Exception as error:
            work.error = error
        work.seconds = time.perf_counter() - began
        return work

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
        return self.ledger.done(work, work.prepared, result, work.seconds + time.perf_counter() - began)

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
                self._end(work, self.ledger.failed(work, error))

    def _without(self, work: Work, error: Exception) -> CaseOutcome:
        """A case that has failed: once more with less memory where that was lacking, or how it ended."""
        work.error, began = None, time.perf_counter()
        if any(map(lacks_memory, causes(error))):
            while self._writing:  # what they hold may be what was lacking
                self._collect()
            logger.warning("case %s found too little memory: it is tried with less", work.source["case_id"])
            try:
                prepared, result = self.predictor.with_less_memory(lambda: self._prepare(work.source), error)
                return self.ledger.done(work, prepared, result, work.seconds + time.perf_counter() - began)
            except Exception as last:
                error = last
        work.seconds += time.perf_counter() - began
        return self.ledger.failed(work, error)

    def _end(self, work: Work, outcome: CaseOutcome) -> None:
        self._outcomes.append((work.place, outcome))
        work.prepared = {}
        self._bar.update(self.processes.finished(1) - self._bar.n)
        self._bar.set_postfix(CohortResult(tuple(outcome for _, outcome in self._outcomes)).counts)
