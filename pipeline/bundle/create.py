"""A new bundle for a dataset: `create` looks at the dataset, plans, and writes a complete folder."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.build import build
from pipeline.bundle.find import is_bundle, shipped_bundles
from pipeline.bundle.render import DATA_LICENSE, bundle_yaml, dataset_table, metadata, readme
from pipeline.data.fingerprint import DatasetFingerprint
from pipeline.errors import BundleError, ConfigError, DataError
from pipeline.io.atomic import write_text

if TYPE_CHECKING:
    from pipeline.data import DatasetDescription
    from pipeline.planning import Plan
    from pipeline.planning.search import Instruments

logger = logging.getLogger("pipeline.bundle")

_SECTIONS = (".png", ".tif", ".tiff")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class NewBundle:
    """What was planned, and where it was written.

    Args:
        folder: of the bundle.
        plan: how it is set up.
        fingerprint: of the dataset.
        yaml: the text of its ``bundle.yaml``.
        table: the dataset's, Markdown.
    """

    folder: Path
    plan: Plan
    fingerprint: DatasetFingerprint
    yaml: str
    table: str


def describe(
    dataset: Path,
    channels: Sequence[str] | None = None,
    layout: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[DatasetDescription, str | None]:
    """What a dataset holds, by its names and headers alone; refused where no bundle can be made of it.

    Args:
        channels: names, the reference first; by default those that the dataset has, the best reference first.
        layout: as of `pipeline.data.describe_dataset`.
        settings: by which headers are read, as `pipeline.data.stack_rules.stack_rules` takes them.

    Returns:
        The description, and why its reference is another channel than the dataset's first (None where it is not).

    Raises:
        DataError: no volumes, or fewer than two cases with a label.
        ConfigError: an unknown layout, or a channel twice.
    """
    from pipeline.data import describe_dataset, describe_on_best_grid

    try:
        if channels is None:
            description, reference = describe_on_best_grid(dataset, layout, settings)
        else:
            description, reference = describe_dataset(dataset, channels, layout), None
    except DataError as error:
        if not dataset.is_dir() or not any(path.suffix.lower() in _SECTIONS for path in dataset.rglob("*")):
            raise
        raise DataError(
            f"a dataset of sections (PNG, TIFF): {error.found}",
            file=dataset,
            expected="volumes (NIfTI): init plans in 3D",
            fix="for sections, `pipeline build membrane_em_segmentation --out COPY`, or for objects with a number each "
            "nuclei_microscopy_segmentation, and change COPY/configs/bundle.yaml",
        ) from error
    labelled = sum(case.label is not None for case in description.cases)
    if labelled < 2:
        raise DataError(
            f"{len(description.cases)} case{'s' if len(description.cases) > 1 else ''} of the channels "
            f"{', '.join(description.channel_names)}, {labelled or 'none'} of them with a label",
            file=dataset,
            expected="at least two with a label: one to train on and one to validate on",
            fix="add cases with a label"
            if labelled == len(description.cases)
            else "put the label beside the images, under the same name with label, lesion or seg at the end",
        )
    return description, reference


def require_writable(folder: Path, force: bool = False) -> None:
    """Refuse a place for a bundle before any work.

    Raises:
        ConfigError: a name that a command line or a config could not take.
        BundleError: a bundle is there (without ``force``), with trained weights (always), or something else is.
    """
    if not _NAME.fullmatch(folder.resolve().name):
        raise ConfigError(
            f"the name {folder.name!r} for a bundle", expected="letters, digits, _ - . alone, such as liver_ct"
        )
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not is_bundle(folder)):
        raise BundleError("something that is no bundle", file=folder, fix="choose another name for the new bundle")
    if (folder / "models" / "model.pt").exists():
        raise BundleError(
            "a bundle with trained weights, which another plan would not fit",
            file=folder,
            fix="choose another name, or move its models folder away first",
        )
    if is_bundle(folder) and not force:
        raise BundleError("a bundle", file=folder, fix="choose another name, or replace it by --force")


def create(
    fingerprint: DatasetFingerprint,
    folder: Path,
    *,
    memory_gb: float | None = None,
    budget_s: float | None = None,
    classes: Mapping[int, str] | None = None,
    layout: str | None = None,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    dry_run: bool = False,
    instruments: Instruments | None = None,
    progress: Callable[[str], None] = lambda sentence: None,
) -> NewBundle:
    """Plan a bundle for a dataset and write it: whole, or not at all.

    Args:
        fingerprint: of the dataset, by `pipeline.data.fingerprint_dataset`.
        folder: of the bundle; its name is the bundle's.
        memory_gb, budget_s, classes, instruments, progress: of `pipeline.planning.plan`.
        layout: that the dataset was found by, where it was named instead of found out: its bundle goes on naming it.
        settings: with which its files were read: the bundle reads them so, too.
        force: replace a bundle that is there and has no weights.
        dry_run: write nothing.

    Raises:
        BundleError, ConfigError, DataError: as `require_writable` and `pipeline.planning.plan`.
    """
    if not dry_run:
        require_writable(folder, force)
    from pipeline.engines import device
    from pipeline.planning import plan

    kind = device("auto").type
    made = plan(
        fingerprint,
        "cuda" if kind == "cuda" else "cpu",
        memory_gb=memory_gb,
        budget_s=budget_s,
        classes=classes,
        instruments=instruments,
        progress=progress,
    )
    name = folder.resolve().name
    title = re.sub(r"[_-]+", " ", name).strip().capitalize()
    yaml = bundle_yaml(made, title, layout, settings)
    table = "\n".join(dataset_table(fingerprint, made.channels, made.classes, made.label_values))
    if not dry_run:
        source = f"the dataset {Path(fingerprint.dataset_dir).resolve().name}"
        files = {
            "configs/bundle.yaml": yaml,
            "configs/metadata.json": json.dumps(metadata(made, title, modality(made.channels), source), indent=2)
            + "\n",
            "docs/README.md": readme(made, fingerprint, title, name),
            "docs/data_license.txt": DATA_LICENSE,
            "LICENSE": _license(),
        }
        _write(folder, files)
    return NewBundle(folder, made, fingerprint, yaml, table)


def modality(channels: Sequence[str]) -> str:
    """For the metadata: CT, MR, PET, or several of them."""
    from pipeline.planning.intensities import kind_of

    names = {"CT": "CT", "MR": "MR", "an emission image": "PET", "a perfusion map": "perfusion"}
    return "/".join(dict.fromkeys(names.get(kind_of(channel) or "", "n/a") for channel in channels))


def _license() -> str:
    return next(shipped_bundles().glob("*/LICENSE")).read_text(encoding="utf-8")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, text in files.items():
            write_text(temporary / name, text)
        build(temporary)
        temporary.chmod(0o755)  # mkdtemp's is private
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            place = folder / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        shutil.rmtree(temporary)
