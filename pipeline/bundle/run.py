"""Running a bundle: train, evaluate, predict.

A run's folder is itself a bundle: its ``configs/`` hold the resolved configs that it ran with, its ``models/`` the
weights. So ``pipeline predict RUN ...`` works, and so does plain MONAI on ``RUN/configs/train.json``.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.build import resolve
from pipeline.bundle.compiling import compile_ahead
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.find import find_bundle
from pipeline.bundle.inference import Inference, parsed, run_section
from pipeline.bundle.overrides import parse_override
from pipeline.bundle.record import begin_record, record_prediction
from pipeline.bundle.refusals import refuse_foreign_to_weights, refuse_taken_back
from pipeline.bundle.run_folder import new_folder, settle, write_bundle, write_config
from pipeline.data import check_headers, find_cases
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.data.provenance import environment
from pipeline.data.trained_on import TrainedOn
from pipeline.errors import ConfigError
from pipeline.io.destination import require_folder

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

logger = logging.getLogger("pipeline.bundle")

_FEW_STEPS = 20
DEFAULT_BUDGET_S = {"cpu": 30 * 60.0, "cuda": 60 * 60.0}


@dataclass(frozen=True)
class RunSummary:
    """What a training or an evaluation came to.

    Args:
        run_dir: the folder that holds everything.
        metrics: of the last validation, by the names of ``metrics.csv``.
        table: the same for people, N and misses beside every mean.
        seconds: wall clock, from the call.
        refused: cases that could not be used, each with its reason.
    """

    run_dir: Path
    metrics: dict[str, float]
    table: str
    seconds: float
    refused: list[str] = field(default_factory=list)


def train(
    bundle: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    budget_s: float | None = None,
    resume: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> RunSummary:
    """Train ``bundle`` on the dataset at ``data``.

    Args:
        bundle: a bundle's folder or the name of a shipped one.
        data: the dataset's folder (see :mod:`pipeline.data.cases` for the layouts).
        out: the run's folder; by default ``runs/<bundle>/<date-time>``.
        budget_s: wall-clock seconds, from now to the last measure, less what is compiled once per machine. With neither
            this nor a ``max_epochs=N`` override, half an hour on a CPU and an hour on a GPU.
        resume: a run's folder to go on from; its own configs are used.
        overrides: ``KEY=VALUE`` strings.
    """
    started = time.time()
    instead = {"budget_s": "--budget TIME", "started_at": "--budget TIME", "output_dir": "--out RUN"}
    refuse_taken_back(overrides, instead)
    refuse_taken_back(overrides, {"train#trainer#max_epochs": "max_epochs=N", "dataset_dir": "--data DATASET"})
    by_epochs = any(text.partition("=")[0] == "max_epochs" for text in overrides)
    for text in overrides:
        value = text.partition("=")[2].strip()
        if text.startswith("max_epochs=") and not (value.isdecimal() and int(value) > 0):
            raise ConfigError(text, expected="a whole number of epochs, at least 1")
    if resume is not None and not (Path(resume) / "checkpoints" / "last.pt").is_file():
        raise ConfigError(
            f"--resume {resume}, which has no checkpoints/last.pt", expected="a run that trained for at least one epoch"
        )
    if resume is not None:
        refuse_foreign_to_weights(overrides)
    if resume is not None and out is not None:
        raise ConfigError("both --resume and --out", expected="--resume alone: the run goes on in its own folder")
    if by_epochs and budget_s is not None:
        raise ConfigError("both a budget and max_epochs", expected="one of them: a run ends by the clock or by epochs")
    folder = Path(resume) if resume is not None else find_bundle(bundle)
    config = resolve(folder, "train", overrides=overrides)
    if resume is not None:
        _refuse_another_bundle(bundle, folder, config)
    require_folder(resume or out or "runs")
    # a wrong path, and what headers show, is refused before anything is written
    found = _refuse_early(config, data, config["on_refusal"])
    if resume is not None:
        run_dir = folder
        budget_s = budget_s if budget_s is not None else config["budget_s"]
        config |= {"resume": True, "split_file": str((run_dir / "models" / "split.json").resolve())}
    else:
        run_dir = Path(out) if out is not None else new_folder(folder.name)
        if (run_dir / "run.json").exists():
            raise ConfigError(
                f"a run in {run_dir} already", fix=f"go on with it by --resume {run_dir}, or choose another --out"
            )
    if budget_s is None and not by_epochs and resume is None:
        budget_s = DEFAULT_BUDGET_S[_device_type(config)]
        logger.info("no budget given: training for %.0f minutes (--budget TIME, or max_epochs=N)", budget_s / 60)
    config |= {"budget_s": None if by_epochs else budget_s, "dataset_dir": str(Path(data).resolve())}
    lasting = dict(config)
    settle(config, run_dir, data)
    begins = started + compile_ahead()
    config["started_at"] = begins
    parser = parsed(config, folder / "configs" / "metadata.json")
    run_section(parser, "initialize")
    trainer = parser.get_parsed_content("train#trainer")
    write_bundle(folder, run_dir, lasting, overrides)  # now that all of it has been accepted
    if resume is None:
        begin_record(run_dir, folder)
        seen = TrainedOn.of(case.grid for case in found if case.grid is not None and case.refusal is None)
        if seen is not None:
            seen.write(run_dir / "models")
    try:
        run_section(parser, "run")
    except KeyboardInterrupt:
        again = shlex.join(["pipeline", "train", str(bundle), "--data", str(data), "--resume", str(run_dir)])
        raise KeyboardInterrupt(f"all is kept in {run_dir}; to go on: {again}") from None
    if trainer.state.iteration == 0:
        prepared_s = time.time() - begins
        raise ConfigError(
            f"a budget of {budget_s:.0f} s, spent before the first step: preparing took {prepared_s:.0f} s",
            fix=f"give --budget {math.ceil(3 * prepared_s / 60)}m or more, most of which is then left for training",
        )
    _warn_of_few_steps(trainer.state)
    refused = [
        *parser.get_parsed_content("train#dataset").refused,
        *parser.get_parsed_content("validate#dataset").refused,
    ]
    metrics = dict(parser.get_parsed_content("validate#evaluator").state.metrics)
    logger.info("%d iterations, %d epochs", trainer.state.iteration, trainer.state.epoch)
    return RunSummary(run_dir, metrics, _table(parser), time.time() - started, [str(case) for case in refused])


def _warn_of_few_steps(state: Any) -> None:
    """A result of a handful of steps is not one of training: say so, and what a budget must allow for."""
    if state.iteration >= _FEW_STEPS:
        return
    took = ""
    if hasattr(state, "prepared_s"):  # a bundle from elsewhere may have another schedule
        step_s = (state.elapsed_s - state.prepared_s) / max(1, state.iteration - state.steps_before)
        took = (
            f": preparing took {state.prepared_s:.0f} s, and each step about {step_s:.1f} s with its share of measuring"
        )
    logger.warning(
        "iterations: only %d, which is no training%s; give a longer --budget or more epochs", state.iteration, took
    )


def evaluate(
    bundle: str | Path,
    data: str | Path,
    *,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> RunSummary:
    """Measure a bundle's weights on the labelled cases at ``data`` that they were not trained on.

    Which cases those are is known from the ``split.json`` beside the weights; where there is none, all cases are
    measured and a warning says so. ``part=all`` measures all of them on purpose.
    """
    started = time.time()
    instead = {"output_dir": "--out DIR", "dataset_dir": "--data DATASET", "checkpoint": "--weights FILE"}
    refuse_taken_back(overrides, instead)
    refuse_foreign_to_weights(overrides)
    folder = find_bundle(bundle)
    config = resolve(folder, "evaluate", overrides=overrides)
    require_folder(out or "runs")
    _refuse_early(config, data, config["on_refusal"])
    out = Path(out) if out is not None else new_folder(f"{folder.name}-evaluation")
    settle(config, out, data)
    config["bundle_root"] = str(folder.resolve())
    if weights is not None:
        config["checkpoint"] = str(Path(weights).resolve())
    _choose_part(config, Path(weights) if weights is not None else folder / "models" / "model.pt", overrides)
    resolved = dict(config)
    parser = parsed(config, folder / "configs" / "metadata.json")
    run_section(parser, "initialize")
    write_config(resolved, "evaluate", out)
    begin_record(out, folder)
    run_section(parser, "run")
    refused = parser.get_parsed_content("validate#dataset").refused
    metrics = dict(parser.get_parsed_content("validate#evaluator").state.metrics)
    return RunSummary(out, metrics, _table(parser), time.time() - started, [str(case) for case in refused])


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
        ConfigError: a result that would take the place of an image or a label.
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
    unlike = _unlike_training(_refuse_early(config, input, "report", labelled=False), inference.weights())
    items = inference["dataset#data"]
    suffix = ".png" if config.get("spatial_dims", 3) == 2 else ".nii.gz"
    _refuse_to_overwrite(items, Path(output), suffix)
    from pipeline.engines.cohort import predict_cohort
    from pipeline.engines.cohort_stages import REMARKS
    from pipeline.engines.cohort_turns import turns

    items = [item | {REMARKS: unlike.get(item["case_id"], [])} for item in items]

    run_section(inference.parser, "initialize")
    network, inferer, device = inference["network"], inference["inferer"], inference["device"]
    processes = turns()
    record = {"bundle": inference.bundle_record(), "device": str(device), "processes": processes.world_size}
    record |= environment()  # looked at at the end: what is chosen while the cohort runs may still be added
    runtime = getattr(inferer, "runtime", None)
    if runtime is not None:  # a bundle from elsewhere may have another inferer
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


def _refuse_early(
    config: dict[str, Any], data: str | Path, on_refusal: str, labelled: bool = True
) -> list[CaseFingerprint]:
    """All cases by their headers: in a second it is known which can't be used, and not after hours."""
    asked = data_rules(config)
    cases = find_cases(
        data,
        asked.channels,
        require_label=labelled,
        keep_incomplete=True,
        spatial_dims=asked.spatial_dims,
        layout=config.get("layout"),
        pseudonyms=config.get("pseudonyms"),
        missing_channels=asked.stack.missing_channels,
    )
    return check_headers(
        [asked.loaded(case) for case in cases], asked.channels, asked.stack, on_refusal, bool(config.get("pseudonyms"))
    )


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
            "%d of %d cases are unlike those that the weights were trained on; how good their results are is not known:"
            "\n  %s%s",
            len(remarks), len(cases), examples, "\n  ..." if len(remarks) > 5 else "",
        )  # fmt: skip
    return remarks


