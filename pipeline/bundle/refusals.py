"""Overrides that a command refuses: those for which it has another word, and those that would belie its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.bundle.publish import CHOSEN_AT_INFERENCE, WEIGHTS_DEPEND_ON
from pipeline.errors import ConfigError


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
