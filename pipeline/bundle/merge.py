"""A deep merge that loses nothing and lets nothing unknown in.

Rules, for a base and a delta on top of it:

- dicts merge key by key; a list, a number or a text is replaced whole, and so is a base value of ``{}`` or null, which
  stands for "anything goes here" (``classes: {}``);
- a *component* is a dict with ``_target_``. A key that the base's component lacks is accepted where its target's
  signature takes it. Another ``_target_`` is refused unless ``_replace_: true`` stands beside it: arguments of one
  class mean nothing to another. A component gives way to a reference (``"@other"``), an expression or null;
- ``_replace_: true`` in a dict replaces the base's dict whole; a component's replacement must be a component;
- a *named collection* is a dict whose values are all components, or one called ``handlers`` or ``...steps``. A new
  item is a complete component; it goes to the end, or where ``_after_: name`` or ``_before_: name`` says (which also
  moves an item that is there). An item set to null is removed;
- every other key that the base lacks is unknown. It is handed back, not raised, since a key that one kind of config
  lacks may belong to another kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from typing import Any

from pipeline.bundle.audit import target_problem
from pipeline.bundle.signature import SPECIAL_KEYS, parameters, unknown_arguments
from pipeline.errors import ConfigError

KeyPath = tuple[str, ...]


def is_component(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def is_collection(name: str, value: Any) -> bool:
    """Whether ``value``, stored under ``name``, is a named collection of components (handlers, steps, metrics)."""
    if not isinstance(value, dict) or is_component(value):
        return False
    return name == "handlers" or name.endswith("steps") or (bool(value) and all(map(is_component, value.values())))


def _is_item(value: Any) -> bool:
    # null is a place that a base keeps free for bundles; text is a reference to an item elsewhere.
    return value is None or is_component(value) or (isinstance(value, str) and value.startswith("@"))


def nearest(path: KeyPath, known: Iterable[str], configs: Iterable[dict[str, Any]]) -> list[str]:
    """Key paths (with ``#``) that an unknown one may have meant: its would-be siblings, then equal names elsewhere."""
    siblings = ["#".join((*path[:-1], name)) for name in get_close_matches(path[-1], list(known), n=3)]
    elsewhere: dict[str, list[str]] = {}
    for config in configs:
        for keys in _key_paths(config, ()):
            elsewhere.setdefault(keys[-1], []).append("#".join(keys))
    alike = [
        where for name in get_close_matches(path[-1], elsewhere, n=3) for where in sorted(elsewhere[name], key=len)
    ]
    return list(dict.fromkeys(siblings + alike))[:3]


def _key_paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if key not in SPECIAL_KEYS:
            yield (*path, key)
            yield from _key_paths(item, (*path, key))


@dataclass
class Merge:
    """One merge of a delta onto a base.

    Args:
        file: the delta's file (or a name for it), for messages.
        define: whether unknown keys are definitions (a base file on top of another) instead of errors.
        index_lists: whether ``{"0": ...}`` edits an item of a list: for configs whose lists have no names.

    Attributes:
        unknown: key paths that the base lacks, each with the names that were known in its place.
    """

    file: str | PathLike[str]
    define: bool = False
    index_lists: bool = False
    unknown: dict[KeyPath, tuple[str, ...]] = field(default_factory=dict)

    def __call__(self, base: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
        """The merged copy; neither argument is changed.

        Raises:
            ConfigError: a delta that contradicts the base, by the rules above.
        """
        return self._dict(deepcopy(base), deepcopy(delta), ())

    def _value(self, base: Any, delta: Any, path: KeyPath) -> Any:
        if isinstance(base, dict) and (base or is_collection(path[-1], base)):
            if isinstance(delta, dict):
                return self._dict(base, delta, path)
            if is_component(base) and (delta is None or (isinstance(delta, str) and delta[:1] in ("@", "$"))):
                return delta
            wanted = "a dict, a reference or null" if is_component(base) else "a dict"
            raise self._refusal(f"{delta!r} in place of a dict", path, wanted)
        if isinstance(base, list) and isinstance(delta, dict) and not is_component(delta):
            return self._list(base, delta, path)
        if isinstance(delta, dict) and not is_component(delta) and not delta.get("_replace_"):
            if isinstance(base, str) and base[:1] in ("@", "$"):  # the keys belong to what is referred to
                self.unknown.update({(*path, key): () for key in delta})
                return base
            if isinstance(base, str | int | float):
                raise self._refusal(f"a dict in place of {base!r}", path, "one value")
        if isinstance(base, int | float) and isinstance(delta, str) and delta[:1] not in ("@", "$"):
            wanted = "true or false" if isinstance(base, bool) else "a number"
            raise self._refusal(
                f"the text {delta!r}", path, wanted + (", with a decimal point" if "," in delta else "")
            )
        if type(base) is int and type(delta) is float and not delta.is_integer():
            raise self._refusal(f"{delta!r}", path, "a whole number")
        return self._new(delta, path)

    def _dict(self, base: dict[str, Any], delta: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        if delta.get("_replace_"):
            if is_component(base) and not is_component(delta):
                raise self._refusal("_replace_ without _target_", path, "a complete component")
            return self._new(delta, path)
        if is_component(base) and delta.get("_target_", base["_target_"]) != base["_target_"]:
            raise self._refusal(
                f"_target_ {delta['_target_']} where the base has {base['_target_']}",
                path,
                "the same class",
                "write _replace_: true beside it and all its arguments: those of the other class do not carry over",
            )
        collection = bool(path) and is_collection(path[-1], base)
        for key, value in delta.items():
            if key == "_replace_":
                continue
            place = {k: value.pop(k) for k in ("_after_", "_before_") if k in value} if isinstance(value, dict) else {}
            if key in base and collection and value is None:
                del base[key]
            elif key in base:
                base[key] = self._value(base[key], value, (*path, key))
            elif self._is_new(base, key, value, path, collection):
                base[key] = self._new(value, (*path, key))
            if collection and key in base and not _is_item(base[key]):
                raise self._refusal("an item without _target_", (*path, key), "a complete component")
            if place and key in base:
                self._move(base, key, place, path, collection)
        return base

    def _is_new(self, base: dict[str, Any], key: str, value: Any, path: KeyPath, collection: bool) -> bool:
        if self.define:
            return True
        known = tuple(base)
        if is_component(base):
            named, _, open_ended = parameters(base["_target_"])
            if open_ended or key in named or key in SPECIAL_KEYS:
                return True
            known = tuple(sorted({*base, *named} - SPECIAL_KEYS))
        elif collection and is_component(value):
            return True
        self.unknown[(*path, key)] = known
        return False

    def _new(self, value: Any, path: KeyPath) -> Any:
        """A value that the delta brings along whole: its arguments must be known, since no base vouches for them."""
        if isinstance(value, list):
            return [self._new(item, (*path, str(i))) for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if is_component(value) and not self.define:
            wanted = target_problem(value["_target_"])
            if wanted:
                raise self._refusal(f"_target_: {value['_target_']}", path, wanted)
            wrong = unknown_arguments({k: v for k, v in value.items() if k != "_replace_"})
            if wrong:
                takes = ", ".join(sorted(parameters(value["_target_"])[0]))
                raise self._refusal(f"{wrong[0]!r} for {value['_target_']}", path, f"of its arguments {takes}")
        return {k: self._new(v, (*path, k)) for k, v in value.items() if k != "_replace_"}

    def _list(self, base: list[Any], delta: dict[str, Any], path: KeyPath) -> list[Any]:
        if not self.index_lists or not all(key.isdecimal() for key in delta):
            raise self._refusal("a dict in place of a list", path, "the whole list")
        for key, value in delta.items():
            if int(key) < len(base):
                base[int(key)] = self._value(base[int(key)], value, (*path, key))
            else:
                self.unknown[(*path, key)] = tuple(map(str, range(len(base))))
        return base

    def _move(self, base: dict[str, Any], key: str, place: dict[str, Any], path: KeyPath, collection: bool) -> None:
        where = next(iter(place))
        neighbour = place[where]
        others = [name for name in base if name != key]
        if not collection or len(place) > 1:
            raise self._refusal(" and ".join(place), (*path, key), "one of them, on an item of steps or handlers")
        if neighbour not in others:
            raise self._refusal(f"{where}: {neighbour!r}", (*path, key), f"one of {', '.join(others)}")
        at = others.index(neighbour) + (where == "_after_")
        order = [*others[:at], key, *others[at:]]
        items = dict(base)
        base.clear()
        base.update((name, items[name]) for name in order)

    def _refusal(self, found: str, path: KeyPath, expected: str, fix: str | None = None) -> ConfigError:
        return ConfigError(f"{found} at {'#'.join(path)}", expected=expected, fix=fix, file=self.file)
