"""The layout of the Medical Segmentation Decathlon: a ``dataset.json`` that lists image and label of each case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import DataError


def decathlon_entries(
    root: Path, channels: Sequence[str], with_test: bool
) -> list[tuple[str, dict[str, list[Path]], Path]]:
    """(case id, files per name, relative folder) for each entry of ``training``, and of ``test`` where asked.

    ``image`` is a path where ``modality`` (or ``channel_names``) names one channel; where it names several, a dict of
    them.

    Raises:
        DataError: not JSON, other channels than asked for, or entries whose files do not exist: all of them are listed.
    """
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"a dataset.json that can't be read ({error})", file=file, expected="JSON") from error
    named = content.get("modality") or content.get("channel_names") or {} if isinstance(content, dict) else {}
    modalities = [str(name).lower() for name in (named.values() if isinstance(named, dict) else named)]
    if not set(channels) <= set(modalities):
        raise DataError(
            f"a dataset with the channels {', '.join(modalities) or '(none named)'}",
            file=file,
            expected=f"{', '.join(channels)}, which this bundle reads",
            fix='correct "modality" in dataset.json if it is only named otherwise',
        )
    entries = list(content.get("training") or [])
    if with_test:
        entries += [entry if isinstance(entry, dict) else {"image": entry} for entry in content.get("test") or []]
    cases, problems = [], []
    for number, entry in enumerate(entries):
        image = entry.get("image") if isinstance(entry, dict) else None
        if isinstance(image, str) and len(modalities) == 1:
            image = {modalities[0]: image}
        if not isinstance(image, dict) or not all(isinstance(path, str) for path in image.values()):
            problems.append(f"entry {number}: no path per channel")
            continue
        files = {str(name).lower(): [root / path] for name, path in image.items()}
        if entry.get("label"):
            files["label"] = [root / entry["label"]]
        problems += [f"{path}: no such file" for (path,) in files.values() if not path.is_file()]
        first = files.get(channels[0], next(iter(files.values())))[0]
        folder = first.parent.resolve()
        # a dataset.json may point outside its folder; a result may not
        relative = folder.relative_to(root.resolve()) if folder.is_relative_to(root.resolve()) else Path()
        cases.append((_case_id(first, channels[0]), files, relative))
    if problems:
        raise DataError(
            f"{len(problems)} wrong entries:\n  " + "\n  ".join(problems) + "\n",
            file=file,
            expected="existing files",
            fix="copy what is missing, or take these entries out",
        )
    return cases


def _case_id(path: Path, channel: str) -> str:
    stem = path.name[: -len("".join(path.suffixes[-2:]))] if path.name.lower().endswith(".gz") else path.stem
    if stem.lower() == channel:  # folder per case: the folder is the id
        return path.parent.name
    return stem[: -len(channel) - 1] if stem.lower().endswith(("_" + channel, "-" + channel)) else stem
