"""Previewing a bundle's augmentation on a case of a dataset, before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.build import resolve
from pipeline.bundle.find import find_bundle
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.transforms.preview import Preview


@dataclass(frozen=True)
class PreviewedCase:
    """A case, and what the bundle's random steps do to it.

    Args:
        case_id: which case.
        bundle: the bundle's name.
        channel: name and index of the image's channel that is shown.
        preview: the panels.
    """

    case_id: str
    bundle: str
    channel: tuple[str, int]
    preview: Preview


def preview_case(
    bundle: str | Path,
    data: str | Path,
    *,
    case: str | None = None,
    channel: str | None = None,
    seed: int = 0,
    draws: int = 60,
    overrides: Sequence[str] = (),
) -> PreviewedCase:
    """Prepare one case as a training does, and draw what it would see of it.

    Args:
        bundle: a bundle's folder or the name of a shipped one.
        data: the dataset's folder.
        case: its id; by default the first one's.
        channel: by whose changes draws are ordered; by default the first one.
        seed: of the draws.
        draws: of each step, from which a weak, a typical and a strong one are shown.
        overrides: ``KEY=VALUE`` strings.

    Raises:
        ConfigError: a case or a channel that there is not, or a chain without random steps.
    """
    if any(text.startswith("dataset_dir=") for text in overrides):
        raise ConfigError("dataset_dir on the command line", fix="use --data DATASET")
    folder = find_bundle(bundle)
    config = resolve(folder, "train", overrides=overrides)
    try:
        references = config["train"]["preprocessing"]["transforms"]
        # MONAI writes :: where # was read, so a run's own configs have that
        steps = [str(reference).replace("::", "#").removeprefix("@train#steps#") for reference in references]
        config["train"]["dataset"]["data"] |= {"part": "all"}
    except (KeyError, TypeError) as error:
        found = f"{folder.name} without named steps of its training"
        raise ConfigError(found, expected="a bundle that is built as this package's are") from error
    channels = [str(name).lower() for name in config["channels"]]
    name = channels[0] if channel is None else channel.lower()
    if name not in channels:
        raise ConfigError(f"the channel {channel!r}", expected=f"one of {', '.join(channels)}")
    config["dataset_dir"] = str(Path(data).resolve())
    from monai.bundle import ConfigParser
    from monai.transforms import Compose, Randomizable

    from pipeline.transforms.preview import preview

    parser = ConfigParser(config)
    parser.parse()
    items = {item["case_id"]: item for item in parser.get_parsed_content("train#dataset#data")}
    case_id = next(iter(items)) if case is None else case
    if case_id not in items:
        near = difflib.get_close_matches(case_id, items, n=1)
        fix = f"did you mean {near[0]}?" if near else f"the dataset's ids are such as {', '.join(list(items)[:3])}"
        raise ConfigError(f"the case {case_id!r}", expected=f"one of {len(items)}", fix=fix)
    built: dict[str, Any] = {step: parser.get_parsed_content(f"train#steps#{step}") for step in steps}
    first = next((index for index, step in enumerate(steps) if isinstance(built[step], Randomizable)), len(steps))
    item = Compose([built[step] for step in steps[:first]])(items[case_id])
    shown = preview(item, {step: built[step] for step in steps[first:]}, channels.index(name), draws, seed)
    return PreviewedCase(case_id, folder.name, (name, channels.index(name)), shown)
