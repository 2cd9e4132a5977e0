"""What a bundle asks of a dataset, read from its config without MONAI, to check it before it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from pipeline.bundle.overrides import parse_override
from pipeline.data import Case, StackRules
from pipeline.data.stack_rules import stack_rules
from pipeline.errors import ConfigError
from pipeline.io.policy import ReadPolicy

_LOADER = "pipeline.transforms.LoadImageStackd"
TAKEN_ON_TRUST = (*(field.name for field in fields(ReadPolicy)), "missing_channels")
"""Keys of a config that say how files are read that do not say all they should; `configs/common.yaml` explains them."""

_OF_THE_TRANSFORM = {"_target_", "keys", "channels", "image_key", "label_key", "allow_missing_keys"}


@dataclass(frozen=True)
class DataRules:
    """What a bundle asks of a dataset.

    Args:
        channels: names in the order of the stack.
        classes: id -> name.
        spatial_dims: 3 for volumes, 2 for sections.
        with_label: whether labels are loaded.
        stack: how the files of a case are read and judged.
    """

    channels: tuple[str, ...]
    classes: dict[int, str]
    spatial_dims: int
    with_label: bool
    stack: StackRules

    def loaded(self, case: Case) -> Case:
        """The case as it will be loaded: without its label, where none is."""
        return case if self.with_label else replace(case, label=None)


def data_rules(config: Mapping[str, Any]) -> DataRules:
    """The rules in a resolved config: those with which its ``load`` step reads cases; any label where it is another's.

    Raises:
        ConfigError: a ``load`` step with a value that is no value and no reference to one.
    """
    load = config.get("load") or {}
    load = {name: _value(config, value) for name, value in load.items() if load.get("_target_") == _LOADER}
    channels = tuple(str(name).lower() for name in load.get("channels") or config["channels"])
    keys = load.get("keys") or ["image", "label"]
    arguments = {name: value for name, value in load.items() if name not in _OF_THE_TRANSFORM}
    return DataRules(
        channels,
        {int(label): str(name) for label, name in config["classes"].items()},
        int(config.get("spatial_dims", 3)),
        load.get("label_key", "label") in keys,
        stack_rules(channels, **arguments),
    )


def taken_on_trust(settings: Sequence[str]) -> dict[str, Any]:
    """What ``KEY=VALUE`` texts say of a dataset's files where there is no bundle yet: arguments of `stack_rules`.

    >>> taken_on_trust(["volume=0", "assume_orientation=RAS"])
    {'volume': 0, 'assume_orientation': 'RAS'}

    Raises:
        ConfigError: another key.
    """
    found: dict[str, Any] = {}
    for text in settings:
        key, value = parse_override(text)
        if key not in TAKEN_ON_TRUST:
            near = get_close_matches(key, TAKEN_ON_TRUST, n=1)
            raise ConfigError(
                f"the setting {text}" + (f" (nearest: {near[0]})" if near else ""),
                expected=f"what concerns how files are read: {', '.join(TAKEN_ON_TRUST)}",
                fix="other settings go to the end of `pipeline train`, or into a bundle's configs/bundle.yaml",
            )
        found |= value
    return found


def _value(config: Mapping[str, Any], value: Any) -> Any:
    """A value, or what a reference such as ``"@classes"`` stands for."""
    if not isinstance(value, str) or value[:1] not in ("@", "$"):
        return value
    found: Any = config
    for key in re.split("#|::", value.lstrip("$").removeprefix("@")):
        if not isinstance(found, Mapping) or key not in found:
            raise ConfigError(f"{value} in the load step", expected="a value, or a reference to one")
        found = found[key]
    return _value(config, found)
