"""Phantom cases written as a dataset on disk: one folder per case, one NIfTI file per map, one ``phantom.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from os import PathLike, cpu_count
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.phantom import CHANNELS, PHANTOM_VERSION, make_case
from pipeline.data.phantom_lesions import SMALL_ML
from pipeline.errors import DataError
from pipeline.io import write_volume

FACTS_FILE = "phantom.json"


@dataclass(frozen=True)
class _Order:
    """One case to make: what a worker process needs to know."""

    folder: Path
    seed: int
    penumbra: bool
    healthy: bool
    lesion_ml: tuple[float, float] | None


def write_dataset(
    folder: str | PathLike[str],
    cases: int,
    seed: int = 0,
    *,
    penumbra: bool = False,
    healthy_share: float = 0.0,
    lesion_ml: tuple[float, float] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate a dataset: ``FOLDER/sub-001/sub-001_cbf.nii.gz``, ``_cbv``, ``_mtt``, ``_label``; ``phantom.json``.

    Case ``i`` depends on ``seed`` and ``i`` alone: neither on the number of cases nor on that of the workers.

    Args:
        folder: created; must be empty or missing.
        cases: how many, at least 1.
        seed: non-negative.
        penumbra: label the penumbra as class 2.
        healthy_share: share of cases without an acute lesion, 0 to 1, spread evenly over the cases.
        lesion_ml: small lesions instead of large ones: bounds of each core's volume, between 0.1 and 10 ml. A
            thousandth of the brain is 1 to 2 ml.
        workers: processes; by default one per CPU core, and 0 means this process. They are spawned, so a script that
            calls this needs the usual ``if __name__ == "__main__":``.
        progress: called with (cases done, cases) after each case, in this process.

    Returns:
        The case folders, in order.

    Raises:
        DataError: the folder holds files, or a number is out of range.
    """
    folder = Path(folder)
    if cases < 1 or seed < 0 or not 0 <= healthy_share <= 1:
        raise DataError(
            f"{cases} cases, seed {seed}, healthy share {healthy_share}",
            expected="at least 1 case, a seed of at least 0, a share between 0 and 1",
        )
    if lesion_ml is not None and not SMALL_ML[0] <= lesion_ml[0] <= lesion_ml[1] <= SMALL_ML[1]:
        raise DataError(
            f"lesions of {lesion_ml[0]:g} to {lesion_ml[1]:g} ml",
            expected=f"two volumes between {SMALL_ML[0]:g} and {SMALL_ML[1]:g} ml, the smaller one first",
            fix="give none for strokes as most are scanned, 6 ml and more",
        )
    if folder.exists() and any(folder.iterdir()):
        raise DataError("files in the folder for the phantom", file=folder, expected="an empty or a new folder")

    width = max(3, len(str(cases)))
    orders = [
        _Order(folder / f"sub-{i + 1:0{width}d}", case_seed(seed, i), penumbra, is_healthy(i, healthy_share), lesion_ml)
        for i in range(cases)
    ]
    workers = min(cpu_count() or 1 if workers is None else workers, cases)
    facts: dict[str, dict[str, Any]] = {}

    def note(order: _Order, case_facts: dict[str, Any]) -> None:
        facts[order.folder.name] = {"seed": order.seed, **case_facts}
        if progress is not None:
            progress(len(facts), cases)

    folder.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        for order in orders:
            note(order, _make_and_write(order))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            try:
                with _one_thread_each():
                    running = {pool.submit(_make_and_write, order): order for order in orders}
                for done in as_completed(running):
                    note(running[done], done.result())
            except BaseException:  # an interruption that the workers were not sent: no more than what they are at
                pool.shutdown(cancel_futures=True)
                raise

    description = {
        "phantom_version": PHANTOM_VERSION,
        "seed": seed,
        "channels": list(CHANNELS),
        "labels": {"1": "core", "2": "penumbra"} if penumbra else {"1": "core"},
        "healthy_share": healthy_share,
        "lesion_ml": lesion_ml,
        "cases": {order.folder.name: facts[order.folder.name] for order in orders},
    }
    (folder / FACTS_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return [order.folder for order in orders]


def case_seed(seed: int, index: int) -> int:
    """The seed of a dataset's case; ``make_case`` with it makes that case again.

    >>> case_seed(0, 0) != case_seed(0, 1) != case_seed(1, 0)
    True
    """
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])


def is_healthy(index: int, share: float) -> bool:
    """Whether a dataset's case is one without a lesion.

    >>> [is_healthy(i, 0.25) for i in range(8)]
    [False, False, False, True, False, False, False, True]
    """
    return int(round((index + 1) * share, 9)) > int(round(index * share, 9))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start within have one thread for numpy's products: with more they wait for each other's cores."""
    names = [name for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _make_and_write(order: _Order) -> dict[str, Any]:
    case = make_case(order.seed, penumbra=order.penumbra, healthy=order.healthy, lesion_ml=order.lesion_ml)
    order.folder.mkdir()
    for name in (*CHANNELS, "label"):
        write_volume(order.folder / f"{order.folder.name}_{name}.nii.gz", getattr(case, name), case.grid)
    return case.facts
