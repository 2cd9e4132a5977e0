"""Fingerprints kept between commands, in a cache folder, never in the dataset: what has not changed is not read again.

A JSON file per dataset and set of rules. It is written beside and renamed when whole; one that is damaged, or of
another version, is not used, and said so. It holds paths, case ids and statistics: its folder is its owner's alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from pipeline.data.fingerprint import (
    PERCENTILES,
    CaseFingerprint,
    ChannelFingerprint,
    IntensityFingerprint,
    LabelFingerprint,
)
from pipeline.geometry import Grid

logger = logging.getLogger(__name__)

FORMAT = 2
"""To be raised whenever a fingerprint gets other fields, or what it measures is measured differently."""


def cache_folder() -> Path:
    """``PIPELINE_CACHE``, or the place that the operating system has for what can be made again."""
    named = os.environ.get("PIPELINE_CACHE")
    if named:
        return Path(named)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "monai-volume-pipeline"


class FingerprintStore:
    """The kept fingerprints of one dataset, read by one set of rules.

    Args:
        key: whatever the fingerprints depend on beside the files: the dataset's path, channels, rules; made of what
            JSON can hold.
        folder: where the file lies; by default ``fingerprints`` below `cache_folder`.
    """

    def __init__(self, key: Mapping[str, Any], folder: Path | None = None) -> None:
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        folder = folder if folder is not None else cache_folder() / "fingerprints"
        self.file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        self._said = False

    def read(self) -> dict[str, CaseFingerprint]:
        """Case id -> what is kept of it; empty where nothing is, or nothing that can be used."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
            return {case["case_id"]: _case(case) for case in content["cases"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("what was kept of this dataset can't be used (%s: %s): all is read again", self.file, error)
            return {}

    def write(self, cases: Iterable[CaseFingerprint]) -> None:
        """Keep these instead of what is kept; where that is not possible, it is said once and the work goes on."""
        temporary = self.file.with_name(f".{uuid.uuid4().hex[:12]}.json")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                content = {"format": FORMAT, "cases": [plain(case) for case in cases]}
                with open(temporary, "x", encoding="utf-8") as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.file)
            finally:
                with contextlib.suppress(OSError):  # gone after the rename
                    temporary.unlink()
        except OSError as error:
            if not self._said:
                logger.warning("what was read can't be kept in %s: %s", self.file.parent, error.strerror or error)
                self._said = True


def plain(value: Any) -> Any:
    """A fingerprint, or a part of one, as JSON holds it."""
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _case(kept: dict[str, Any]) -> CaseFingerprint:
    label = kept["label"]
    found = CaseFingerprint(
        case_id=kept["case_id"],
        grid=_grid(kept["grid"]),
        body_shape=None if kept["body_shape"] is None else tuple(kept["body_shape"]),
        channels={name: _channel(channel) for name, channel in kept["channels"].items()},
        label=None
        if label is None
        else LabelFingerprint(
            label["file"],
            {int(name): count for name, count in label["voxels"].items()},
            {int(name): count for name, count in label["components"].items()},
            None if label["box_mm"] is None else tuple(label["box_mm"]),
            {int(name): tuple(centre) for name, centre in label["centres"].items()},
        ),
        repairs=tuple(kept["repairs"]),
        warnings=tuple(kept["warnings"]),
        refusal=kept["refusal"],
        file_state=kept["file_state"],
    )
    if not _fits(found, CaseFingerprint):
        raise ValueError(f"values of another type, of case {found.case_id}")
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type with which a field is annotated, and so is everything in it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(name, arguments[0]) and _fits(entry, arguments[1]) for name, entry in value.items()
        )
    if kind in _TYPES:
        return type(value) is kind and all(_fits(getattr(value, name), of) for name, of in _TYPES[kind].items())
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


_PARTS = (CaseFingerprint, ChannelFingerprint, LabelFingerprint, IntensityFingerprint, Grid)
_TYPES: dict[type, dict[str, Any]] = {kind: get_type_hints(kind) for kind in _PARTS}


def _channel(kept: dict[str, Any]) -> ChannelFingerprint:
    grid = _grid(kept["grid"])
    everything = _intensity(kept["all_voxels"])
    if grid is None or everything is None:
        raise ValueError("a channel without a grid or intensities")
    return ChannelFingerprint(
        kept["file"],
        grid,
        kept["stored"],
        everything,
        _intensity(kept["body"]),
        _intensity(kept["foreground"]),
        kept["absurd"],
        base64.b64decode(kept["miniature"]),
    )


def _grid(kept: dict[str, Any] | None) -> Grid | None:
    return None if kept is None else Grid(tuple(kept["shape"]), np.array(kept["affine"]))


def _intensity(kept: dict[str, Any] | None) -> IntensityFingerprint | None:
    if kept is None:
        return None
    found = IntensityFingerprint(**{**kept, "percentiles": tuple(kept["percentiles"])})
    if len(found.percentiles) != len(PERCENTILES):
        raise ValueError(f"{len(found.percentiles)} percentiles")
    return found
