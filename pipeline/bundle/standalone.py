"""From named handlers and steps, as people write them, to one file as plain MONAI reads it.

- ``"@@train#steps"`` stands for the list of references to the items of ``train#steps``, in their order
  (``["@train#steps#load", "@train#steps#crop"]``); inside a list it is spliced in. Items that are null are left out.
- ``handlers``, a dict of named components wherever it stands, becomes a plain list: MONAI refuses a dict of handlers
  and a list of references, and MONAI Label appends to the list.
- Every reference must lead somewhere.

>>> written = {"steps": {"a": {"_target_": "A"}, "b": None}, "all": "@@steps", "handlers": {"x": {"_target_": "X"}}}
>>> standalone(written, "train.yaml")
{'steps': {'a': {'_target_': 'A'}, 'b': None}, 'all': ['@steps#a'], 'handlers': [{'_target_': 'X'}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from os import PathLike
from typing import Any

from pipeline.bundle.expression import references
from pipeline.bundle.merge import is_component
from pipeline.bundle.strict_yaml import split_key
from pipeline.errors import ConfigError

_ITEMS_OF = "@@"


def standalone(config: dict[str, Any], file: str | PathLike[str]) -> dict[str, Any]:
    """The config in MONAI's form; ``file`` is named in messages.

    Raises:
        ConfigError: ``@@`` that names no dict of steps, a handler or a step that can't be one, a reference to nothing.
    """
    written = _Writer(config, file).convert(config, ())
    _check_references(written, file)
    return written


def without_removed(config: dict[str, Any], before: dict[str, Any], file: str | PathLike[str]) -> dict[str, Any]:
    """A config in MONAI's form after overrides: what they have set to null is gone from its lists too.

    Args:
        config: with the overrides.
        before: without them.
        file: named in messages.

    Raises:
        ConfigError: something else still refers to what was removed.
    """

    def gone(reference: tuple[str, ...]) -> bool:
        return _find(before, reference) is not _NOWHERE and _find(config, reference) is _NOWHERE

    def walk(value: Any, former: Any) -> Any:
        if isinstance(value, dict):
            known = former if isinstance(former, dict) else {}
            return {key: walk(item, known.get(key)) for key, item in value.items()}
        if not isinstance(value, list):
            return value
        items = former if isinstance(former, list) and len(former) == len(value) else [None] * len(value)
        return [
            walk(item, was)
            for item, was in zip(value, items, strict=True)
            if not (item is None and is_component(was))
            and not (isinstance(item, str) and item.startswith("@") and any(map(gone, references(item))))
        ]

    pruned: dict[str, Any] = walk(config, before)
    for path, text in _texts(pruned, ()):
        for reference in filter(gone, references(text)):
            name, place = "#".join(reference), "#".join(path)
            raise ConfigError(
                f"{name}=null, to which @{name} at {place} refers",
                expected="that nothing refers to what is left out",
                fix=f"leave it, or change {place} as well",
                file=file,
            )
    return pruned


class _Writer:
    def __init__(self, config: dict[str, Any], file: str | PathLike[str]) -> None:
        self.config, self.file = config, file

    def convert(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, str) and value.startswith(_ITEMS_OF):
            return self._items(value, path)
        if isinstance(value, list):
            result: list[Any] = []
            for index, item in enumerate(value):
                converted = self.convert(item, (*path, str(index)))
                spliced = isinstance(item, str) and item.startswith(_ITEMS_OF)
                result.extend(converted if spliced else [converted])
            return result
        if not isinstance(value, dict):
            return value
        if path and path[-1] == "handlers" and not is_component(value):
            return self._handlers(value, path)
        return {key: self.convert(item, (*path, key)) for key, item in value.items()}

    def _items(self, text: str, path: tuple[str, ...]) -> list[str]:
        name = "#".join(split_key(text.removeprefix(_ITEMS_OF)))
        steps = _find(self.config, split_key(name))
        if not isinstance(steps, dict) or is_component(steps):
            raise ConfigError(f"{text} at {'#'.join(path)}", expected="the name of a dict of steps", file=self.file)
        for key, step in steps.items():
            if isinstance(step, dict) and "_disabled_" in step:
                raise ConfigError(
                    f"_disabled_ at {name}#{key}, which MONAI ignores in a step that a list refers to",
                    fix=f"set {name}#{key} to null",
                    file=self.file,
                )
        return [f"@{name}#{key}" for key, step in steps.items() if step is not None]

    def _handlers(self, handlers: dict[str, Any], path: tuple[str, ...]) -> list[Any]:
        for key, handler in handlers.items():
            if handler is not None and not is_component(handler):
                raise ConfigError(
                    f"{handler!r} at {'#'.join((*path, key))}", expected="a handler with its _target_", file=self.file
                )
        return [self.convert(h, (*path, key)) for key, h in handlers.items() if h is not None]


_NOWHERE = object()


def _find(config: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if isinstance(config, dict) and key in config:
            config = config[key]
        elif isinstance(config, list) and key.isdecimal() and int(key) < len(config):
            config = config[int(key)]
        else:
            return _NOWHERE
    return config


def _check_references(config: dict[str, Any], file: str | PathLike[str]) -> None:
    for path, text in _texts(config, ()):
        for reference in references(text):
            # _meta_ is metadata.json, which MONAI reads beside the config.
            if reference[0] == "_meta_" or _find(config, reference) is not _NOWHERE:
                continue
            names = ["#".join(keys) for keys, _ in _places(config, ())]
            near = get_close_matches("#".join(reference), names, n=3)
            raise ConfigError(
                f"@{'#'.join(reference)} at {'#'.join(path)}, which is not in this config",
                expected="a reference to something"
                + (f" (nearest: {', '.join('@' + n for n in near)})" if near else ""),
                file=file,
            )


def _places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, str(key)), item
        yield from _places(item, (*path, str(key)))


def _texts(config: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    return ((where, item) for where, item in _places(config, path) if isinstance(item, str))
