"""Measuring a bundle's weights, on cases that they have not seen."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle.build import resolve
from pipeline.bundle.find import find_bundle
from pipeline.bundle.headers import refuse_by_headers
from pipeline.bundle.inference import parsed, run_section
from pipeline.bundle.overrides import parse_override
from pipeline.bundle.record import begin_record
from pipeline.bundle.refusals import refuse_foreign_to_weights, refuse_taken_back, refuse_weights_of_other_settings
from pipeline.bundle.run_folder import new_folder, settle, write_config
from pipeline.bundle.run_summary import RunSummary, summarised
from pipeline.errors import ConfigError
from pipeline.io.destination import require_folder

logger = logging.getLogger("pipeline.bundle")


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
    file = Path(weights) if weights is not None else folder / "models" / "model.pt"
    if weights is not None or str(config.get("checkpoint")).endswith("'/models/model.pt'"):  # not: one of its own
        from pipeline.engines.weights import require_weights

        require_weights(file)
    if weights is not None:
        refuse_weights_of_other_settings(config, file)
    require_folder(out or "runs")
    if out is not None and (Path(out) / "summary.json").is_file():
        raise ConfigError(
            f"an evaluation in {out} already", expected="a new folder", fix="give another --out, or delete that one"
        )
    refuse_by_headers(config, data, config["on_refusal"])
    out = Path(out) if out is not None else new_folder(f"{folder.name}-evaluation")
    settle(config, out, data)
    config["bundle_root"] = str(folder.resolve())
    if weights is not None:
        config["checkpoint"] = str(Path(weights).resolve())
    _choose_part(config, file, overrides)
    resolved = dict(config)
    parser = parsed(config, folder / "configs" / "metadata.json")
    run_section(parser, "initialize")
    write_config(resolved, "evaluate", out)
    begin_record(out, folder)
    run_section(parser, "run")
    return summarised(parser, out, started, "validate#dataset")


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
