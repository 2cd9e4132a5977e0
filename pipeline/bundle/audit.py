"""Configs hold data, not code: a bundle can be audited without running it, and without importing what it names.

MONAI evaluates text that starts with ``$``, imports whatever ``_target_`` names, reads other files for text that starts
with ``%``, and drops into a debugger for ``_mode_: debug`` or ``_debug_``. Allowed here:

- ``$`` followed by a reference ``@a#b``, attributes of it, calls without arguments of those, and ``+ 'literal'``;
- ``_target_``: a name in the ``__all__`` of one of this package's rooms, or listed in ``allowed_targets.py``.

Everything else is a `Problem`. The rooms' ``__all__`` is read from their source, so nothing is imported.

>>> print(audit_config({"run": ["$@train#trainer.run()"], "bad": "$__import__('os').system('id')"}, "train.json")[0])
bad: found $__import__('os').system('id'); expected a reference such as $@trainer.run() or $@bundle_root + '/models'
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.bundle.allowed_targets import ALLOWED_TARGETS, ROOMS
from pipeline.errors import BundleError

_REFERENCE = re.compile(r"@[A-Za-z_]\w*(?:(?:#|::)\w+)*", re.ASCII)
_RELATIVE = re.compile(r"[@%](?:#|::)")  # MONAI rewrites these inside any text
_PLACE = "reference_"
_COMPONENT_KEYS = frozenset({"_target_", "_desc_", "_disabled_", "_requires_", "_mode_"})
_MODES = ("default", "callable")
# Attributes of generators, frames, coroutines, tracebacks and code objects: the way from an object to the interpreter.
_INTERPRETER = re.compile(r"(gi|cr|ag|f|tb|co)_\w+")
_LONGEST_EXPRESSION = 200
_CODE_SUFFIXES = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".ps1", ".ipynb", ".pkl", ".pickle"}


@dataclass(frozen=True)
class Problem:
    """What a config must not hold: where (key path with ``#``), what was found, what was expected."""

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where or 'the config'}: found {self.found}; expected {self.expected}"


def audit_config(config: Any, file: str | PathLike[str] | None = None) -> list[Problem]:
    """Every place where a standalone config holds more than data; empty where it holds data only.

    Args:
        config: the content of a JSON or YAML config.
        file: its name; ``metadata.json`` must hold no expressions and no components at all, since MONAI parses it too.
    """
    meta = file is not None and Path(file).name == "metadata.json"
    return list(_walk_metadata(config, ()) if meta else _walk(config, ()))


def require_data_only(config: Any, file: str | PathLike[str]) -> None:
    """Raises a BundleError that lists every problem of `audit_config`."""
    problems = audit_config(config, file)
    if problems:
        raise BundleError("; ".join(map(str, problems)), file=file)


def audit_bundle(bundle: Path) -> list[str]:
    """Problems of every config of a bundle and of its files: a bundle ships no code.

    ``logging.conf`` counts as code: MONAI loads it unasked, and Python evaluates what stands in it.
    """
    problems = [
        f"{path.relative_to(bundle).as_posix()}: a bundle ships no code"
        for path in sorted(bundle.rglob("*"))
        if path.suffix.lower() in _CODE_SUFFIXES or path.name == "logging.conf"
    ]
    for file in sorted((bundle / "configs").glob("*.json")):
        try:
            config = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
        except ValueError as error:
            problems.append(f"configs/{file.name}: {error}")
            continue
        problems += [f"configs/{file.name}: {problem}" for problem in audit_config(config, file)]
    return problems


def references(text: str) -> list[tuple[str, ...]]:
    """The ids that a text refers to: all in an expression, the one that a plain reference is, else none.

    >>> references("$@bundle_root + '/models'"), references("@train#steps"), references("mail@example.org")
    ([('bundle_root',)], [('train', 'steps')], [])
    """
    found = _REFERENCE.findall(text) if text.startswith("$") else [text] if _REFERENCE.fullmatch(text) else []
    return [tuple(ref[1:].replace("#", "::").split("::")) for ref in found]


