"""Running a bundle: train, evaluate, predict, and publish what a run has trained.

A run's folder is itself a bundle: its ``configs/`` hold the resolved configs that it ran with, its ``models/`` the
weights. So ``pipeline predict RUN ...`` works, and so does plain MONAI on ``RUN/configs/train.json``.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.build import KINDS, resolve
from pipeline.bundle.find import find_bundle
from pipeline.data import find_cases
from pipeline.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

logger = logging.getLogger("pipeline.bundle")

# What weights mean something with: another value gives another input, or another meaning to the output.
_WEIGHTS_DEPEND_ON = ("network_def", "channels", "classes", "orientation", "spacing_mm", "normalization", "patch_size")
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
        budget_s: wall-clock seconds, from now to the last measure. With neither this nor a ``max_epochs=N`` override,
            half an hour on a CPU and an hour on a GPU.
        resume: a run's folder to go on from; its own configs are used.
        overrides: ``KEY=VALUE`` strings.
    """
    started = time.time()
    _refuse(overrides, {"budget_s": "--budget TIME", "started_at": "--budget TIME", "output_dir": "--out RUN"})
    _refuse(overrides, {"train#trainer#max_epochs": "max_epochs=N", "dataset_dir": "--data DATASET"})
    by_epochs = any(text.partition("=")[0] == "max_epochs" for text in overrides)
    for text in overrides:
        if text.startswith("max_epochs=") and not text.partition("=")[2].strip().isdecimal():
            raise ConfigError(text, expected="a whole number of epochs, at least 1")
    if resume is not None and not (Path(resume) / "checkpoints" / "last.pt").is_file():
        raise ConfigError(
            f"--resume {resume}, which has no checkpoints/last.pt", expected="a run that trained for at least one epoch"
        )
    if resume is not None and out is not None:
        raise ConfigError("both --resume and --out", expected="--resume alone: the run goes on in its own folder")
    if by_epochs and budget_s is not None:
        raise ConfigError("both a budget and max_epochs", expected="one of them: a run ends by the clock or by epochs")
    folder = Path(resume) if resume is not None else find_bundle(bundle)
    config = resolve(folder, "train", overrides=overrides)
    # a wrong path is refused before anything is written
    find_cases(data, config["channels"], keep_incomplete=True, spatial_dims=config.get("spatial_dims", 3))
    if resume is not None:
        run_dir = folder
        budget_s = budget_s if budget_s is not None else config["budget_s"]
        config |= {"resume": True, "split_file": str((run_dir / "split.json").resolve())}
    else:
        run_dir = Path(out) if out is not None else _new_folder(folder.name)
        if (run_dir / "run.json").exists():
            raise ConfigError(
                f"a run in {run_dir} already", fix=f"go on with it by --resume {run_dir}, or choose another --out"
            )
    if budget_s is None and not by_epochs and resume is None:
        budget_s = DEFAULT_BUDGET_S[_device_type(config)]
        logger.info("no budget given: training for %.0f minutes (--budget TIME, or max_epochs=N)", budget_s / 60)
    config |= {"budget_s": None if by_epochs else budget_s, "dataset_dir": str(Path(data).resolve())}
    lasting = dict(config)
    _settle(config, run_dir, data)
    config["started_at"] = started
    parser = _parse(config, folder / "configs" / "metadata.json")
    _run(parser, "initialize")
    trainer = parser.get_parsed_content("train#trainer")
    _write_bundle(folder, run_dir, lasting, overrides)  # now that all of it has been accepted
    try:
        _run(parser, "run")
    except KeyboardInterrupt:
        again = shlex.join(["pipeline", "train", str(bundle), "--data", str(data), "--resume", str(run_dir)])
        raise KeyboardInterrupt(f"all is kept in {run_dir}; to go on: {again}") from None
    if trainer.state.iteration == 0:
        raise ConfigError(
            f"a budget of {budget_s} s, spent before the first step ({time.time() - started:.0f} s to prepare)",
            fix="give a longer --budget",
        )
    refused = [
        *parser.get_parsed_content("train#dataset").refused,
        *parser.get_parsed_content("validate#dataset").refused,
    ]
    metrics = dict(parser.get_parsed_content("validate#evaluator").state.metrics)
    logger.info("%d iterations, %d epochs", trainer.state.iteration, trainer.state.epoch)
    return RunSummary(run_dir, metrics, _table(parser), time.time() - started, [str(case) for case in refused])


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
    _refuse(overrides, {"output_dir": "--out DIR", "dataset_dir": "--data DATASET", "checkpoint": "--weights FILE"})
    _refuse_foreign_to_weights(overrides)
    folder = find_bundle(bundle)
    config = resolve(folder, "evaluate", overrides=overrides)
    out = Path(out) if out is not None else _new_folder(f"{folder.name}-evaluation")
    _settle(config, out, data)
    config["bundle_root"] = str(folder.resolve())
    if weights is not None:
        config["checkpoint"] = str(Path(weights).resolve())
    if not any(text.partition("=")[0] in ("part", "fold", "split_file") for text in overrides):
        split = _split_of(Path(weights) if weights is not None else folder / "models" / "model.pt")
        config["part"] = "all" if split is None else "unseen"
        config["split_file"] = None if split is None else str(split)
        if split is None:
            logger.warning(
                "no split.json beside these weights: it is not known which of these cases they were trained on"
            )
    parser = _parse(config, folder / "configs" / "metadata.json")
    _run(parser, "initialize")
    _run(parser, "run")
    refused = parser.get_parsed_content("validate#dataset").refused
    metrics = dict(parser.get_parsed_content("validate#evaluator").state.metrics)
    return RunSummary(out, metrics, _table(parser), time.time() - started, [str(case) for case in refused])


