"""The text that MONAI gives a meaning to: references ``@a#b`` and expressions ``$...``, and which of them are data.

MONAI substitutes the references in an expression as text and evaluates what results. Here the expression is parsed, and
only the few forms that a config needs are let through: what `_is_value` does not name is refused.
"""

from __future__ import annotations

import ast
import re

_REFERENCE = re.compile(r"@[A-Za-z_]\w*(?:(?:#|::)\w+)*", re.ASCII)
_RELATIVE = re.compile(r"[@%](?:#|::)")  # MONAI rewrites these inside any text
_PLACE = "reference_"
# Attributes of generators, frames, coroutines, tracebacks and code objects: the way from an object to the interpreter.
_INTERPRETER = re.compile(r"(gi|cr|ag|f|tb|co)_\w+")
_LONGEST_EXPRESSION = 200


def references(text: str) -> list[tuple[str, ...]]:
    """The ids that a text refers to: all in an expression, the one that a plain reference is, else none.

    >>> references("$@bundle_root + '/models'"), references("@train#steps"), references("mail@example.org")
    ([('bundle_root',)], [('train', 'steps')], [])
    """
    found = _REFERENCE.findall(text) if text.startswith("$") else [text] if _REFERENCE.fullmatch(text) else []
    return [tuple(ref[1:].replace("#", "::").split("::")) for ref in found]


def is_relative(text: str) -> bool:
    """Whether MONAI finds a relative id in a text and rewrites it, wherever it stands: ``"mail@#x"``."""
    return _RELATIVE.search(text) is not None


def text_problem(text: str) -> str | None:
    """What a text in a config should be instead, or None where it is data.

    >>> text_problem("$@train#trainer.run()"), text_problem("%other.json#network")
    (None, 'no macro: the value itself, or a reference @id')
    """
    if text.startswith("$"):
        return None if _is_harmless(text[1:]) else "a reference such as $@trainer.run() or $@bundle_root + '/models'"
    if text.startswith("%"):
        return "no macro: the value itself, or a reference @id"
    if text.startswith("@") and not _REFERENCE.fullmatch(text):
        return "a whole reference such as @train#dataset; with more around it, start with $"
    if "#" in text and not text.startswith("@"):
        return "no # in text: MONAI turns it into :: without a word"
    if is_relative(text):
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
