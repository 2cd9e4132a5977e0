"""Two folders, ``images`` and ``labels``, that hold files of the same names; and stacks of sections in one file.

``images/00.png`` and ``labels/00.png`` are case ``00``. A bundle of several channels looks for
``images/00_<channel>.png`` each, and ``labels/00.png``. Folders below ``images`` are kept: ``images/fish/00.png``
belongs to ``labels/fish/00.png`` and is case ``fish_00``.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import DataError

logger = logging.getLogger(__name__)

Entry = tuple[str, dict[str, list[Path]], Path]
IMAGES, LABELS = "images", "labels"


def image_label_entries(root: Path, channels: Sequence[str], suffixes: Sequence[str]) -> list[Entry]:
    """(case id, files per name, folder below ``images``) of every case.

    Args:
        suffixes: of the files that count, in lower case; the longest first where one ends in another.
    """
    labels = {(folder, stem): path for path, folder, stem in _files(root / LABELS, suffixes)}
    found: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, folder, stem in _files(root / IMAGES, suffixes):
        channel = next((name for name in channels if stem.lower().endswith((f"_{name}", f"-{name}"))), None)
        if channel is not None and (folder, stem) not in labels:  # `00_em.png` with `labels/00_em.png` is case 00_em
            stem = stem[: -len(channel) - 1]
        elif len(channels) > 1:
            continue
        found[folder, stem][channel or channels[0]].append(path)
    cases = []
    for (folder, stem), files in found.items():
        if (folder, stem) in labels:
            files["label"] = [labels[folder, stem]]
        cases.append(("_".join((*folder.parts, stem)), dict(files), folder))
    return cases


def _files(folder: Path, suffixes: Sequence[str]) -> list[tuple[Path, Path, str]]:
    """(file, its folder below ``folder``, its name without the suffix), hidden ones left out, sorted."""
    result = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        suffix = next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)
        below = path.relative_to(folder)
        if suffix is not None and path.is_file() and not any(part.startswith(".") for part in below.parts):
            result.append((path, below.parent, path.name[: -len(suffix)]))
    return result


def each_section(entries: Sequence[Entry], label_names: Sequence[str]) -> list[Entry]:
    """One case per section where a TIFF file holds several: case ``stack`` becomes ``stack_000``, ``stack_001``...

    The number of sections stands in the file's header. Which section belongs to which is not known where the files of
    a case hold different numbers: a warning lists them, and every file that holds another number than the longest image
    is refused, with the case's name, when it is loaded (see `pipeline.io.section`); so is one without a readable
    header. The other cases go on, and so does a prediction from a whole image beside a label that was cut short.
    """
    from pipeline.io import count_sections  # image libraries take a while to import, and most datasets need none here

    cases: list[Entry] = []
    for case_id, files, folder in entries:
        stacks = [path for paths in files.values() for path in paths if path.suffix.lower() in (".tif", ".tiff")]
        counts: dict[Path, int | None] = {}
        for path in stacks:
            try:
                counts[path] = count_sections(path)
            except DataError:
                counts[path] = None
        numbers = {path: counts.get(path, 1) for paths in files.values() for path in paths}
        if all(number in (1, None) for number in numbers.values()):
            cases.append((case_id, files, folder))
            continue
        images = [path for name, paths in files.items() if name not in label_names for path in paths]
        total = max((numbers[path] or 0 for path in images), default=0)
        if total == 0:  # no image can be read: one case, refused when it is loaded
            cases.append((case_id, files, folder))
            continue
        ending = ""
        if len(set(numbers.values())) > 1:
            ending = f"of{total}"
            listed = ", ".join(
                f"{path.parent.name}/{path.name} {'no readable header' if number is None else number}"
                for path, number in numbers.items()
            )
            logger.warning("case %s has files of different numbers of sections: %s", case_id, listed)
        for number in range(total):
            one = {name: [Path(f"{path}#{number}{ending}") for path in paths] for name, paths in files.items()}
            cases.append((case_id if total == 1 else f"{case_id}_{number:03d}", one, folder))
    return cases
