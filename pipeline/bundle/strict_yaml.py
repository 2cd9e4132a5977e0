"""YAML as data, without its traps.

YAML 1.1 reads ``1e-4`` as text, ``no`` as false, ``1:30`` as 90, ``010`` as 8, and takes the last of two equal keys,
all without a word. Each is refused here with what to write instead. Keys become text (JSON knows no other), and ``a#b:
1`` or ``a::b: 1`` is short for ``a: {b: 1}``.

>>> parse("patch_size: [16, 16]\\ntrain#steps#crop: {num_samples: 2}")
{'patch_size': [16, 16], 'train': {'steps': {'crop': {'num_samples': 2}}}}
"""

from __future__ import annotations

import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

_NUMBER_AS_TEXT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")
_TRAPS = {
    "tag:yaml.org,2002:bool": (re.compile(r"true|false", re.I), "true or false, or the word in quotes"),
    "tag:yaml.org,2002:int": (re.compile(r"[-+]?(0|[1-9]\d*)"), "a plain decimal number, or quotes around text"),
    "tag:yaml.org,2002:timestamp": (re.compile(r"(?!)"), "quotes around a date"),
}


class _Trap(ValueError):
    """A scalar or a key that YAML would read as something else than it looks like."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader (plain data, no Python objects) that refuses the traps above."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            line = node.start_mark.line + 1
            if node.tag == "tag:yaml.org,2002:str" and _NUMBER_AS_TEXT.fullmatch(node.value):
                mantissa, exponent = re.split("[eE]", node.value)
                mantissa += "" if "." in mantissa else ".0"
                sign = "" if exponent[0] in "+-" else "+"
                raise _Trap(f"{node.value} in line {line}, which YAML reads as text; write {mantissa}e{sign}{exponent}")
            plain, instead = _TRAPS.get(node.tag, (None, ""))
            if plain is not None and not plain.fullmatch(node.value):
                raise _Trap(f"{node.value} in line {line}, which YAML reads as something else; write {instead}")
        return super().construct_object(node, deep=deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _Trap(f"a merge key << in line {key_node.start_mark.line + 1}; write the keys out, or use _base_")
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _Trap(f"the key {key_node.value} in line {key_node.start_mark.line + 1}; write quotes around it")
            if str(key) in seen:
                raise _Trap(f"the key {key!r} twice in one block (line {key_node.start_mark.line + 1}); keep one")
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


def parse(text: str, file: str | PathLike[str] | None = None) -> Any:
    """The value that ``text`` describes, of dicts with text keys, lists, text, finite numbers, booleans and None.

    Raises:
        ConfigError: not YAML, or one of YAML's traps; names ``file``.
    """
    try:
        # _Loader derives from SafeLoader: this is yaml.safe_load with refusals.
        return _plain(yaml.load(text, Loader=_Loader), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        fix = "close every bracket and quote, and write quotes around text with : or # in it"
        raise ConfigError(f"what is no YAML{where}: {error.problem or error.context}", file=file, fix=fix) from None
    except (_Trap, yaml.YAMLError) as error:
        raise ConfigError(str(error), file=file) from None


def read(file: Path) -> dict[str, Any]:
    """The dict in a YAML file; an empty file is an empty dict.

    Raises:
        ConfigError: the file is missing, is no YAML, holds no dict, or falls into one of YAML's traps.
    """
    try:
        content = parse(file.read_text(encoding="utf-8"), file)
    except FileNotFoundError:
        raise ConfigError("no such file", file=file) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"a {type(content).__name__}", expected="keys and values", file=file)
    return content


def split_key(key: str) -> tuple[str, ...]:
    """``"train#steps"`` and ``"train::steps"`` -> ``("train", "steps")``."""
    return tuple(key.replace("#", "::").split("::"))


def _plain(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            _put(result, split_key(str(key)), _plain(item, (*path, str(key))), path)
        return result
    if isinstance(value, list):
        return [_plain(item, path) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _Trap(f"{value} at {'#'.join(path)}; JSON knows no infinity and no NaN")
    if value is None or isinstance(value, str | int | float):
        return value
    raise _Trap(f"a {type(value).__name__} at {'#'.join(path)}; write text, numbers, lists and keys only")


def _put(target: dict[str, Any], keys: tuple[str, ...], value: Any, path: tuple[str, ...]) -> None:
    """Sets a nested value; two spellings of one key (``a: {b: 1}`` and ``a#b: 2``) contradict each other."""
    where = "#".join((*path, *keys))
    if not all(keys):
        raise _Trap(f"the key {where}; write names between the # signs")
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise _Trap(f"{where} beside a value for {key}; keep one")
    old = target.get(keys[-1])
    if keys[-1] not in target:
        target[keys[-1]] = value
    elif isinstance(old, dict) and isinstance(value, dict):
        for key, item in value.items():
            _put(old, (key,), item, (*path, *keys))
    else:
        raise _Trap(f"two values for {where}; keep one")
