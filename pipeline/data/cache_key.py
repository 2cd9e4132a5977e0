"""What a prepared case depends on: the bytes of its files, and everything that the transforms are made of.

MONAI's ``PersistentDataset`` names an entry by the item alone, which holds the names of files: it goes on serving what
it once prepared when a file's content or a transform's parameter changes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import sys
import threading
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import MONAIEnvVars

from pipeline.data.code_key import class_values, is_library, referred, source
from pipeline.data.file_digests import FileDigests, file_digest, file_state
from pipeline.io import section_of

# What reads or computes voxels. A class of another package brings that package's version along.
_PACKAGES = ("monai", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "isal", "pillow")
_OWN_SOURCES = ("geometry.py", "io/*.py", "transforms/*.py")
_NAMES = ("case_id", "relative")  # of an item of `pipeline.data.data_list`


class Unknown(Exception):
    """Something in a transform whose value can't be told: nothing may be kept of what it prepares."""


def digest(value: Any) -> str:
    """Of what JSON can hold: 40 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:40]


class HeadDescription:
    """The transforms of a chain's deterministic head, as a digest.

    It covers their classes, the source of the modules that define them, every attribute, files that an attribute
    names, and the versions of the packages that read and compute; of classes and functions of one's own also what they
    read from elsewhere, see `pipeline.data.code_key`. What is found by its name at run time (``getattr``) is not.

    Attributes:
        digest: changes when any of it does.
        transforms: all of the head, those inside others included, in an order that depends on nothing else.

    Raises:
        Unknown: a value that can't be described, such as an open file.
    """

    def __init__(self, head: Sequence[Any]) -> None:
        self.transforms: list[Any] = []
        self._around: list[int] = []  # what is being described, for an object that holds itself
        self._code_seen: list[Any] = []  # functions and classes of one's own, each described once
        environment = [[_version(name) for name in _PACKAGES], sys.version_info[:2], _own_source()]
        tracking = [get_track_meta(), MONAIEnvVars.trace_transform(), str(torch.get_default_dtype())]
        self.digest = digest([environment, tracking, [self._describe(step) for step in head]])
        self._code_seen.clear()  # not to be pickled with the rest

    def _describe(self, value: Any) -> Any:
        if value is None or value is ... or isinstance(value, bool | int | float | complex):
            return [type(value).__name__, repr(value)]
        if isinstance(value, Enum):
            return ["enum", _name(type(value)), value.name]
        if isinstance(value, str | bytes | os.PathLike):
            text = value.hex() if isinstance(value, bytes) else os.fspath(value)
            return [text, *([file_digest(Path(text))] if isinstance(text, str) and _is_file(text) else [])]
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return ["array", value.dtype.str, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(plain.tobytes()).hexdigest()]
        if isinstance(value, torch.dtype | torch.device | np.dtype | range | slice):
            return [type(value).__name__, str(value)]
        if isinstance(value, re.Pattern):
            return ["pattern", value.pattern, value.flags]
        if isinstance(value, type):
            return ["class", _name(value), source(value.__module__), self._classes(value)]
        if id(value) in self._around:
            return ["again", self._around.index(id(value))]
        self._around.append(id(value))
        try:
            return self._describe_parts(value)
        finally:
            self._around.pop()

    def _describe_parts(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return ["mapping", _name(type(value)), [[self._describe(k), self._describe(v)] for k, v in value.items()]]
        if isinstance(value, list | tuple):
            return [_name(type(value)), [self._describe(entry) for entry in value]]
        if isinstance(value, set | frozenset):
            return ["set", sorted(json.dumps(self._describe(entry)) for entry in value)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self._describe, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", self._describe(value.__self__), self._describe(value.__func__)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            return ["function", getattr(value, "__module__", None), value.__name__]
        if isinstance(value, logging.Logger):  # what it says changes no voxel
            return ["logger", value.name]
        return self._object(value)

    def _function(self, function: types.FunctionType) -> Any:
        if (number := self._seen(function)) is not None:
            return number
        try:
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            values: list[Any] = [function.__defaults__, function.__kwdefaults__, cells]
            outside = [] if is_library(function.__module__ or "") else list(referred(function))
        except (NameError, ValueError) as error:  # not imported yet, or a cell that is still empty
            raise Unknown(f"the function {_name(function)}, which reads what does not exist yet ({error})") from None
        about = [_name(function), source(function.__module__ or ""), self._code(function.__code__)]
        return ["function", *about, *map(self._describe, values), self._named(outside)]

    def _seen(self, code: Any) -> Any:
        for number, known in enumerate(self._code_seen):
            if known is code:
                return ["seen", number]
        self._code_seen.append(code)
        return None

    def _named(self, values: Iterable[tuple[str, Any]]) -> Any:
        modules = types.ModuleType
        return [[n, ["module", v.__name__] if isinstance(v, modules) else self._describe(v)] for n, v in values]

    def _classes(self, kind: type) -> Any:
        """The attributes and methods of the classes of one's own among a class and those that it is made of."""
        own = [one for one in kind.__mro__ if not is_library(one.__module__)]
        try:
            return [self._seen(one) or [_name(one), self._named(class_values(one))] for one in own]
        except TypeError as error:
            raise Unknown(f"an object of {_name(kind)}, a class with {error}") from None

    def _code(self, code: types.CodeType) -> Any:
        constants = [
            self._code(value) if isinstance(value, types.CodeType) else self._describe(value)
            for value in code.co_consts
        ]
        return [code.co_code.hex(), list(code.co_names), constants]

    def _object(self, value: Any) -> Any:
        if not hasattr(value, "__dict__") or isinstance(value, types.ModuleType | np.random.RandomState):
            raise Unknown(f"a {_name(type(value))}")
        if isinstance(value, Transform) and not any(value is known for known in self.transforms):
            self.transforms.append(value)
        attributes = [
            [name, self._describe(entry)]
            for name, entry in sorted(vars(value).items())
            if not isinstance(entry, threading.local)  # whether MONAI traces in this thread
        ]
        kind = type(value)
        return ["object", _name(kind), source(kind.__module__), attributes, self._classes(kind)]


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # not needed by what is installed
        return None