def target_problem(target: Any) -> str | None:
    """What ``_target_`` should be instead, or None where it is a public name. Imports nothing.

    >>> target_problem("monai.transforms.Compose"), target_problem("monai.utils.misc.os.system")
    (None, 'a name listed in pipeline/bundle/allowed_targets.py or public in a room of pipeline')
    """
    if not isinstance(target, str):
        return "the name of a class or function"
    if target in ALLOWED_TARGETS:
        return None
    package, _, rest = target.partition(".")
    room, _, name = rest.partition(".")
    if package == "pipeline" and room in ROOMS:
        public = public_names(room)
        if name in public:
            return None
        near = get_close_matches(name, public, n=3)
        return f"a public name of pipeline.{room}" + (f" (nearest: {', '.join(near)})" if near else "")
    near = get_close_matches(target, ALLOWED_TARGETS, n=2, cutoff=0.8)
    listed = "a name listed in pipeline/bundle/allowed_targets.py or public in a room of pipeline"
    return listed + (f" (nearest: {', '.join(near)})" if near else "")


@cache
def public_names(room: str) -> frozenset[str]:
    """The literal ``__all__`` of ``pipeline.<room>``, read from its source."""
    source = Path(__file__).resolve().parents[1] / room / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return frozenset(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return frozenset()


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    where = "#".join(path)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _key(key, value, where)
            if key == "_target_":
                expected = target_problem(item)
                if expected:
                    yield Problem(f"{where}#_target_", repr(item), expected)
            elif key == "_mode_":
                if item not in _MODES:
                    yield Problem(f"{where}#_mode_", repr(item), " or ".join(_MODES))
            else:
                yield from _walk(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, str(index)))
    elif isinstance(value, str):
        expected = _text(value)
        if expected:
            yield Problem(where, value, expected)
    else:
        yield from _number(value, where)


def _walk_metadata(value: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    where = "#".join(path)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith(("_", "$", "@", "%")):
                yield Problem(where, f"the key {key!r}", "plain names: MONAI parses metadata like any config")
            yield from _walk_metadata(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk_metadata(item, (*path, str(index)))
    elif isinstance(value, str):
        if value.startswith(("$", "@", "%")) or _RELATIVE.search(value):
            yield Problem(where, value, "plain text: MONAI parses metadata like any config")
    else:
        yield from _number(value, where)


def _key(key: Any, owner: dict[str, Any], where: str) -> Iterator[Problem]:
    component_keys = _COMPONENT_KEYS if "_target_" in owner else frozenset()
    if not isinstance(key, str):
        yield Problem(where, f"the key {key!r}", "text as key")
    elif key.startswith(("$", "@", "%", "+")) or "#" in key or "::" in key:
        yield Problem(where, f"the key {key!r}", "a plain name; nest with dicts")
    elif key.startswith("_") and key.endswith("_") and not (key in component_keys or key == "_desc_"):
        yield Problem(where, f"the key {key!r}", f"in a component: {', '.join(sorted(_COMPONENT_KEYS))}")


def _number(value: Any, where: str) -> Iterator[Problem]:
    if value is None or (isinstance(value, bool | int | float) and math.isfinite(value)):
        return
    yield Problem(where, f"{value!r}", "text, a finite number, true, false, null, a list or a dict")


def _text(text: str) -> str | None:
    if text.startswith("$"):
        return None if _is_harmless(text[1:]) else "a reference such as $@trainer.run() or $@bundle_root + '/models'"
    if text.startswith("%"):
        return "no macro: the value itself, or a reference @id"
    if text.startswith("@") and not _REFERENCE.fullmatch(text):
        return "a whole reference such as @train#dataset; with more around it, start with $"
    if _RELATIVE.search(text):
        return "an absolute reference: MONAI rewrites @# and %# in any text"
    return None


def _is_harmless(expression: str) -> bool:
    if len(expression) > _LONGEST_EXPRESSION or not expression.isascii() or _PLACE in expression:
        return False
    expression = _REFERENCE.sub(_PLACE, expression)
    if "#" in expression:  # a comment to Python, but `::` to MONAI, which rewrites the text first
        return False
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return _is_value(tree.body)


def _is_value(node: ast.expr) -> bool:
    """Whether an expression is one of the few that a config may hold; what is not named here is refused."""
    if isinstance(node, ast.Name):
        return node.id == _PLACE
    if isinstance(node, ast.Attribute):
        return _is_value(node.value) and not node.attr.startswith("_") and not _INTERPRETER.fullmatch(node.attr)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and _is_value(node.func) and not node.args and not node.keywords
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and _is_value(node.left) and _is_literal(node.right)
    if isinstance(node, ast.List):
        return all(_is_value(item) for item in node.elts)
    return False


def _is_literal(node: ast.expr) -> bool:
    # MONAI substitutes references and `#` inside quotes as well, which would end the literal early.
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return not any(sign in node.value for sign in ("@", "%", "#", _PLACE))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the key {', '.join(map(repr, twice))} twice in one block")
    return dict(pairs)
