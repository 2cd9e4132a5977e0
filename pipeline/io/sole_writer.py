"""One process, or one group of processes, at a time writes into a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from pipeline.errors import DataError
from pipeline.io.stream import cannot

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = ".being-written"


@contextlib.contextmanager
def sole_writer(folder: str | PathLike[str]) -> Iterator[None]:
    """Makes the folder and holds it while the body runs; however the process ends, it is free again.

    Where nothing can be locked (Windows, some network disks) it is free always.

    Raises:
        DataError: another process holds it, or it can't be written to.
    """
    path = Path(folder) / _NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(path)
    except BlockingIOError as error:
        raise DataError(
            "a folder that another process is writing into", file=folder, fix="wait for its end, or choose another"
        ) from error
    except OSError as error:
        raise cannot(error, Path(folder), "written") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder was removed
            path.unlink()
        os.close(handle)


def _locked(path: Path) -> int:
    """An open handle on the file that has this name and is locked by nobody else."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is None:
                return handle
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks
                return handle
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it has removed it meanwhile: the name is another file's now, or nobody's