@functools.cache
def _own_source() -> str:
    """Of the rooms here that read and compute voxels: what one of their modules does depends on the others'."""
    root = Path(__file__).parents[1]
    files = [path for pattern in _OWN_SOURCES for path in sorted(root.glob(pattern))]
    return digest([[path.name, file_digest(path)] for path in files])


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # a null character
        return False


class Source:
    """An item before its preparation: what in it decides about the result.

    Args:
        item: as `pipeline.data.data_list` makes them: text, numbers, and mappings and lists of them.
        digests: of the files that it names.

    Attributes:
        content: of it all, with files by their name and digest: the folder that holds a dataset does not matter.
        texts: files as the item names them, in order.

    Raises:
        Unknown: something else in it, or a folder: its content is not looked at.
        OSError: a file that can't be read.
    """

    def __init__(self, item: Mapping[str, Any], digests: FileDigests) -> None:
        self._digests = digests
        self.texts: list[str] = []
        self._states: list[tuple[Path, str]] = []
        self.content = self._describe(item)

    def is_unchanged(self) -> bool:
        """Whether no file has changed since this was made."""
        try:
            return all(file_state(path) == state for path, state in self._states)
        except OSError:  # one is gone
            return False

    def _describe(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, Mapping):
            return {"mapping": [[str(key), self._describe_entry(key, entry)] for key, entry in value.items()]}
        if isinstance(value, list | tuple):
            return [type(value).__name__, [self._describe(entry) for entry in value]]
        if isinstance(value, str | os.PathLike):
            text = os.fspath(value)
            path, _ = section_of(text)
            if not _is_file(str(path)):
                if text and path.is_dir():
                    raise Unknown("a folder")
                return text
            self.texts.append(text)
            self._states.append((path, file_state(path)))  # before its content is looked at
            return {"file": [type(value).__name__, os.path.basename(text), self._digests(path)]}
        if isinstance(value, np.generic | np.ndarray) and not value.dtype.hasobject:
            return ["array", value.dtype.str, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
        raise Unknown(f"a {_name(type(value))}")

    def _describe_entry(self, key: Any, entry: Any) -> Any:
        # Not files, even where the working directory holds one of that name.
        return entry if key in _NAMES and isinstance(entry, str) else self._describe(entry)
