"""`CaseCache`: prepared cases on disk, shared by the workers of a run, by the ranks of a machine and by runs.

The folder holds patients' data. It is its owner's alone (mode 0700), and no name in it says whose they are::

    prepared-cases/
      <key>.case     one prepared case, see `pipeline.data.cache_entry`; its time of change is that of its last use
      digests        what the input files' digests were, see `pipeline.data.cache_key`
      <random>.lease the keys that a running process uses, locked by it for as long as it lives

A key stands for the bytes of the input files, the other entries of the item, and the deterministic head of the
transforms. So nothing is ever out of date: what changed has another key, and what is no longer asked for is evicted,
the least recently used first, when the folder reaches its limit. Entries are written under another name and renamed:
two processes that prepare the same case write the same entry, and the later one stays.

Nothing here ends a run. A damaged entry is prepared again; where nothing can be written (a full disk, a quota, a folder
of someone else's) that is said once, and cases stay in memory as far as they fit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.cache_entry import Damaged, Encoder, NotKept, read_entry, read_header, write_entry
from pipeline.data.cache_key import HeadDescription, Source, Unknown, digest
from pipeline.data.cache_lease import Lease, leased_keys
from pipeline.data.file_digests import FileDigests
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "PIPELINE_CACHE"
LIMIT_VARIABLE = "PIPELINE_CACHE_GIB"

_FORMAT = 1
_DAY_S = 86_400.0
_SHARE_OF_FREE, _MOST_BYTES = 0.2, 50 << 30
_COUNT_EVERY_S = 5.0


def cache_folder(cache_dir: str | os.PathLike[str] | None, kind: str = "prepared-cases") -> Path | None:
    """The folder that a config's ``cache_dir`` means.

    Args:
        cache_dir: a folder; ``"auto"`` for the one that the environment variable PIPELINE_CACHE names (no cache where
            it is empty), or else the user's cache folder; None for no cache.
        kind: of what is kept, a folder of its own within.
    """
    if cache_dir == "auto":
        cache_dir = os.environ.get(FOLDER_VARIABLE, _user_cache_folder())
    if cache_dir is None or not os.fspath(cache_dir):
        return None
    return Path(cache_dir).expanduser().absolute() / kind


def _user_cache_folder() -> str:
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return f"{base}/monai-volume-pipeline"


@dataclass(frozen=True)
class Kept:
    """A prepared case on disk: its key, and the files that its item names, in order."""

    key: str
    texts: list[str]


class CaseCache:
    """Cases that one chain's head prepared.

    Args:
        folder: as `cache_folder` gives it; made where it is missing.
        head: the deterministic transforms.
        limit_bytes: of the whole folder; by default PIPELINE_CACHE_GIB, or else a fifth of the disk that is free or
            already the folder's, and 50 GiB at most.

    Raises:
        ConfigError: PIPELINE_CACHE_GIB is no number.
        OSError: the folder can't be made or written.
        Unknown: a transform that can't be described.
    """

    def __init__(self, folder: Path, head: Sequence[Any], limit_bytes: int | None = None) -> None:
        self.folder = folder
        self._head = HeadDescription(head)
        self._numbers = {id(transform): number for number, transform in enumerate(self._head.transforms)}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        self._lease: Lease | None = Lease(folder)
        self._digests = FileDigests(folder / "digests")
        self._used, self._counted = sum(size for _, size, _ in _entries(folder)), time.monotonic()
        self.limit_bytes = _limit(folder, self._used) if limit_bytes is None else limit_bytes
        self._writes, self._added = True, 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # To a worker that does not share memory with this process, which keeps the lease.
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_lease", "_numbers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._lease = threading.Lock(), None
        self._numbers = {id(transform): number for number, transform in enumerate(self._head.transforms)}

    @property
    def summary(self) -> str:
        """How many cases this has added, how full the folder is, and how to have another limit or none of it."""
        sizes = f"{self._used / 2**30:.2f} GiB there of at most {self.limit_bytes / 2**30:.3g} GiB"
        return f"{self._added} of them new; {sizes} ({LIMIT_VARIABLE}=<GiB>; none are kept with cache_dir=null)"

    def fetch(self, item: Mapping[str, Any], prepare: Callable[[], Any]) -> tuple[Kept | None, Any]:
        """Look for a prepared case, or prepare and keep it.

        Args:
            item: before its preparation.
            prepare: what the head makes of it; whatever it raises is passed on.

        Returns:
            Where it is kept, and None; or, where it could not be, None and the prepared item.
        """
        try:
            source = Source(item, self._digests)
        except Unknown as reason:
            self._stop(f"an item holds {reason}, so that what it stands for can't be told")
            return None, prepare()
        except OSError:  # a file that can't be read: the loader says so, with what to do
            return None, prepare()
        kept = Kept(digest([_FORMAT, self._head.digest, source.content]), source.texts)
        if self._lease is not None:
            self._lease.add(kept.key)
        if self._has(kept):
            return kept, None
        prepared = prepare()
        if not source.is_unchanged():  # which content was prepared is not known
            return None, prepared
        return (kept, None) if self._keep(kept, prepared) else (None, prepared)

    def open(self, kept: Kept, verify: bool) -> Any:
        """A prepared case, mapped: what is written to it stays in this copy. None where it is gone or damaged.

        Args:
            kept: as `fetch` gave it.
            verify: read it as a whole once, and compare its checksum.
        """
        try:
            return read_entry(self._path(kept.key), kept.texts, self._head.transforms, verify)
        except FileNotFoundError:
            logger.warning("A prepared case is gone from %s; it is prepared again.", self.folder)
        except (Damaged, OSError) as reason:
            self._discard(kept.key, reason)
        return None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.case"

    def _has(self, kept: Kept) -> bool:
        path = self._path(kept.key)
        try:
            paths = read_header(path)["paths"]
        except FileNotFoundError:
            return False
        except (Damaged, OSError) as reason:
            self._discard(kept.key, reason)
            return False
        with contextlib.suppress(OSError):  # without it the entry seems older than it is, no more
            os.utime(path)
        return paths in (None, digest(kept.texts))

    def _discard(self, key: str, reason: Exception) -> None:
        logger.warning("Damaged: a prepared case in %s (%s); it is prepared again.", self.folder, reason)
        with contextlib.suppress(OSError):  # a folder that can't be written: `_keep` says so
            self._path(key).unlink()

    def _keep(self, kept: Kept, prepared: Any) -> bool:
        if not self._writes:
            return False
        encoder = Encoder({text: number for number, text in enumerate(kept.texts)}, self._numbers)
        try:
            structure = encoder.encode(prepared)
        except NotKept as reason:
            self._stop(f"a prepared case holds {reason}, which a file can't give back")
            return False
        # A text that mentions a file among other words is right only as long as the file stays where it is.
        mentioned = any(text in other for other in encoder.other_texts for text in kept.texts)
        about = {"paths": digest(kept.texts) if mentioned else None}
        temporary = self.folder / f"{uuid.uuid4().hex}.tmp"
        try:
            if not self._make_room(sum(array.nbytes for array in encoder.arrays)):
                return False
            # No fsync: what a crash leaves half written has a wrong length or checksum, and is prepared again.
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                write_entry(file, structure, encoder.arrays, about)
            os.replace(temporary, self._path(kept.key))
        except OSError as error:
            self._stop(f"{self.folder} can't be written ({error.strerror or error})")
            return False
        finally:
            with contextlib.suppress(OSError):  # renamed, or never made
                temporary.unlink()
        with self._lock:
            self._added += 1
        return True

    def _make_room(self, needed: int) -> bool:
        with self._lock:
            self._used += needed
            if self._used <= self.limit_bytes and time.monotonic() - self._counted < _COUNT_EVERY_S:
                return True
            entries = sorted(_entries(self.folder))  # what other processes have written counts too
            self._used, self._counted = sum(size for _, size, _ in entries) + needed, time.monotonic()
            if self._used > self.limit_bytes:
                self._evict(entries)
            if self._used <= self.limit_bytes:
                return True
        self._stop(
            f"{self.folder} has reached its limit of {self.limit_bytes / 2**30:.3g} GiB with cases that are in use "
            f"(to set it: {LIMIT_VARIABLE}=<GiB>)"
        )
        return False

    def _evict(self, entries: Sequence[tuple[float, int, Path]]) -> None:
        leased = leased_keys(self.folder)
        for _, size, path in entries:
            if self._used <= self.limit_bytes:
                break
            if path.stem not in leased:
                path.unlink(missing_ok=True)
                self._used -= size

    def _stop(self, reason: str) -> None:
        with self._lock:
            said, self._writes = not self._writes, False
        if not said:
            logger.warning("No further case is kept on disk: %s. Cases stay in memory as far as they fit.", reason)


def _limit(folder: Path, used: int) -> int:
    text = os.environ.get(LIMIT_VARIABLE)
    if text is None:
        return min(int(_SHARE_OF_FREE * (shutil.disk_usage(folder).free + used)), _MOST_BYTES)
    try:
        return int(float(text) * 2**30)
    except ValueError:
        raise ConfigError(f"{LIMIT_VARIABLE}={text}", expected="a number of GiB") from None


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use, bytes and path of every entry. What a process that was killed left half written is removed."""
    with os.scandir(folder) as found:
        for entry in found:
            try:
                stat = entry.stat()
                if entry.name.endswith(".case"):
                    yield stat.st_mtime, stat.st_size, Path(entry.path)
                elif entry.name.endswith(".tmp") and time.time() - stat.st_mtime > _DAY_S:
                    os.unlink(entry.path)
            except FileNotFoundError:  # another process was faster
                continue
