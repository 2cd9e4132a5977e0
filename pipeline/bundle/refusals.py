"""What a command refuses: overrides for which it has another word, and settings that would belie its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle.build import resolve
from pipeline.errors import BundleError, ConfigError

WEIGHTS_DEPEND_ON = ("network_def", "channels", "classes", "orientation", "spacing_mm", "normalization", "patch_size")
"""What weights mean something with: another value gives another input, or another meaning to the output."""

CHOSEN_AT_INFERENCE = "inference_"
"""How the arguments of a network begin that change its answer but not its weights, such as ``inference_depth``."""


def refuse_taken_back(overrides: Sequence[str], instead: Mapping[str, str]) -> None:
    """Overrides that the command would take back again: there is another word for each.

    Args:
        instead: key -> what to write instead.
    """
    for text in overrides:
        key = text.partition("=")[0].replace("::", "#")
        if key in instead:
            raise ConfigError(f"{text} on the command line", fix=f"use {instead[key]}")


def refuse_foreign_to_weights(overrides: Sequence[str]) -> None:
    """Overrides of what the weights were trained with."""
    fixed = {*WEIGHTS_DEPEND_ON, "in_channels", "out_channels", "network"} - {"patch_size"}  # a window may be smaller
    for text in overrides:
        key = text.partition("=")[0].replace("::", "#")
        if key.split("#")[0] in fixed and not key.startswith(f"network_def#{CHOSEN_AT_INFERENCE}"):
            raise ConfigError(
                f"{text} for weights that were trained otherwise", fix="train with that value, or leave it as it is"
            )


def settled_by_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved config with which its weights mean something."""
    settled = {name: config.get(name) for name in WEIGHTS_DEPEND_ON}
    network = settled["network_def"]
    if isinstance(network, dict):
        settled["network_def"] = {k: v for k, v in network.items() if not k.startswith(CHOSEN_AT_INFERENCE)}
    return settled


def refuse_other_settings(own: Mapping[str, Any], wanted: Mapping[str, Any], file: Path, fix: str) -> None:
    """Weights of ``file`` that were trained with ``own`` values, where a bundle has ``wanted`` ones."""
    differing = [name for name in own if own[name] != wanted[name]]
    if differing:
        raise BundleError(
            f"weights trained with other values of {', '.join(differing)}: "
            + "; ".join(f"{name} {own[name]}" for name in differing),
            file=file,
            expected="; ".join(f"{name} {wanted[name]}" for name in differing),
            fix=fix,
        )


def refuse_weights_of_other_settings(config: Mapping[str, Any], weights: str | Path) -> None:
    """Weights in a run's folder whose settings are not those of the config that is to use them.

    A file from elsewhere says nothing of its settings: of it only the tensors' shapes are known.
    """
    run = Path(weights).resolve().parent.parent
    if not (run / "run.json").is_file() or not (run / "configs" / "inference.json").is_file():
        return
    own = settled_by_training(resolve(run, "inference"))
    own.pop("patch_size")  # a window may be another
    fix = f"name the run's folder in the bundle's place: {run}"
    refuse_other_settings(own, settled_by_training(config), Path(weights), fix)
