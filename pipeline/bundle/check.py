"""`pipeline check`: a dataset by the rules of a bundle, or by what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.bundle.build import resolve
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.find import find_bundle
from pipeline.data import Check, DatasetDescription, check_dataset, describe_dataset
from pipeline.errors import DataError


def check(
    data: str | Path,
    bundle: str | Path | None = None,
    *,
    layout: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Look at every case of a dataset as training would, and compare the cases with each other.

    Args:
        data: the dataset.
        bundle: whose channels, classes and policies are asked for; by default those that the dataset itself names.
        layout: how its files are found; by default what is recognised.
        jobs: threads; by default the number of cores, at most 8.
        progress: called with how many cases are done, and of how many.
    """
    if bundle is None:
        return check_dataset(_described(data, layout), jobs, progress)
    asked = data_rules(resolve(find_bundle(bundle), "train"))
    description = describe_dataset(data, asked.channels, layout, asked.spatial_dims)
    return check_dataset(replace(description, classes=asked.classes), jobs, progress, rules=asked.stack)


def _described(data: str | Path, layout: str | None) -> DatasetDescription:
    """Of volumes, or of sections where there is no volume."""
    try:
        return describe_dataset(data, layout=layout)
    except DataError as error:
        try:
            return describe_dataset(data, layout=layout, spatial_dims=2)
        except DataError:
            raise error from None
