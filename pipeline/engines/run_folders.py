"""Where a run writes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import ignite.distributed as idist

from pipeline.errors import DataError


def run_folder(output_dir: str, name: str | None = None) -> str:
    """The folder of this run, made: ``output_dir/name``, by default named after the moment it starts.

    So no run writes over another's files, nor over a bundle's published weights. ``name="."`` is ``output_dir`` itself,
    for a caller that has chosen the folder. All ranks of a distributed run get the first one's.
    """
    chosen = name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if idist.get_world_size() > 1:
        chosen = str(idist.broadcast(chosen, src=0))
    folder = Path(output_dir) / chosen
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{error.strerror} on making the run's folder", file=folder, fix="choose another with --out, or output_dir"
        ) from error
    return str(folder)
