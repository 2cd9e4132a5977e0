"""``KEY=VALUE`` of a command line.

>>> parse_override("train#steps#crop#num_samples=4")
('train#steps#crop#num_samples', {'train': {'steps': {'crop': {'num_samples': 4}}}})
>>> parse_override("patch_size=[32, 32, 16]")[1]
{'patch_size': [32, 32, 16]}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.bundle.strict_yaml import parse, split_key
from pipeline.errors import ConfigError


def parse_override(text: str) -> tuple[str, dict[str, Any]]:
    """The key as written with ``#``, and the delta that the override stands for.

    Args:
        text: ``KEY=VALUE``; KEY is nested with ``#`` or ``::``, VALUE is YAML.

    Raises:
        ConfigError: no ``=``, no key, or a value that is no YAML.
    """
    key, equals, value = text.partition("=")
    keys = split_key(key.strip().removeprefix("--"))
    if not equals or not all(keys):
        raise ConfigError(f"{text!r}", expected="KEY=VALUE, such as max_epochs=20 or train#steps#crop#num_samples=4")
    delta: Any = parse(value, f"override {key}")
    for name in reversed(keys):
        delta = {name: delta}
    return "#".join(keys), delta


def take_network(overrides: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """Splits ``network=NAME`` (a choice of base file) from the overrides of values.

    Raises:
        ConfigError: two different choices.
    """
    chosen: str | None = None
    rest = []
    for text in overrides:
        key, delta = parse_override(text)
        if key == "network" and is_network_name(delta["network"]):
            if chosen not in (None, delta["network"]):
                raise ConfigError(f"network={chosen} and {text}", expected="one network")
            chosen = delta["network"]
        else:
            rest.append(text)
    return chosen, tuple(rest)


def is_network_name(value: Any) -> bool:
    """Whether a value of the key ``network`` names a base file; a dict or a reference configures the item itself."""
    return isinstance(value, str) and not value.startswith(("@", "$"))