def _refuse_another_bundle(named: str | Path, run_dir: Path, config: dict[str, Any]) -> None:
    """``--resume`` goes on with the run's own configs: a bundle that is named beside it must be the run's."""
    bundle = find_bundle(named)
    wanted = resolve(bundle, "train") if bundle != run_dir else config
    for name in ("channels", "classes"):
        if wanted[name] != config[name]:
            raise ConfigError(
                f"--resume {run_dir}, a run with the {name} {config[name]}",
                expected=f"a run of {bundle.name}, whose {name} are {wanted[name]}",
                fix="name the bundle that the run was trained from, or the run's folder itself",
            )


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


def _choose_part(config: dict[str, Any], weights: Path, overrides: Sequence[str]) -> None:
    """Which cases an evaluation measures: those that the weights have not seen, unless an override says otherwise."""
    given = {parse_override(text)[0] for text in overrides}
    split = weights.with_name("split.json")
    if split.is_file() and given & {"fold", "folds"} and not given & {"part", "split_file"}:
        raise ConfigError(
            "another fold than the one that these weights were trained with",
            expected="the cases that they have not seen, which split.json beside them names",
            fix="leave fold and folds out; or say part=validate, to measure a fold whose cases they may have seen",
        )
    if "split_file" not in given:
        config["split_file"] = str(split) if split.is_file() else None
    if given & {"fold", "folds"}:
        config["part"] = config["part"] if "part" in given else "validate"
        config["split_file"] = config["split_file"] if "split_file" in given else None
    elif "part" not in given and config["split_file"] is None:
        config["part"] = "all"
        logger.warning("no split.json beside these weights: it is not known which of these cases they were trained on")


def _device_type(config: dict[str, Any]) -> str:
    from pipeline.engines import device

    return device(config["device"]["name"]).type


def _table(parser: Any) -> str:
    """The table of the measures per case, and below it that of each further metric which has one."""
    from pipeline.metrics import format_table

    measures = next(iter(parser.get_parsed_content("validate#key_metric").values()))
    tables = [format_table(measures.summary)]
    further = "validate#further_metrics"  # a bundle from elsewhere may lack it
    metrics = parser.get_parsed_content(further) if further in parser else None
    tables += [metric.table() for metric in (metrics or {}).values() if hasattr(metric, "table")]
    return "\n\n".join(tables)
