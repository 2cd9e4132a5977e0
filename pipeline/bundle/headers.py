"""The first look at a dataset, before anything of a bundle is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.bundle.data_rules import data_rules
from pipeline.data import check_headers, find_cases
from pipeline.data.fingerprint import CaseFingerprint


def refuse_by_headers(
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
