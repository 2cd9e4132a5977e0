"""The words that several commands share: arguments and options with their help, and how their text is read."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError

Bundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's or a run's folder, or the name of a shipped bundle.")
]
Dataset = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DATASET",
        help="A folder per case whose files end in the channel names, a Decathlon, nnU-Net, BIDS or ISLES folder, or a "
        "list of cases (CSV, JSON).",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How the dataset lies on disk, where that is not recognised: list, decathlon, nnunet, bids, isles18, "
        "isles22, isles24, images_labels, folders.",
    ),
]
Pseudonyms = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A CSV file (id,pseudonym) with a line per case: names, tables, TensorBoard and run.json get the "
        "pseudonyms, and no id and no path of a case.",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights to use instead of the bundle's models/model.pt.")
]
Budget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Wall-clock time for training: 90s, 20m, 1h30m. Ends on time.")
]
Jobs = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Cases read at once (default: one per core, at most 8).")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="How files are read that do not say all they should: volume=0 (of a 4D series), assume_orientation=RAS, "
        "trust=sform, non_finite=zero, missing_channels=zero, spacing_limits_mm, colour=grey.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values to change in the bundle's config; nested keys with # or ::.",
        show_default=False,
    ),
]

_TIME = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?")


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``20m`` or ``1h30m``.

    >>> seconds("1h30m")
    5400.0

    Raises:
        ConfigError: no unit (is 20 twenty seconds or twenty minutes?), no number, or no time at all.
    """
    match = _TIME.fullmatch(text)
    amounts = {unit: int(number) for unit, number in match.groupdict().items() if number} if match else {}
    total = 3600 * amounts.get("h", 0) + 60 * amounts.get("m", 0) + amounts.get("s", 0)
    if not total:
        fix = f"write {text}m for minutes or {text}s for seconds" if text.isdecimal() and int(text) else None
        raise ConfigError(f"the time '{text}'", expected="hours, minutes, seconds such as 90s, 20m or 1h30m", fix=fix)
    return float(total)


def typed(*words: str | Path) -> str:
    """A command line to copy: a word with a space in it stands in quotes.

    >>> typed("pipeline", "predict", "my run", "scans")
    "pipeline predict 'my run' scans"
    """
    return shlex.join(map(str, words))


def path_with_spaces(given: Iterable[Any], rest: str) -> str | None:
    """What to write where an argument and the words after it are one path; None where there is no such path."""
    paths = (f"{value} {rest}" for value in given if isinstance(value, str | Path))
    meant = next(filter(os.path.exists, paths), None)
    return f"put the path with spaces in quotes: {shlex.quote(meant)}" if meant else None


def overrides(
    words: Sequence[str] | None,
    layout: str | None = None,
    pseudonyms: Path | None = None,
    paths: Iterable[Path | str | None] = (),
) -> tuple[str, ...]:
    """The ``KEY=VALUE`` words, checked for their form; whether a key exists, the bundle decides.

    >>> overrides(["max_epochs=50"], layout="bids")
    ('max_epochs=50', 'layout="bids"')

    Args:
        words: as typed.
        layout, pseudonyms: options that stand for the keys of the same names.
        paths: the command's others, of which a word may be a part whose quotes are missing.

    Raises:
        ConfigError: a word without ``=`` or without a key.
    """
    for word in words or ():
        if not word.partition("=")[0] or "=" not in word:
            fix = path_with_spaces(paths, " ".join(words or ())) or "put a path or a value with spaces in quotes"
            raise ConfigError(f"the word '{word}'", expected="KEY=VALUE, such as max_epochs=50", fix=fix)
    said = {"layout": layout, "pseudonyms": None if pseudonyms is None else str(pseudonyms)}
    quoted = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in said.items() if value is not None]
    return (*(words or ()), *quoted)


def names(text: str, option: str) -> list[str]:
    """Read names with commas between them.

    >>> names("ct, pet", "--channels")
    ['ct', 'pet']

    Raises:
        ConfigError: an empty name, or one twice, in capitals or not.
    """
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len({name.lower() for name in found}) < len(found):
        raise ConfigError(f"{option} {text}", expected="names with commas between them, each once")
    return found


def classes(text: str) -> dict[int, str]:
    """Read classes such as ``1=core,2=penumbra``, or ``core,penumbra`` for 1 and 2.

    >>> classes("core,penumbra"), classes("255=cell")
    ({1: 'core', 2: 'penumbra'}, {255: 'cell'})

    Raises:
        ConfigError: another form, a value below 1, a value or a name twice.
    """
    words = names(text, "--classes")
    if not any("=" in word for word in words):
        return dict(enumerate(words, 1))
    pairs = [word.partition("=") for word in words]
    if not all(value.strip().isdecimal() and int(value) > 0 and name.strip() for value, _, name in pairs):
        raise ConfigError(
            f"--classes {text}", expected="VALUE=NAME with commas between them, such as 1=core,2=penumbra"
        )
    found = {int(value): name.strip() for value, _, name in pairs}
    if len(found) < len(pairs) or len({name.lower() for name in found.values()}) < len(pairs):
        raise ConfigError(f"--classes {text}", expected="each value and each name once")
    return found


def with_setting(refusals: Iterable[str], given: Iterable[str] = ()) -> str | None:
    """What to type where refusals name a setting that would take the cases as they are; None where none does.

    A refusal that names two leaves the choice to the reader, and one that is there already has not helped.

    >>> with_setting(["found an image in colour; to fix it: save it, or: colour=grey"])
    'To take them so: the same command with colour=grey at its end'
    >>> with_setting(["to fix it: find out which is right, then trust=sform or trust=qform"])
    >>> with_setting(["to fix it: volume=0 is the first"], given=["volume=0"])
    """
    from pipeline.io.policy import ReadPolicy

    setting = re.compile(rf"\b(?:{'|'.join(field.name for field in fields(ReadPolicy))})=\w+")
    keys = {word.partition("=")[0] for word in given}
    for refusal in refusals:
        named = set(setting.findall(refusal.partition("to fix it: ")[2]))
        if len(named) == 1 and (found := named.pop()).partition("=")[0] not in keys:
            return f"To take them so: the same command with {found} at its end"
    return None
