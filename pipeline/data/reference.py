"""Which channel is the reference, where channels lie on grids of their own: every other one is resampled onto its grid.

A label is never resampled, so it must lie on the reference's grid; and what the others do not cover of it is missing. A
dataset whose folder does not say which channel that is has its headers asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.cases import DatasetDescription, announced, describe_dataset
from pipeline.data.layouts import recognise
from pipeline.data.layouts.folder import Entry
from pipeline.data.stack import LEAST_OVERLAP, covered_share
from pipeline.data.stack_rules import StackRules, stack_rules
from pipeline.errors import PipelineError
from pipeline.geometry import Grid
from pipeline.io import read_image_grid
from pipeline.io.policy import ReadPolicy

MOST_CASES = 60
"""Whose headers are read; evenly spread over the dataset where there are more."""


_Grids = Callable[[Path, ReadPolicy], Grid | None]


class _Fit(NamedTuple):
    """How well a channel serves as the reference: compared in this order."""

    share_usable: float
    covered: float
    fineness: float


def describe_on_best_grid(
    dataset_dir: str | PathLike[str], layout: str | None = None, settings: Mapping[str, Any] | None = None
) -> tuple[DatasetDescription, str | None]:
    """`describe_dataset`, with that channel first onto whose grid the others can be resampled.

    Compared are the share of cases that would be usable (the label lies on its grid, every other channel covers half of
    it or more), then how much the others cover, then how fine it is; equals stay in the dataset's own order.

    Args:
        settings: by which headers are read, as `stack_rules` takes them.

    Returns:
        The description, and why another channel than the dataset's first was taken, as a sentence; None where it is the
        dataset's first.

    Raises:
        DataError, ConfigError: as `describe_dataset`.
    """
    given = describe_dataset(dataset_dir, layout=layout, say=False)  # it is said with the channels in their last order
    names = given.channel_names
    rules = stack_rules(names, **(settings or {}))
    if len(names) < 2:
        return announced(given), None
    known: dict[Path, Grid | None] = {}

    def grid(path: Path, policy: ReadPolicy) -> Grid | None:
        if path not in known:
            try:
                known[path] = read_image_grid(path, policy)
            except PipelineError:  # the case is refused by name when it is read as a whole
                known[path] = None
        return known[path]

    orders = {name: [name, *(other for other in names if other != name)] for name in names}
    fits = {name: _fit(_entries(given, order), name, rules, grid) for name, order in orders.items()}
    best = max(names, key=lambda name: fits[name])
    if best == names[0]:
        return announced(given), None
    first, chosen = fits[names[0]], fits[best]
    if chosen.share_usable > first.share_usable:
        why = f"{chosen.share_usable:.0%} of the cases can be brought onto its grid, onto that of {names[0]} "
        why += f"{first.share_usable:.0%}"
    elif chosen.covered > first.covered:
        why = f"the other channels cover {chosen.covered:.0%} of it, of {names[0]} {first.covered:.0%}"
    else:
        why = f"its grid is finer than that of {names[0]}"
    return describe_dataset(dataset_dir, orders[best], layout), f"{best} is the reference channel: {why}"


def _entries(description: DatasetDescription, order: Sequence[str]) -> list[Entry]:
    """The dataset's complete cases with this order of channels, on which it depends which label is theirs."""
    listing = recognise(description.dataset_dir, order, description.layout, 3).listing
    return [entry for entry in listing.entries if all(len(entry.image.get(name, ())) == 1 for name in order)]


def _fit(complete: Sequence[Entry], name: str, rules: StackRules, grid: _Grids) -> _Fit:
    cases = complete[:: -(-len(complete) // MOST_CASES) or 1]
    covered = [_covered(case, name, rules, grid) for case in cases]
    usable = [share for share in covered if share >= LEAST_OVERLAP]
    grids = [grid(case.image[name][0], rules.policy_of(name)) for case in cases]
    own = [np.prod(found.spacing_mm) for found in grids if found is not None]
    if not usable or not own:
        return _Fit(0.0, 0.0, 0.0)
    # Rounded: what differs by a voxel's edge is equal.
    return _Fit(len(usable) / len(cases), round(float(np.mean(usable)), 1), -round(float(np.median(own)), 3))


def _covered(case: Entry, name: str, rules: StackRules, grid: _Grids) -> float:
    """The share of the reference that the channel covers which covers the least; 0 where the case is not usable."""
    reference = grid(case.image[name][0], rules.policy_of(name))
    if reference is None:
        return 0.0
    if case.labels:
        label = grid(case.labels[0], rules.label_policy)
        if label is None or not reference.same_grid(label):
            return 0.0
    shares = [1.0]
    for other, (path, *_) in case.image.items():
        own = grid(path, rules.policy_of(other))
        if other != name:
            shares.append(0.0 if own is None else covered_share(reference, own))
    return min(shares)
