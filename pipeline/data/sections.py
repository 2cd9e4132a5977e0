"""Stacks of sections in one TIFF file: a case per section."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.layouts import Entry
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


def each_section(entries: Sequence[Entry], name_files: bool = True) -> list[Entry]:
    """One case per section where a TIFF file holds several: case ``stack`` becomes ``stack_000``, ``stack_001``...

    The number of sections stands in the file's header. Which section belongs to which is not known where the files of
    a case hold different numbers: a warning lists them, and every file that holds another number than the longest image
    is refused, with the case's name, when it is loaded (see `pipeline.io.section`); so is one without a readable
    header. The other cases go on, and so does a prediction from a whole image beside a label that was cut short.
    """
    cases: list[Entry] = []
    for entry in entries:
        images = [path for paths in entry.image.values() for path in paths]
        numbers = {path: _count(path) for path in (*images, *entry.labels)}
        total = max((numbers[path] or 0 for path in images), default=0)
        if all(number in (1, None) for number in numbers.values()) or total == 0:
            cases.append(entry)  # where no image can be read: one case, refused when it is loaded
            continue
        ending = ""
        if len(set(numbers.values())) > 1:
            ending = f"of{total}"
            listed = ", ".join(
                f"{f'{path.parent.name}/{path.name} ' * name_files}{'no readable header' if number is None else number}"
                for path, number in numbers.items()
            )
            logger.warning("case %s has files of different numbers of sections: %s", entry.case_id, listed)
        for number in range(total):
            image = {name: _section(paths, number, ending) for name, paths in entry.image.items()}
            case_id = entry.case_id if total == 1 else f"{entry.case_id}_{number:03d}"
            cases.append(replace(entry, case_id=case_id, image=image, labels=_section(entry.labels, number, ending)))
    return cases


def _count(path: Path) -> int | None:
    """How many sections a file's header promises; None where it can't be read. Other files than TIFF hold one."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    from pipeline.io import count_sections  # image libraries take a while to import, and most datasets need none here

    try:
        return count_sections(path)
    except DataError:
        return None


def _section(paths: Sequence[Path], number: int, ending: str) -> list[Path]:
    return [Path(f"{path}#{number}{ending}") for path in paths]


def stacks_of(image_of: Mapping[str, Path]) -> dict[str, tuple[str, int]]:
    """Case id -> (id of its stack, number in it), of those cases that are sections of a stack; from an image each."""
    from pipeline.io import section_of

    stacks = {}
    for case_id, image in image_of.items():
        number = section_of(image)[1]
        stack = case_id.removesuffix(f"_{number or 0:03d}")
        if number is not None and stack != case_id:  # a file of one section keeps its id
            stacks[case_id] = (stack, number)
    return stacks
