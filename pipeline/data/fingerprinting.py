"""A whole dataset looked at: headers in seconds, or every voxel once, in parallel; what was read is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from pipeline.data.cases import Case, DatasetDescription
from pipeline.data.examine import examine_headers, examine_voxels, file_states
from pipeline.data.fingerprint import CaseFingerprint, DatasetFingerprint
from pipeline.data.fingerprint_store import FingerprintStore
from pipeline.data.stack_rules import StackRules

DEFAULT_RULES = StackRules()
Progress = Callable[[int, int], None]
"""Called with how many cases are done, and of how many."""

_KEEP_EVERY_S = 10.0
_KEEPING_SHARE = 0.05
"""Of the time, at most: what is kept of thousands of cases takes seconds to write."""


def fingerprint_headers(
    cases: Sequence[Case],
    channels: Sequence[str],
    rules: StackRules = DEFAULT_RULES,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[CaseFingerprint]:
    """Each case by its headers alone: about a second for a thousand cases; see `examine_headers` for what it finds."""
    found: dict[str, CaseFingerprint] = {}
    for fingerprint in _each(examine_headers, cases, channels, rules, jobs):
        found[fingerprint.case_id] = fingerprint
        if progress is not None:
            progress(len(found), len(cases))
    return [found[case.case_id] for case in cases]


def fingerprint_dataset(
    description: DatasetDescription,
    jobs: int | None = None,
    progress: Progress | None = None,
    kept_in: Path | None = None,
    rules: StackRules = DEFAULT_RULES,
) -> DatasetFingerprint:
    """Each case by every voxel of it; what was read before and has not changed since is not read again, unless refused.

    Args:
        description: of the dataset, by `describe_dataset`.
        jobs: threads; by default the number of cores, at most 8. Each holds the channels of one case in memory.
        progress: called after each case, at once for those that are known already.
        kept_in: folder of what is kept; by default one for all datasets, see `fingerprint_store.cache_folder`.
        rules: what is asked of a case's files. Other rules are another fingerprint.

    Raises:
        KeyboardInterrupt: as it comes; what was read until then is kept.
    """
    channels = tuple(description.channel_names)
    root = str(Path(description.dataset_dir).resolve())
    key = {"dataset": root, "channels": channels, "rules": asdict(rules)}
    store = FingerprintStore(key, kept_in)
    kept = store.read()
    current: dict[str, CaseFingerprint] = {}
    for case in description.cases:
        known = kept.get(case.case_id)
        if known is not None and known.file_state == file_states(case):
            current[case.case_id] = known
    changed = [case for case in description.cases if case.case_id not in current]
    if progress is not None:
        progress(len(current), len(description.cases))
    try:
        saved, pause = time.monotonic(), _KEEP_EVERY_S
        for fingerprint in _each(examine_voxels, changed, channels, rules, jobs):
            current[fingerprint.case_id] = fingerprint
            if progress is not None:
                progress(len(current), len(description.cases))
            if time.monotonic() - saved > pause:
                began = time.monotonic()
                store.write(_to_keep(current))
                saved = time.monotonic()
                pause = max(_KEEP_EVERY_S, (saved - began) / _KEEPING_SHARE)
    finally:
        if changed:
            store.write(_to_keep(current))
    ordered = tuple(sorted(current.values(), key=lambda fingerprint: fingerprint.case_id))
    return DatasetFingerprint(root, description.layout, channels, dict(description.classes), ordered)


def _to_keep(current: Mapping[str, CaseFingerprint]) -> list[CaseFingerprint]:
    """No refusal: a disk that was away, a right that was missing and memory that ran out are no state of a file."""
    return [fingerprint for fingerprint in current.values() if fingerprint.refusal is None]


def _each(
    examine: Callable[[Case, Sequence[str], StackRules], CaseFingerprint],
    cases: Sequence[Case],
    channels: Sequence[str],
    rules: StackRules,
    jobs: int | None,
) -> Iterator[CaseFingerprint]:
    """As they become ready. No more is begun than there are threads: an interruption waits for a case, not for all."""
    jobs = min(jobs or min(8, os.cpu_count() or 1), max(1, len(cases)))
    if jobs == 1:
        yield from (examine(case, channels, rules) for case in cases)
        return
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="examine")
    waiting, running = iter(cases), set[Future[CaseFingerprint]]()
    try:
        for case in waiting:
            running.add(pool.submit(examine, case, channels, rules))
            if len(running) < 2 * jobs:
                continue
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