def predict(
    bundle: str | Path,
    input: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    probabilities: bool = False,
    overrides: Sequence[str] = (),
) -> CohortResult:
    """Segment every case at ``input`` (a dataset, a folder of cases, one case, one file) into ``output``.

    Raises:
        ConfigError: a result that would take the place of an image or a label.
    """
    _refuse(overrides, {"output_dir": "the OUTPUT folder", "dataset_dir": "the INPUT", "checkpoint": "--weights FILE"})
    _refuse_foreign_to_weights(overrides)
    folder = find_bundle(bundle)
    config = resolve(folder, "inference", overrides=overrides)
    config |= {"bundle_root": str(folder.resolve()), "output_dir": str(Path(output)), "dataset_dir": str(input)}
    if weights is not None:
        config["checkpoint"] = str(Path(weights).resolve())
    if probabilities:
        config["probabilities_key"] = "probabilities"
    parser = _parse(config, folder / "configs" / "metadata.json")
    items = parser.get_parsed_content("dataset#data")
    _refuse_to_overwrite(items, Path(output), ".png" if config.get("spatial_dims", 3) == 2 else ".nii.gz")
    from pipeline.engines.cohort import predict_cohort

    _run(parser, "initialize")
    return predict_cohort(
        items,
        preprocessing=parser.get_parsed_content("preprocessing"),
        network=parser.get_parsed_content("network"),
        inferer=parser.get_parsed_content("inferer"),
        postprocessing=parser.get_parsed_content("postprocessing"),
        device=parser.get_parsed_content("device"),
        output_dir=Path(output),
        class_names=config["classes"],
    )


def publish(run: str | Path, bundle: str | Path) -> Path:
    """Put a run's best weights into a bundle's ``models/``: the one way in. Returns the file.

    The cases that they were trained on go along (``models/split.json``), so that an evaluation never counts them.
    """
    run, target = Path(run), find_bundle(bundle)
    weights, record = run / "models" / "model.pt", run / "run.json"
    for file in (weights, record):
        if not file.is_file():
            raise BundleError("no such file", file=file, expected="a run that pipeline train has completed")
    own, wanted = resolve(run, "inference"), resolve(target, "inference")
    differing = [name for name in _WEIGHTS_DEPEND_ON if own.get(name) != wanted.get(name)]
    if differing:
        raise BundleError(
            f"weights trained with other values of {', '.join(differing)}: "
            + "; ".join(f"{name} {own.get(name)}" for name in differing),
            file=run,
            expected="; ".join(f"{name} {wanted.get(name)}" for name in differing),
            fix="write the run's values into the bundle's bundle.yaml and build it, or train with the bundle's",
        )
    models = target / "models"
    models.mkdir(exist_ok=True)
    for source in (weights, run / "split.json"):
        shutil.copyfile(source, models / f".{source.name}")
        (models / f".{source.name}").replace(models / source.name)
    return models / "model.pt"


