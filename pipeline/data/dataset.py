"""`CaseDataset`: cases prepared once, kept on disk or in memory, none of them able to take the others down."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import RandomizableTrait, Transform
from tqdm import tqdm

from pipeline.data.cache import CaseCache, Kept, cache_folder
from pipeline.data.cache_key import Unknown
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
    and not after hours. The head ends at the first random transform.

    With a ``cache_dir``, results are kept on disk for later runs, see `pipeline.data.cache`. An item's arrays are then
    mapped anew at each access: a random crop reads its own voxels, what writes to them changes no file, and the
    workers of a run share one copy in the system's file cache. At a case's first access its checksum is verified.

    Without, or where the disk is full, results stay in memory up to the budget, and the others are prepared again at
    each access. An item is then handed on as a copy; a random transform that only reads its input says so with
    ``leaves_input_untouched = True`` and is given the arrays themselves.

    Args:
        data: items, as `pipeline.data.data_list` makes them.
        transform: a MONAI ``Compose``, or what one is made of.
        cache_share: of the memory available at the start, 0 (keep nothing) to 1; divided among the processes of
            ``torchrun``.
        cache_dir: folder of prepared cases; ``"auto"`` for the user's own, see `pipeline.data.cache.cache_folder`; None
            for none. What cases come out as does not depend on it.
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
        on_disk: number of items kept on disk.

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
        cache_dir: str | os.PathLike[str] | None = None,
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
        self._kept: list[Kept | None] = []
        first_random = self.transform.get_index_of_first(
            lambda step: isinstance(step, RandomizableTrait) or not isinstance(step, Transform)
        )
        self._head_length = len(self.transform.transforms) if first_random is None else first_random
        head, tail = self.transform.transforms[: self._head_length], self.transform.transforms[self._head_length :]
        self._share_arrays = bool(tail) and getattr(tail[0], "leaves_input_untouched", False)
        self._cache = _open_cache(cache_folder(cache_dir), head)
        self._prepare(
            cache_budget_bytes(cache_share), workers or min(8, os.cpu_count() or 1), on_refusal, progress, name
        )

    @property
    def cached(self) -> int:
        return sum(item is not None for item in self._items)

    @property
    def on_disk(self) -> int:
        return sum(kept is not None for kept in self._kept)

    def _prepare(self, budget_bytes: int, workers: int, on_refusal: str, progress: bool, name: str) -> None:
        order = list(range(len(self.data)))
        if self._cache is not None:  # the ranks of a machine begin at different cases, and find those of the others
            first = len(order) * int(os.environ.get("LOCAL_RANK", "0")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            order = order[first:] + order[:first]
        prepared: dict[int, tuple[Kept | None, Any]] = {}
        errors: dict[int, PipelineError] = {}
        with ThreadPool(workers) as pool:
            results = pool.imap(self._prepared_or_error, order)
            bar = tqdm(results, total=len(order), desc=f"Preparing {name}", unit="case", disable=not progress)
            for index, result in zip(order, bar, strict=True):
                if isinstance(result, PipelineError):
                    errors[index] = result
                    continue
                kept, item = result
                budget_bytes -= _bytes(item)
                prepared[index] = kept, item if budget_bytes >= 0 else None
        self.refused = [
            Refusal(errors[index].case or _case_id(self.data[index]), str(errors[index])) for index in sorted(errors)
        ]
        reasons = "\n  ".join(refusal.reason for refusal in self.refused)
        if errors and (on_refusal == "raise" or not prepared):
            if len(errors) == 1:
                raise next(iter(errors.values()))
            raise DataError(
                f"{len(errors)} of {len(self.data)} {name} cases that can't be used:\n  {reasons}\n",
                expected="cases that load",
                fix='correct them, take them out of the dataset, or train without them (on_refusal: "skip")',
            )
        if errors:
            logger.warning("%d of %d %s cases are left out:\n  %s", len(errors), len(self.data), name, reasons)
        accepted = sorted(prepared)
        self.data = [self.data[index] for index in accepted]
        self._kept = [prepared[index][0] for index in accepted]
        self._items = [prepared[index][1] for index in accepted]
        # Which entries have been read as a whole: known to all workers, and from one epoch to the next.
        self._verified = torch.zeros(len(accepted), dtype=torch.uint8)
        if self.on_disk:
            self._verified.share_memory_()
        if self._cache is not None and self.on_disk:
            logger.info("%s: %d prepared cases in %s, %s", name, self.on_disk, self._cache.folder, self._cache.summary)
        if self.cached + self.on_disk < len(accepted):
            logger.info(
                "%s: %d of %d cases kept in memory, the others are read at access",
                name, self.cached, len(accepted) - self.on_disk,
            )  # fmt: skip

    def _prepared_or_error(self, index: int) -> tuple[Kept | None, Any] | PipelineError:
        try:
            return self._prepared(self.data[index])
        except PipelineError as error:
            return error
        except MemoryError as error:  # on keeping it
            return case_error(error, self.data[index])

    def _prepared(self, source: Mapping[str, Any]) -> tuple[Kept | None, Any]:
        def prepare() -> Any:
            return self._run(source, source, 0, self._head_length)

        return (None, prepare()) if self._cache is None else self._cache.fetch(source, prepare)

    def _transform(self, index: int) -> Any:
        if self.seed is not None:
            drawn = np.random.SeedSequence((self.seed, getattr(index, "epoch", 0), int(index)))
            self.transform.set_random_state(seed=int(drawn.generate_state(1)[0]))
        source, item = self.data[index], self._items[index]
        if item is None:
            item = self._opened(index)
        elif self._share_arrays:
            item = dict(item)
        else:
            item = deepcopy(item)
        return self._run(source, item, self._head_length, None)

    def _opened(self, index: int) -> Any:
        """An item that is not in memory: from the disk, or prepared again."""
        for _ in range(2):  # an entry that is gone or damaged is prepared, and kept, once more
            kept, item = self._kept[index], None
            if self._cache is not None and kept is not None:
                item = self._cache.open(kept, verify=not self._verified[index])
                if item is not None:
                    self._verified[index] = 1
                    return item
            self._verified[index] = 0
            self._kept[index], item = self._prepared(self.data[index])
            if item is not None:
                return item
        return self._run(self.data[index], self.data[index], 0, self._head_length)

    def _run(self, source: Mapping[str, Any], item: Any, start: int, end: int | None) -> Any:
        try:
            # The head runs in threads of one process: MONAI then copies each transform that is not safe for that.
            return self.transform(item, start=start, end=end, threading=end is not None)
        except Exception as error:
            raise case_error(error, source) from error


def _open_cache(folder: Path | None, head: Sequence[Any]) -> CaseCache | None:
    if folder is None or not head:
        return None
    try:
        return CaseCache(folder, head)
    except Unknown as reason:
        logger.warning(
            "Prepared cases are not kept on disk: the transforms hold %s, whose value can't be told.", reason
        )
    except OSError as error:
        logger.warning("Prepared cases are not kept on disk: %s can't be used (%s).", folder, error.strerror or error)
    return None


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
