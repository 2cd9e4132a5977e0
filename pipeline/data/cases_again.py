"""The cases of a dataset that a finished run was made from, whatever they are: volumes, or else sections."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from pipeline.data.cases import Case, describe_dataset, find_cases
from pipeline.data.layouts import SUFFIXES, Folder
from pipeline.errors import DataError


def find_cases_again(
    dataset_dir: str | PathLike[str],
    channels: Sequence[str] = (),
    layout: str | None = None,
    pseudonyms: str | PathLike[str] | None = None,
) -> tuple[dict[str, Case], tuple[str, ...]]:
    """Every case by its id, with whatever it has of channels and label, and the channels' names in lower case.

    Args:
        dataset_dir: as `find_cases` takes it.
        channels: of the run; by default those that the dataset shows.
        layout, pseudonyms: as the run was started with.

    Raises:
        DataError: neither volumes nor sections that can be listed; the reason is that of what is there.
        ConfigError: an unknown layout.
    """
    refusals = []
    for dims in SUFFIXES:
        try:
            names = channels or describe_dataset(dataset_dir, layout=layout, spatial_dims=dims).channel_names
            found = find_cases(
                dataset_dir,
                names,
                require_label=False,
                keep_incomplete=True,
                spatial_dims=dims,
                layout=layout,
                pseudonyms=pseudonyms,
                missing_channels="zero",
            )
        except DataError as error:
            refusals.append(error)
        else:
            return {case.case_id: case for case in found}, tuple(name.lower() for name in names)
    root = Path(dataset_dir)
    sections = root.is_dir() and not Folder(root, max(SUFFIXES)).files
    raise refusals[-1] if sections else refusals[0]