def _refuse(overrides: Sequence[str], instead: dict[str, str]) -> None:
    """Overrides that the command would take back again: there is another word for each."""
    for text in overrides:
        key = text.partition("=")[0].replace("::", "#")
        if key in instead:
            raise ConfigError(f"{text} on the command line", fix=f"use {instead[key]}")


def _refuse_foreign_to_weights(overrides: Sequence[str]) -> None:
    fixed = {*_WEIGHTS_DEPEND_ON, "in_channels", "out_channels", "network"} - {"patch_size"}  # a window may be smaller
    for text in overrides:
        if text.partition("=")[0].replace("::", "#").split("#")[0] in fixed:
            raise ConfigError(
                f"{text} for weights that were trained otherwise", fix="train with that value, or leave it as it is"
            )


def _refuse_to_overwrite(items: Sequence[dict[str, Any]], output: Path, suffix: str) -> None:
    sources = {Path(path).resolve() for item in items for path in (*item["image"].values(), item.get("label")) if path}
    for item in items:
        result = (output / item["relative"] / f"{item['case_id']}{suffix}").resolve()
        if result in sources:
            raise ConfigError(
                f"an output folder in which the result would take the place of {result.name}, which is an input",
                fix="choose an empty folder for the results",
            )


def _new_folder(name: str) -> Path:
    return Path("runs") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _settle(config: dict[str, Any], run_dir: Path, data: str | Path) -> None:
    """Tie a config to this run's folder and data, as absolute paths: it can be run again from anywhere."""
    config["bundle_root"] = config["output_dir"] = str(run_dir.resolve())
    config["dataset_dir"] = str(Path(data).resolve())
    config["run_dir"] = {"_target_": "pipeline.engines.run_folder", "output_dir": "@output_dir", "name": "."}


def _write_bundle(source: Path, run_dir: Path, train_config: dict[str, Any], overrides: Sequence[str]) -> None:
    """The run's folder as a bundle; run again from there, by plain MONAI, it writes to a new folder below it."""
    configs = run_dir / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        config = dict(train_config) | {"resume": False}
        if kind != "train":
            config = resolve(source, kind, overrides=_known_to(source, kind, overrides))
        config["bundle_root"] = str(run_dir.resolve())
        (configs / f"{kind}.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    metadata = source / "configs" / "metadata.json"
    if metadata.is_file() and source != run_dir:
        shutil.copyfile(metadata, configs / "metadata.json")


def _known_to(bundle: Path, kind: str, overrides: Sequence[str]) -> list[str]:
    """Those overrides of a training that another kind of config knows: ``patch_size``, but not ``batch_size``."""

    def known(text: str) -> bool:
        try:
            resolve(bundle, kind, overrides=[text])
        except ConfigError:
            return False
        return True

    return [text for text in overrides if known(text)]


def _split_of(weights: Path) -> Path | None:
    """The record of what ``weights`` were trained on: beside published weights, or in the folder of their run."""
    return next(
        (file for file in (weights.with_name("split.json"), weights.parent.parent / "split.json") if file.is_file()),
        None,
    )


def _device_type(config: dict[str, Any]) -> str:
    from pipeline.engines import device

    return device(config["device"]["name"]).type


def _parse(config: dict[str, Any], metadata: Path) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser(config)
    if metadata.is_file():
        parser.read_meta(str(metadata))
    parser.parse()
    return parser


def _run(parser: Any, section: str) -> None:
    """Run the expressions of a section one after the other, as ``python -m monai.bundle run`` does."""
    for index in range(len(parser.get(section, []))):
        parser.get_parsed_content(f"{section}#{index}")


def _table(parser: Any) -> str:
    """The table of the measures per case, and below it that of each further metric which has one."""
    from pipeline.metrics import format_table

    measures = next(iter(parser.get_parsed_content("validate#key_metric").values()))
    tables = [format_table(measures.summary)]
    further = "validate#further_metrics"  # a bundle from elsewhere may lack it
    metrics = parser.get_parsed_content(further) if further in parser else None
    tables += [metric.table() for metric in (metrics or {}).values() if hasattr(metric, "table")]
    return "\n\n".join(tables)
