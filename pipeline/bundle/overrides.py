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

Override = str | tuple[str, Any]
"""``KEY=VALUE`` as typed, or a key and a value that needs no reading (a path may hold what YAML takes for syntax)."""


def parse_override(override: Override) -> tuple[str, dict[str, Any]]:
    """The key as written with ``#``, and the delta that the override stands for.

    Args:
        override: ``KEY=VALUE`` or ``(KEY, value)``; KEY is nested with ``#`` or ``::``, VALUE is YAML.

    Raises:
        ConfigError: no ``=``, no key, or a value that is no YAML.
    """
    key, equals, value = override.partition("=") if isinstance(override, str) else (override[0], "=", override[1])
    keys = split_key(key.strip().removeprefix("--"))
    if not equals or not all(keys):
        expected = "KEY=VALUE, such as max_epochs=20 or train#steps#crop#num_samples=4"
        raise ConfigError(f"{override!r}", expected=expected)
    delta: Any = parse(value, f"override {key}") if isinstance(override, str) else value
    for name in reversed(keys):
        delta = {name: delta}
    return "#".join(keys), delta


def take_network(overrides: Iterable[Override]) -> tuple[str | None, tuple[Override, ...]]:
    """Splits ``network=NAME`` (a choice of base file) from the overrides of values.

    Raises:
        ConfigError: two different choices.
    """
    chosen: str | None = None
    rest: list[Override] = []
    for override in overrides:
        key, delta = parse_override(override)
        if key == "network" and is_network_name(delta["network"]):
            if chosen not in (None, delta["network"]):
                raise ConfigError(f"network={chosen} and network={delta['network']}", expected="one network")
            chosen = delta["network"]
        else:
            rest.append(override)
    return chosen, tuple(rest)


def is_network_name(value: Any) -> bool:
    """Whether a value of the key ``network`` names a base file; a dict or a reference configures the item itself."""
    return isinstance(value, str) and not value.startswith(("@", "$"))
