"""`CaseDataset`: cases prepared once, kept in memory as far as they fit, none of them able to take the others down."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import RandomizableTrait, Transform
from tqdm import tqdm

from pipeline.data.case_error import case_error
from pipeline.data.memory import cache_budget_bytes
from pipeline.errors import ConfigError, DataError, PipelineError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A case that could not be prepared, and why."""

    case_id: str
    reason: str


class CaseDataset(Dataset):
    """A MONAI dataset that runs the deterministic head of its transform once per case, before the first epoch.

    Every case is prepared at the start, in threads, so that all that is wrong with a dataset is known before training
    and not after hours. Results stay in memory up to the budget; the others are prepared again at each access. The
    head ends at the first random transform. A cached item is handed on as a copy; a random transform that only reads
    its input says so with ``leaves_input_untouched = True`` and is given the cached arrays themselves.

    Args:
        data: items, as `pipeline.data.data_list` makes them.
        transform: a MONAI ``Compose``, or what one is made of.
        cache_share: of the memory available at the start, 0 (keep nothing) to 1; divided among the processes of
            ``torchrun``.
        workers: threads that prepare; by default the number of CPU cores, at most 8.
        on_refusal: ``"raise"`` stops with one error that lists every refused case; ``"skip"`` logs them and goes on.
        progress: show a bar.
        name: of the part, for the bar and the log.
        seed: with it, the random transforms of a sample depend on this seed, its index and its epoch alone (see
            `pipeline.data.EpochSampler`); without, they draw from their own stream as MONAI's do.

    Attributes:
        data: items that were accepted.
        refused: those that were not (empty after ``"raise"``).
        cached: number of items held in memory.

    Raises:
        DataError: refused cases, or none left.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Sequence[Callable] | Callable | None = None,
        cache_share: float = 0.5,
        workers: int | None = None,
        on_refusal: str = "raise",
        progress: bool = True,
        name: str = "train",
        seed: int | None = None,
    ) -> None:
        if on_refusal not in ("raise", "skip"):
            raise ConfigError(f"on_refusal={on_refusal!r}", expected="raise or skip")
        if not 0 <= cache_share <= 1:
            raise ConfigError(f"cache_share={cache_share}", expected="a share between 0 and 1")
        super().__init__(list(data), transform)
        self.seed = seed
        self.data: list[Mapping[str, Any]]
        self.refused: list[Refusal] = []
        self._items: list[Any] = []
        first_random = self.transform.get_index_of_first(
            lambda step: isinstance(step, RandomizableTrait) or not isinstance(step, Transform)
        )
        self._head_length = len(self.transform.transforms) if first_random is None else first_random
        tail = self.transform.transforms[self._head_length :]
        self._share_arrays = bool(tail) and getattr(tail[0], "leaves_input_untouched", False)
        self._prepare(
            cache_budget_bytes(cache_share), workers or min(8, os.cpu_count() or 1), on_refusal, progress, name
        )

    @property
    def cached(self) -> int:
        return sum(item is not None for item in self._items)

    def _prepare(self, budget_bytes: int, workers: int, on_refusal: str, progress: bool, name: str) -> None:
        accepted, items, errors = [], [], []
        with ThreadPool(workers) as pool:
            results = pool.imap(self._head_or_error, self.data)
            bar = tqdm(results, total=len(self.data), desc=f"Preparing {name}", unit="case", disable=not progress)
            for source, result in zip(self.data, bar, strict=True):
                if isinstance(result, PipelineError):
                    errors.append(result)
                    self.refused.append(Refusal(result.case or _case_id(source), str(result)))
                    continue
                budget_bytes -= _bytes(result)
                accepted.append(source)
                items.append(result if budget_bytes >= 0 else None)
        reasons = "\n  ".join(refusal.reason for refusal in self.refused)
        if errors and (on_refusal == "raise" or not accepted):
            if len(errors) == 1:
                raise errors[0]
            raise DataError(
                f"{len(errors)} of {len(self.data)} {name} cases that can't be used:\n  {reasons}\n",
                expected="cases that load",
                fix='correct them, take them out of the dataset, or train without them (on_refusal: "skip")',
            )
        if errors:
            logger.warning("%d of %d %s cases are left out:\n  %s", len(errors), len(self.data), name, reasons)
        self.data, self._items = accepted, items
        if self.cached < len(items):
            logger.info(
                "%s: %d of %d cases kept in memory, the others are read at access", name, self.cached, len(items)
            )

    def _head_or_error(self, source: Mapping[str, Any]) -> Any:
        try:
            return self._run(source, source, 0, self._head_length)
        except PipelineError as error:
            return error

    def _transform(self, index: int) -> Any:
        if self.seed is not None:
            drawn = np.random.SeedSequence((self.seed, getattr(index, "epoch", 0), int(index)))
            self.transform.set_random_state(seed=int(drawn.generate_state(1)[0]))
        source, item = self.data[index], self._items[index]
        if item is None:
            item = self._run(source, source, 0, self._head_length)
        elif self._share_arrays:
            item = dict(item)
        else:
            item = deepcopy(item)
        return self._run(source, item, self._head_length, None)

    def _run(self, source: Mapping[str, Any], item: Any, start: int, end: int | None) -> Any:
        try:
            # The head runs in threads of one process: MONAI then copies each transform that is not safe for that.
            return self.transform(item, start=start, end=end, threading=end is not None)
        except Exception as error:
            raise case_error(error, source) from error


def _case_id(source: Mapping[str, Any]) -> str:
    return str(source.get("case_id", "(without an id)"))


def _bytes(item: Any) -> int:
    if isinstance(item, torch.Tensor):
        return item.element_size() * item.nelement()
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(map(_bytes, item.values()))
    return sum(map(_bytes, item)) if isinstance(item, list | tuple) else 0
