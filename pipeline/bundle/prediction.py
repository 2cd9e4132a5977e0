"""Segmenting a cohort with a bundle."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.headers import refuse_by_headers
from pipeline.bundle.inference import Inference, run_section
from pipeline.bundle.record import record_prediction
from pipeline.bundle.refusals import refuse_taken_back
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.data.provenance import environment
from pipeline.data.splits import TRAINED_ON, read_split, trained_cases
from pipeline.data.trained_on import TrainedOn
from pipeline.errors import ConfigError
from pipeline.io.destination import require_folder

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

logger = logging.getLogger("pipeline.bundle")


def predict(
    bundle: str | Path,
    input: str | Path,
    output: str | Path,
    *,
    weights: str | Path | Sequence[str | Path] | None = None,
    probabilities: bool = False,
    resume: bool = True,
    overrides: Sequence[str] = (),
) -> CohortResult:
    """Segment every case at ``input`` (a dataset, a list of cases, a folder of cases, one case, one file) into
    ``output``. Processes that ``torchrun`` has started share the cases; each gets the whole result.

    Args:
        weights: instead of the bundle's; several files are averaged.
        resume: keep the results in ``output`` that still hold, and make the others; False makes all of them again.

    Raises:
        ConfigError: a result that would take the place of an image or a label; a setting that no case could be
            predicted with.
    """
    started = time.time()
    instead = {"output_dir": "the OUTPUT folder", "dataset_dir": "the INPUT", "checkpoint": "--weights FILE"}
    refuse_taken_back(overrides, instead)
    values = {"output_dir": str(Path(output)), "dataset_dir": str(input)}
    if probabilities:
        values["probabilities_key"] = "probabilities"
    inference = Inference(bundle, weights=weights, overrides=overrides, values=values)
    config = inference.config
    require_folder(output)
    unlike = _unlike_training(refuse_by_headers(config, input, "report", labelled=False), inference.weights())
    items = inference["dataset#data"]
    labelled = sum("label" in item for item in items)
    if labelled:
        logger.info("labels lie beside the images of %d of %d cases: predicted without them", labelled, len(items))
    asked = data_rules(config)
    suffix = ".png" if asked.spatial_dims == 2 else ".nii.gz"
    _refuse_to_overwrite(items, Path(output), suffix)
    from pipeline.engines.cohort import predict_cohort
    from pipeline.engines.cohort_ledger import REMARKS
    from pipeline.engines.cohort_turns import turns
    from pipeline.inference.fitting import require_window

    seen = _trained_on(items, inference.weights())
    items = [item | {REMARKS: [*unlike.get(item["case_id"], []), *seen.get(item["case_id"], [])]} for item in items]

    run_section(inference.parser, "initialize")
    network, inferer, device = inference["network"], inference["inferer"], inference["device"]
    require_window(inferer, network, len(asked.channels), asked.spatial_dims)
    runtime = getattr(inferer, "runtime", None)  # a bundle from elsewhere may have another inferer
    if runtime is not None:
        runtime.require(device)
    processes = turns()
    record = {"bundle": inference.bundle_record(), "device": str(device), "processes": processes.world_size}
    record |= environment()  # looked at at the end: what is chosen while the cohort runs may still be added
    if runtime is not None:
        runtime.work, record["runtime"] = items, runtime.record
    try:
        result = predict_cohort(
            items,
            preprocessing=inference["preprocessing"],
            network=network,
            inferer=inferer,
            postprocessing=inference["postprocessing"],
            device=device,
            output_dir=Path(output),
            class_names=config["classes"],
            made_with=inference.made_with(),
            redo=not resume,
            suffix=suffix,
            record=record,
            processes=processes,
        )
    finally:
        processes.leave()
    if processes.rank == 0 and not result.unwritten:  # a disk that took no table takes no record either
        record_prediction(Path(output), inference.folder, inference.weights(), result, overrides, started)
    return result


def _unlike_training(cases: Sequence[CaseFingerprint], weights: Sequence[Path]) -> dict[str, list[str]]:
    """Case id -> how it is unlike the cases that the weights were trained on; said, and no reason to stop."""
    known = list(filter(None, (TrainedOn.read(file.parent) for file in weights)))
    remarks = {}
    for case in cases:
        said = [] if case.grid is None else [text for seen in known for text in seen.remarks(case.grid)]
        if said:
            remarks[case.case_id] = list(dict.fromkeys(said))
    if remarks:
        examples = "\n  ".join(f"case {case_id}: {'; '.join(said)}" for case_id, said in list(remarks.items())[:5])
        logger.warning(
            "%d of %d case%s unlike those that the weights were trained on; how good their results are is not known:"
            "\n  %s%s",
            len(remarks), len(cases), "s are" if len(cases) > 1 else " is", examples,
            "\n  ..." if len(remarks) > 5 else "",
        )  # fmt: skip
    return remarks


def _trained_on(items: Sequence[dict[str, Any]], weights: Sequence[Path]) -> dict[str, list[str]]:
    """Case id -> that the weights were trained on it; said, because nobody sees it in a result."""
    splits = [read_split(file) for path in weights if (file := path.with_name("split.json")).is_file()]
    images = {item["case_id"]: tuple(item["image"].values()) for item in items if item["image"]}
    found = set().union(*(trained_cases(split, images) for split in splits))
    if found:
        logger.warning(
            "%d of %d cases are some that these weights were trained on: how good their results are says nothing of"
            " other patients; `pipeline evaluate` measures the cases that were not trained on",
            len(found), len(items),
        )  # fmt: skip
    return {case_id: [TRAINED_ON] for case_id in found}


def _refuse_to_overwrite(items: Sequence[dict[str, Any]], output: Path, suffix: str) -> None:
    # os.path.realpath: Path.resolve raises on a link that leads to itself, which is refused by name when it is read.
    paths = [path for item in items for path in (*item["image"].values(), item.get("label")) if path]
    sources = {os.path.realpath(path) for path in paths}
    for item in items:
        result = output / item["relative"] / f"{item['case_id']}{suffix}"
        if os.path.realpath(result) in sources:
            raise ConfigError(
                f"an output folder in which the result would take the place of {result.name}, which is an input",
                fix="choose an empty folder for the results",
            )
