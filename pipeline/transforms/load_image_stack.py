"""`LoadImageStackd`: the named channels of a case become one stack on one grid, or the case is refused."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline.data.case_label import load_case_label, require_numbered
from pipeline.data.stack import Stack, load_stack, require_own_label
from pipeline.data.stack_rules import stack_rules
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.io import Volume, section_of
from pipeline.io.policy import STRICT
from pipeline.transforms.absent_channels import PRESENT


class LoadImageStackd(MapTransform):
    """Load the channels of a case, by name, into one MetaTensor (C, H, W, D), of sections (C, H, W), on the first
    channel's grid; and its label.

    ``item[image_key]`` is a dict of named paths (others than ``channels`` are ignored), a list of paths in the order of
    ``channels``, one path where there is one channel, or a `pipeline.data.stack.Stack` that is loaded already. The
    label, where the item has one, becomes (1, H, W, D) integers. The meta of both holds ``case_id``,
    ``original_affine``, ``spatial_shape``, ``filename_or_obj`` (of the first channel; of the label) and ``repairs``:
    one text, a line per repair, because lists of unequal length do not collate into a batch; that of the image also
    ``absent_channels``, their names, a line each.

    With ``missing_channels="zero"`` each item also gets ``item["present"]``, (C,) of bool: the channels that are
    there. It outlives steps that drop meta data; `NormalizeChannelsd` and `ZeroAbsentChannelsd` go by it, and a
    `MultiEncoderUNet` finds the absent ones by their zeros.

    With ``label_holds="instances"`` the label is the one class wherever there is an object, and the objects' numbers
    stand beside it under ``<label_key>_instances``, (1, H, W, D) or (1, H, W) integers; a mask that has one number for
    all of them is refused.

    Args:
        keys: what to load; an item may lack the label.
        channels: names in the order in which the network sees them.
        image_key, label_key: which of the keys is which.
        labels: ids that a label may hold, 0 is always among them; a class map (id -> name) does too. None allows any.
        label_values: id -> value that stands for it in the label files, such as ``{1: 255}`` for masks that are made to
            be looked at; other ids stand for themselves.
        label_holds: ``"classes"``, or ``"instances"``: any number above 0 is an object of the one class in ``labels``.
        allow_missing_keys: whether an item may lack the label.
        on_other_grid: ``"resample"`` or ``"refuse"`` a channel on another grid, see `pipeline.data.stack.load_stack`.
        missing_channels: ``"refuse"`` a case that lacks a channel, or fill it with ``"zero"``.
        non_finite, assume_orientation, trust, spacing_limits_mm: see `pipeline.io.policy.ReadPolicy`.
        volume: which one of a 4D series, from 0; or channel -> which one, for channels that lie in one file.
        colour: ``"refuse"`` a section in colour, or take its brightness as ``"grey"`` values.

    Raises:
        DataError, GeometryError, LabelError: each names case and file.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        *,
        channels: Sequence[str],
        image_key: str = "image",
        label_key: str = "label",
        labels: Iterable[int | str] | None = None,
        label_values: Mapping[int, int] | Mapping[str, int] | None = None,
        label_holds: str = "classes",
        allow_missing_keys: bool = True,
        on_other_grid: str = "resample",
        missing_channels: str = "refuse",
        non_finite: str = "refuse",
        assume_orientation: str | None = None,
        trust: str | None = None,
        volume: int | Mapping[str, int] | None = None,
        spacing_limits_mm: Sequence[float] = STRICT.spacing_limits_mm,
        colour: str = "refuse",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not channels or isinstance(channels, str):
            raise ConfigError(f"channels={channels!r}", expected="a list of channel names")
        if image_key not in self.keys or not set(self.keys) <= {image_key, label_key}:
            raise ConfigError(f"keys {self.keys}", expected=f"{image_key} and {label_key}")
        self.channels = [name.lower() for name in channels]
        self.image_key, self.label_key = image_key, label_key
        self.rules = stack_rules(
            self.channels,
            labels=labels,
            label_values=label_values,
            label_holds=label_holds,
            on_other_grid=on_other_grid,
            missing_channels=missing_channels,
            non_finite=non_finite,
            assume_orientation=assume_orientation,
            trust=trust,
            volume=volume,
            spacing_limits_mm=spacing_limits_mm,
            colour=colour,
        )

    def __repr__(self) -> str:  # MONAI names a failing step by it
        return f"{type(self).__name__} of {', '.join(self.channels)}"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        case_id = str(item["case_id"]) if "case_id" in item else None
        try:
            if item.get("problem") is not None:
                raise DataError(item["problem"], expected="a file per channel", fix="correct it, or take it out")
            given = item.get(self.image_key)
            paths = {} if isinstance(given, Stack) else self._named_paths(given)
            name, first = next(((name, path) for name, path in paths.items() if path is not None), ("", ""))
            case_id = case_id or _id_from(first, name)
            image = given if isinstance(given, Stack) else load_stack(paths, self.rules)
            item[self.image_key] = _tensor(image, first, case_id)
            absent = [name for name, there in zip(self.channels, image.present, strict=True) if not there]
            item[self.image_key].meta["absent_channels"] = "\n".join(absent)
            if self.rules.missing_channels == "zero":
                item[PRESENT] = torch.tensor(image.present)
            if self.label_key in self.keys and item.get(self.label_key) is not None:
                path = _path(item[self.label_key], self.label_key)
                require_own_label(path, (file for file in paths.values() if file is not None))
                label = load_case_label(path, image.grid, self.rules)
                require_numbered(label, path)
                item[self.label_key] = _tensor(label.classes, path, case_id)
                if label.instances is not None:
                    numbers = replace(label.classes, array=label.instances)
                    item[f"{self.label_key}_instances"] = _tensor(numbers, path, case_id)
            elif self.label_key in self.keys and not self.allow_missing_keys:
                raise DataError("no label", expected="a label for every case", fix="add it, or allow_missing_keys")
        except PipelineError as error:
            raise error.for_case(case_id or "(without an id)") from error
        return item

    def _named_paths(self, image: Any) -> dict[str, str | None]:
        if isinstance(image, str | PathLike):
            image = [image]
        if isinstance(image, Mapping):
            named = {str(name).lower(): path for name, path in image.items()}
        elif isinstance(image, list | tuple) and len(image) == len(self.channels):
            named = dict(zip(self.channels, image, strict=True))
        else:
            found = f"{len(image)} files" if isinstance(image, list | tuple) else f"{type(image).__name__} as image"
            raise DataError(
                found, expected=f"the channels {', '.join(self.channels)}", fix="name a file for each channel"
            )
        there = {name: path for name, path in named.items() if path is not None}
        missing = [name for name in self.channels if name not in there]
        if missing and (self.rules.missing_channels == "refuse" or len(missing) == len(self.channels)):
            close = difflib.get_close_matches(missing[0], there, n=1)
            raise DataError(
                f"the channels {', '.join(there) or '(none)'}; no {', '.join(missing)}",
                expected=f"{', '.join(self.channels)}",
                fix=f"is {close[0]} meant to be {missing[0]}?"
                if close and close[0] not in self.channels
                else "add the missing files, or allow it: missing_channels=zero",
            )
        return {name: _path(there[name], name) if name in there else None for name in self.channels}


def _path(value: Any, name: Hashable) -> str:
    if isinstance(value, str | PathLike) and isinstance(path := fspath(value), str):
        return path
    raise DataError(f"{type(value).__name__} as {name}", expected="a path", fix="name one file")


def _id_from(path: str, channel: str) -> str:
    file, section = section_of(path)
    if section is not None:
        return f"{file.stem}_{section:03d}"
    name = file.name
    stem = name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else Path(path).stem
    return stem[: -len(channel) - 1] if stem.lower().endswith(f"_{channel}") else stem


def _tensor(volume: Volume, path: str | PathLike[str], case_id: str) -> MetaTensor:
    meta = {
        "case_id": case_id,
        "original_affine": volume.grid.affine.copy(),
        "spatial_shape": np.array(volume.grid.shape),
        "filename_or_obj": fspath(path),
        "repairs": "\n".join(volume.repairs),
    }
    return MetaTensor(torch.from_numpy(volume.array), affine=torch.from_numpy(volume.grid.affine.copy()), meta=meta)
