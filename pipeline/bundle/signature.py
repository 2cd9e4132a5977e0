"""Which arguments a ``_target_`` takes. Only public names are imported, and only when asked."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from pipeline.bundle.audit import target_problem
from pipeline.errors import ConfigError

SPECIAL_KEYS = frozenset({"_target_", "_desc_", "_disabled_", "_requires_", "_mode_"})


@cache
def parameters(target: str) -> tuple[frozenset[str], frozenset[str], bool]:
    """The arguments of a public class or function: those it knows, those it needs, whether it takes any name.

    Raises:
        ConfigError: the name is not public, or can't be imported.
    """
    expected = target_problem(target)
    if expected:
        raise ConfigError(f"_target_: {target}", expected=expected)
    # Longest module first; what is left are attributes (a class, or a class and its method).
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name and ".".join(parts[:split]).startswith(error.name):
                continue
            raise ConfigError(f"_target_: {target}, which needs {error.name}", fix=f"install {error.name}") from error
        try:
            for name in parts[split:]:
                found = getattr(found, name)
        except AttributeError:
            break
        named = {
            p.name: p
            for p in inspect.signature(found).parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values())
        required = frozenset(name for name, p in named.items() if p.default is p.empty)
        return frozenset(named), required, open_ended
    raise ConfigError(f"_target_: {target}", expected="a name that exists in the installed version")


def unknown_arguments(component: dict[str, Any]) -> list[str]:
    """Keys of a component that its target does not take."""
    known, _, open_ended = parameters(component["_target_"])
    return [] if open_ended else [key for key in component if key not in known and key not in SPECIAL_KEYS]


def signature_problems(config: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every component of a config that its target would refuse: an unknown argument, or a missing one."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from signature_problems(value, (*path, str(key)))
    if isinstance(config, dict) and "_target_" in config:
        where, target = "#".join(path), config["_target_"]
        try:
            known, required, _ = parameters(target)
        except ConfigError as error:
            yield f"{where}: {error}"
            return
        for key in unknown_arguments(config):
            yield f"{where}: {target} takes no {key!r}; it takes {', '.join(sorted(known))}"
        if config.get("_mode_") != "callable":
            for key in sorted(required - set(config)):
                yield f"{where}: {target} needs {key!r}"
