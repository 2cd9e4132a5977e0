"""Where the shipped configs and bundles lie, and how a bundle's name becomes its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.errors import BundleError

_PACKAGE = Path(__file__).resolve().parents[1]


def _shipped(folder: str) -> Path:
    # The wheel's own copy comes first: beside an installed package lies site-packages, where a `configs` may be
    # anyone's.
    for root in (_PACKAGE / "_shipped", _PACKAGE.parent):
        if (root / folder).is_dir():
            return root / folder
    raise BundleError(
        f"no shipped {folder}",
        expected=f"{_PACKAGE.parent / folder} in a checkout, {_PACKAGE / '_shipped' / folder} in an installed wheel",
        fix="install the package again",
    )


def shipped_configs() -> Path:
    """The folder of the base configs that every bundle shares."""
    return _shipped("configs")


def shipped_bundles() -> Path:
    """The folder that holds the shipped bundles, one folder each."""
    return _shipped("bundles")


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is a bundle: it has a ``configs`` folder with a hand-written delta or with generated JSON."""
    configs = folder / "configs"
    return (configs / "bundle.yaml").is_file() or any(configs.glob("*.json"))


def find_bundle(name_or_path: str | PathLike[str]) -> Path:
    """The folder of a bundle.

    Args:
        name_or_path: a path to a bundle's folder, or the name of a shipped bundle. A path wins over a name.

    Raises:
        BundleError: neither is there; names the nearest bundles, shipped or beside the path, and lists the shipped.
    """
    path = Path(name_or_path).expanduser()
    if is_bundle(path):
        return path.resolve()
    shipped = {folder.name: folder for folder in sorted(shipped_bundles().iterdir()) if is_bundle(folder)}
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise BundleError(
            "a folder that is no bundle", file=path, expected="configs/bundle.yaml, or JSON files in configs/"
        )
    beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK | os.X_OK) and path.parent.is_dir() else []
    close = (path.with_name(name) for name in get_close_matches(path.name, beside, n=3))
    near = [str(folder) for folder in close if os.access(folder, os.X_OK) and is_bundle(folder)]
    near += [name for name in get_close_matches(path.name, shipped, n=3) if name not in map(os.path.basename, near)]
    mine = name.isidentifier() and not near
    raise BundleError(
        f"no bundle {name!r}" + (f" (nearest: {', '.join(near)})" if near else ""),
        expected=f"a bundle's or a run's folder, or a shipped bundle: {', '.join(shipped) or 'none is shipped'}",
        fix=f"a bundle for your own scans is made by: pipeline init DATASET {name}" if mine else None,
    )


def recorded_bundle(record: Mapping[str, Any]) -> Path | None:
    """The folder of the bundle that a run was made with; None where it is of another machine, or gone.

    A run that was itself predicted with is a bundle that no name leads to, but its weights do.

    Args:
        record: the run's ``run.json``.
    """
    name = (record.get("bundle") or {}).get("name")
    if name is None:
        return None
    for weights in record.get("weights") or ():
        folder = Path(weights["file"]).parent.parent
        if folder.is_absolute() and folder.name == name and is_bundle(folder):
            return folder
    try:
        return find_bundle(name)
    except BundleError:
        return None
