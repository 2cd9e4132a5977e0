"""What is said of a dataset, once however often it is listed: for its headers, for training, for validation."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_said: set[tuple[Path | None, str]] = set()


def say_once(logger: logging.Logger, level: int, text: str, root: Path | None = None) -> None:
    """Once per process.

    Args:
        root: the dataset; of one that is named in two ways, it is said by the name that came first.
    """
    key: tuple[Path | None, str] = (None, text)
    if root is not None:
        key = root.resolve(), text.removeprefix(str(root)).replace(f"{root}{os.sep}", "")
    if key not in _said:
        _said.add(key)
        logger.log(level, "%s", text)
