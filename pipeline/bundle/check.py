"""`pipeline check`: a dataset by the rules of a bundle, or by what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.bundle.build import resolve
from pipeline.bundle.data_rules import data_rules, taken_on_trust
from pipeline.bundle.find import find_bundle
from pipeline.data import (
    Case,
    Check,
    DatasetDescription,
    check_dataset,
    describe_dataset,
    describe_on_best_grid,
)
from pipeline.data.layouts import Entry
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.data.stack_rules import stack_rules
from pipeline.errors import DataError


def check(
    data: str | Path,
    bundle: str | Path | None = None,
    *,
    layout: str | None = None,
    pseudonyms: str | Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overrides: Sequence[str] = (),
) -> Check:
    """Look at every case of a dataset as training would, and compare the cases with each other.

    Args:
        data: the dataset.
        bundle: whose channels, classes and policies are asked for; by default those that the dataset itself names.
        layout: how its files are found; by default what is recognised.
        pseudonyms: a CSV file with what takes the place of the ids in all that is said and written.
        jobs: threads; by default the number of cores, at most 8.
        progress: called with how many cases are done, and of how many.
        overrides: ``KEY=VALUE`` strings: of the bundle, or without one those of `taken_on_trust`.
    """
    if bundle is None:
        settings = taken_on_trust(overrides)
        description = _described(data, layout, settings)
        rules = stack_rules(description.channel_names, **settings)
    else:
        asked = data_rules(resolve(find_bundle(bundle), "train", overrides=overrides))
        rules = asked.stack
        description = describe_dataset(data, asked.channels, layout, asked.spatial_dims)
        description = replace(description, classes=asked.classes)
    if pseudonyms is not None:
        description = replace(description, cases=_renamed(description.cases, Pseudonyms.read(pseudonyms)))
    return check_dataset(description, jobs, progress, rules=rules, pseudonymous=pseudonyms is not None)


def _renamed(cases: Sequence[Case], pseudonyms: Pseudonyms) -> tuple[Case, ...]:
    entries = pseudonyms.applied(
        [Entry(case.case_id, {}, patient=case.patient, problem=case.problem) for case in cases]
    )
    return tuple(
        replace(case, case_id=entry.case_id, problem=entry.problem) for case, entry in zip(cases, entries, strict=True)
    )


def _described(data: str | Path, layout: str | None, settings: Mapping[str, Any]) -> DatasetDescription:
    """Of volumes, the reference that `pipeline init` would take first; or of sections where there is no volume."""
    try:
        description, reference = describe_on_best_grid(data, layout, settings)
        return replace(description, why=f"{description.why}; {reference}") if reference else description
    except DataError as error:
        try:
            return describe_dataset(data, layout=layout, spatial_dims=2)
        except DataError:
            raise error from None
