"""What a run was made of, so that it can be told later: digests of its files, versions, hardware, the command.

Nothing here names a person, a machine or a folder, except a command, whose words are those that were typed; under
pseudonyms its paths are left out. Digests are SHA-256, the first 40 hexadecimal digits.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.data.file_digests import FileDigests, file_digest

RECORD = "run.json"
_PACKAGES = ("monai-volume-pipeline", "torch", "monai", "pytorch-ignite", "nibabel", "SimpleITK", "numpy", "scipy")
_OF_A_RUN = ("configs/*.json", "models/*.pt", "models/*.json", "*.csv", "*.json")
"""The files of a run that are complete when it ends; TensorBoard's events and checkpoints are not."""


def environment() -> dict[str, Any]:
    """Versions and hardware of this process, without names of people, machines or folders."""
    torch = sys.modules.get("torch")  # a command that needs no torch is not to load it for this
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "versions": versions | {"torch": _torch_version(), "python": platform.python_version()},
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }


def command_line(pseudonymous: bool = False) -> list[str]:
    """The words that started this process; under pseudonyms, ``<path>`` for whatever leads to a file or a folder."""
    words = [_without_path(word) for word in sys.argv[1:]] if pseudonymous else sys.argv[1:]
    started_as = getattr(sys.modules.get("__main__"), "__spec__", None)
    if started_as is None:
        return [Path(sys.argv[0]).name, *words]
    module = started_as.name.removesuffix(".__main__")
    return [*([module] if module == "pipeline" else ["python", "-m", module]), *words]


def input_digests(
    items: Iterable[Mapping[str, Any]], digest: Callable[[Path], str] = file_digest
) -> dict[str, dict[str, str]]:
    """Case id -> channel, or ``label`` -> digest of its file.

    Args:
        items: as `pipeline.data.data_list` makes them.
        digest: of a file.
    """
    from pipeline.io import section_of  # importing the image libraries takes longer than what most need of this file

    files: dict[tuple[str, str], Path] = {}
    for item in items:
        paths = dict(item["image"]) | ({"label": item["label"]} if item.get("label") else {})
        for name, path in paths.items():
            files[str(item["case_id"]), name] = section_of(path)[0]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = dict(zip(files, pool.map(lambda path: _or_reason(path, digest), files.values()), strict=True))
    result: dict[str, dict[str, str]] = {}
    for (case_id, name), value in found.items():
        result.setdefault(case_id, {})[name] = value
    return result


def known_digests() -> Callable[[Path], str]:
    """`file_digest`, or, where cases are kept on disk, one that knows the files that were read for that."""
    from pipeline.data.cache import cache_folder

    folder = cache_folder("auto")
    return FileDigests(folder / "digests") if folder is not None and folder.is_dir() else file_digest


def run_digests(run_dir: Path) -> dict[str, str]:
    """Name below the run's folder -> digest, of the files that are complete when a run ends."""
    files = sorted({file for pattern in _OF_A_RUN for file in run_dir.glob(pattern) if file.name != RECORD})
    return {file.relative_to(run_dir).as_posix(): file_digest(file) for file in files}


def bundle_identity(folder: Path) -> dict[str, Any]:
    """A bundle's name, version, and the digests of its configs."""
    described = folder / "configs" / "metadata.json"
    version = json.loads(described.read_text(encoding="utf-8")).get("version") if described.is_file() else None
    configs = {file.name: file_digest(file) for file in sorted((folder / "configs").glob("*.json"))}
    return {"name": folder.resolve().name, "version": version, "configs": configs}


def weights_identity(weights: str | Path | Sequence[str | Path], pseudonymous: bool = False) -> list[dict[str, Any]]:
    """The digest of each file of weights, and where it lies; under pseudonyms its name alone."""
    files = [Path(weights)] if isinstance(weights, str | Path) else [Path(file) for file in weights]
    return [
        {
            "file": file.name if pseudonymous else str(file.absolute()),
            "digest": file_digest(file) if file.is_file() else None,
        }
        for file in files
    ]


def _or_reason(path: Path, digest: Callable[[Path], str]) -> str:
    try:
        return digest(path)
    except OSError as error:  # the case is refused by name where it is read
        return f"unreadable ({error.strerror or type(error).__name__})"


def _without_path(word: str) -> str:
    key, equals, value = word.partition("=")
    leads = [os.sep in text or os.path.exists(text) for text in (word, value) if text]
    if not any(leads) or (word.startswith("-") and not equals):
        return word
    return f"{key}=<path>" if equals and os.sep not in key else "<path>"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return None


def _torch_version() -> str | None:
    """With its build (+cpu, +cu130), which its package's metadata may leave out; torch is not loaded for it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    return str(runpy.run_path(str(Path(found.origin).with_name("version.py")))["__version__"])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
