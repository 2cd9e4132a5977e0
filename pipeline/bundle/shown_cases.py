"""The cases that a report shows: their images from the dataset, their predictions from files or made once more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle.build import resolve
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.find import recorded_bundle
from pipeline.data import Case
from pipeline.data.case_volumes import CaseVolumes, read_case_volumes
from pipeline.data.cases_again import find_cases_again
from pipeline.data.pairs import find_pairs, renamed
from pipeline.data.provenance import input_digests
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.data.stack_rules import StackRules
from pipeline.errors import ConfigError, DataError, PipelineError

_SUFFIXES = (".nii.gz", ".nii", ".png")


@dataclass(frozen=True)
class ShownCases:
    """What can be shown.

    Args:
        volumes: by case id; each with a prediction and a reference, where there is one.
        problems: case id -> why it is not shown.
        predicted_again: whether the predictions were made for this, and not read.
        classes: id -> name, where a bundle says so.
    """

    volumes: dict[str, CaseVolumes]
    problems: dict[str, str]
    predicted_again: bool
    classes: dict[int, str]


@dataclass(frozen=True)
class _Known:
    """What a run's record and configs say of its cases."""

    channels: tuple[str, ...]
    rules: StackRules
    classes: dict[int, str]


def shown_cases(
    run: str | Path,
    record: Mapping[str, Any],
    case_ids: Sequence[str],
    data: str | Path,
    *,
    predictions: str | Path | None = None,
    channel: str | None = None,
    layout: str | None = None,
    pseudonyms: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShownCases:
    """Images, references and predictions of some cases.

    Predictions are the files in ``predictions``; or those of the run, where it is a prediction; or they are made once
    more, by the weights of a training or an evaluation, which keep none.

    Args:
        run: its folder.
        record: its ``run.json``; empty where it has none.
        case_ids: which cases.
        data: the dataset with their images and references.
        channel: which one is shown; by default the first.
        layout, pseudonyms: as the run was started with.
        progress: called with how many cases are done, and of how many.

    Raises:
        DataError: a dataset that can't be listed.
        ConfigError: a channel that there is not, or nothing that says where predictions are.
    """
    folder = Path(run)
    known = _known(folder, record)
    cases, channels = find_cases_again(data, known.channels, layout, pseudonyms)
    shown = channels[0] if channel is None else channel.lower()
    if shown not in channels:
        raise ConfigError(f"the channel {channel!r}", expected=f"one of {', '.join(channels)}")
    again = predictions is None and record.get("kind") in ("train", "evaluate")
    predict = _again(folder, record) if again else _read(predictions or folder, data, pseudonyms)
    volumes: dict[str, CaseVolumes] = {}
    problems: dict[str, str] = {}
    for number, case_id in enumerate(case_ids):
        measured = (record.get("inputs") or {}).get(case_id, {}).get("label")
        if case_id not in cases:
            problems[case_id] = "not in the dataset"
        elif measured and (own := cases[case_id].label) and input_digests([_label(own)])[""]["label"] != measured:
            problems[case_id] = "its reference in this dataset is another file than the one that was measured"
        else:
            try:
                volumes[case_id] = read_case_volumes(cases[case_id], shown, known.rules, predict(cases[case_id]))
            except PipelineError as error:  # its other words may hold a path
                problems[case_id] = error.found
        if progress is not None:
            progress(number + 1, len(case_ids))
    return ShownCases(volumes, problems, again, known.classes)


def _label(path: Path) -> dict[str, Any]:
    return {"case_id": "", "image": {}, "label": path}


def _known(folder: Path, record: Mapping[str, Any]) -> _Known:
    file = folder / "configs" / f"{record.get('kind')}.json"
    config = None
    if file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
    elif (bundle := recorded_bundle(record)) is not None:  # else what the dataset says is enough
        config = resolve(bundle, "evaluate")
    if config is None:
        return _Known((), StackRules(), {})
    rules = data_rules(config)
    return _Known(rules.channels, rules.stack, rules.classes)


def _read(
    predictions: str | Path, data: str | Path, pseudonyms: str | Path | None
) -> Callable[[Case], Path | np.ndarray]:
    root = Path(predictions)
    pairing = None

    def of(case: Case) -> Path:
        nonlocal pairing
        own = [root / case.relative / f"{case.case_id}{suffix}" for suffix in _SUFFIXES]
        for file in own:
            if file.is_file():
                return file
        if pairing is None:
            pairing = find_pairs(root, data)
            pairing = renamed(pairing, Pseudonyms.read(pseudonyms)) if pseudonyms is not None else pairing
        found = {pair.case_id: pair.prediction for pair in pairing.pairs}.get(case.case_id)
        if found is None:
            raise DataError("no prediction of its name", case=case.case_id)
        return found

    return of


def _again(folder: Path, record: Mapping[str, Any]) -> Callable[[Case], Path | np.ndarray]:
    """By the weights of a training, or those that were evaluated."""
    from pipeline.bundle.load import load_bundle

    if record["kind"] == "train":
        segment = load_bundle(folder)
    else:
        file = folder / "configs" / "evaluate.json"
        if not file.is_file():
            raise ConfigError(f"an evaluation without its {file.name}", expected="one of this version")
        config = json.loads(file.read_text(encoding="utf-8"))
        own = config["bundle_root"]
        weights = config["checkpoint"]
        if isinstance(weights, str) and weights.startswith("$"):
            segment = load_bundle(own)
        else:
            segment = load_bundle(own, weights=weights)
    return lambda case: segment(case.image).labels
