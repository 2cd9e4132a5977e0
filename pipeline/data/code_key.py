"""What code depends on beside its arguments: module globals, closures, class attributes, and the code that it calls.

Of a library (Python's own, this package, and what is installed in its place for packages) the name and the version are
enough. One's own functions and classes change without either, a cell of a notebook or a value that is set anew.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.data.file_digests import file_digest

_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib", "platstdlib"))
_NO_VALUES = (
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)


@cache
def is_library(module: str) -> bool:
    """Whether what a module holds is fixed by its version.

    >>> is_library("json"), is_library("monai.transforms"), is_library("pipeline.io"), is_library("my_transforms")
    (True, True, True, False)
    """
    package = module.partition(".")[0]
    if package == "pipeline" or package in sys.builtin_module_names or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file.startswith(_INSTALLED)


@cache
def source(module: str) -> Any:
    """The package's version, and a digest of the module's file: one's own transforms change without a version."""
    file = getattr(sys.modules.get(module), "__file__", None)
    version = getattr(sys.modules.get(module.partition(".")[0]), "__version__", None)
    return [str(version), file_digest(Path(file)) if file and os.path.isfile(file) else None]


def referred(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values outside a function that its code reads, that of functions inside it included.

    Of a module of one's own that it reads, those of the module's values whose names the code mentions.

    Raises:
        NameError: what it imports itself can't be told.
    """
    mentioned: set[str] = set()
    names: set[str] = set()
    imported: set[str] = set()
    for code in _codes(function.__code__):
        mentioned.update(code.co_names)
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(step.argval)
            elif step.opname == "IMPORT_NAME":
                imported.add(step.argval)
    found = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    for name in sorted(imported):
        if not is_library(name):
            if name not in sys.modules:
                raise NameError(name)
            found[name] = sys.modules[name]
    for name, value in found.items():
        yield name, value
        if isinstance(value, types.ModuleType) and not is_library(value.__name__):
            yield from ((f"{name}.{inner}", vars(value)[inner]) for inner in sorted(mentioned) if inner in vars(value))


def class_values(kind: type) -> Iterator[tuple[str, Any]]:
    """What the class statement of a class of one's own holds: its attributes, and the functions of its methods.

    Raises:
        TypeError: it has slots, whose values lie elsewhere than an object's attributes.
    """
    for name, value in sorted(vars(kind).items()):
        if isinstance(value, types.MemberDescriptorType):
            raise TypeError("slots")
        if isinstance(value, property):
            yield name, [value.fget, value.fset, value.fdel]
        elif isinstance(value, staticmethod | classmethod):
            yield name, value.__func__
        elif isinstance(value, types.FunctionType) or not (
            (name.startswith("__") and name.endswith("__")) or name == "_abc_impl" or isinstance(value, _NO_VALUES)
        ):
            yield name, value


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
