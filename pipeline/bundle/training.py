"""Training a bundle: what is settled and refused before, and what is said after."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle.build import resolve
from pipeline.bundle.compiling import compile_ahead
from pipeline.bundle.data_rules import data_rules
from pipeline.bundle.find import find_bundle
from pipeline.bundle.headers import refuse_by_headers
from pipeline.bundle.inference import made, parsed, run_section
from pipeline.bundle.record import begin_record
from pipeline.bundle.refusals import refuse_foreign_to_weights, refuse_taken_back
from pipeline.bundle.run_folder import new_folder, settle, write_bundle
from pipeline.bundle.run_summary import RunSummary, summarised
from pipeline.data.trained_on import TrainedOn
from pipeline.errors import ConfigError
from pipeline.io.destination import require_folder

logger = logging.getLogger("pipeline.bundle")

_FEW_STEPS = 20
DEFAULT_BUDGET_S = {"cpu": 30 * 60.0, "cuda": 60 * 60.0}


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
    by_epochs = any(text.partition("=")[0] == "max_epochs" for text in overrides)
    _refuse_contradictions(overrides, out, budget_s, resume, by_epochs)
    folder = Path(resume) if resume is not None else find_bundle(bundle)
    config = resolve(folder, "train", overrides=overrides)
    if resume is not None:
        _refuse_another_bundle(bundle, folder, config)
    require_folder(resume or out or "runs")
    # a wrong path, and what headers show, is refused before anything is written
    found = refuse_by_headers(config, data, config["on_refusal"])
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
    network, inferer = made(parser, "network_def", overrides), made(parser, "validate#inferer", overrides)
    _refuse_unfit_patch(network, inferer, config)
    _refuse_lone_samples(network, len(made(parser, "train#dataset#data", overrides)), config["batch_size"])
    trainer = made(parser, "train#trainer", overrides)
    write_bundle(folder, run_dir, lasting, overrides)  # now that all of it has been accepted
    if resume is None:
        begin_record(run_dir, folder)
        seen = TrainedOn.of(case.grid for case in found if case.grid is not None and case.refusal is None)
        if seen is not None:
            seen.write(run_dir / "models")
    try:
        run_section(parser, "run")
    except KeyboardInterrupt:
        if not (run_dir / "checkpoints" / "last.pt").is_file():
            raise KeyboardInterrupt(f"nothing was trained yet; delete {run_dir} and give the command again") from None
        again = shlex.join(["pipeline", "train", str(bundle), "--data", str(data), "--resume", str(run_dir)])
        raise KeyboardInterrupt(f"all is kept in {run_dir}; to go on: {again}") from None
    if trainer.state.iteration == 0:
        prepared_s = time.time() - begins
        raise ConfigError(
            f"a budget of {budget_s:.0f} s, spent before the first step: preparing took {prepared_s:.0f} s",
            fix=f"give --budget {math.ceil(3 * prepared_s / 60)}m or more, most of which is then left for training",
        )
    _warn_of_few_steps(trainer.state)
    logger.info("%d iterations, %d epochs", trainer.state.iteration, trainer.state.epoch)
    return summarised(parser, run_dir, started, "train#dataset", "validate#dataset")


def _refuse_contradictions(
    overrides: Sequence[str], out: str | Path | None, budget_s: float | None, resume: str | Path | None, by_epochs: bool
) -> None:
    """Words that do not go together, or that say nothing: known before anything is looked at."""
    instead = {"budget_s": "--budget TIME", "started_at": "--budget TIME", "output_dir": "--out RUN"}
    refuse_taken_back(overrides, instead)
    refuse_taken_back(overrides, {"train#trainer#max_epochs": "max_epochs=N", "dataset_dir": "--data DATASET"})
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


def _refuse_unfit_patch(network: Any, inferer: Any, config: dict[str, Any]) -> None:
    """Before anything is written: a patch that the network does not take would be refused at the first step."""
    from pipeline.inference.fitting import require_window

    asked = data_rules(config)
    require_window(inferer, network, len(asked.channels), asked.spatial_dims)


def _refuse_lone_samples(network: Any, cases: int, batch_size: Any) -> None:
    """A batch of one sample, which some batch norms can't take, be it only the last of an epoch."""
    if (
        getattr(network, "pairs_needed", False)
        and isinstance(batch_size, int)
        and 1 in (batch_size, cases % batch_size)
    ):
        raise ConfigError(
            f"batches of {batch_size} of {cases} training cases, one of them of a single sample, with batch norm",
            expected="two samples or more: the mean over the whole map is one number, which has no statistics",
            fix="another batch_size, or network_def#norm=instance",
        )


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


def _device_type(config: dict[str, Any]) -> str:
    from pipeline.engines import device

    return device(config["device"]["name"]).type


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
