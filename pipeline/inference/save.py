"""Write results, and only on the grid that the case came with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from pipeline.errors import ConfigError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference.restore import own_grid
from pipeline.inference.restored import instances_key
from pipeline.io import section_of, write_section, write_volume


class SaveImageOnGridd(MapTransform):
    """Write each case's label map as ``<output_dir>/<relative>/<case_id><output_postfix>.nii.gz``, of a section as
    ``.png``.

    ``case_id`` is the item's, or the image's in its meta data, or the name of the file that the image was read from;
    ``relative``, the folder below ``output_dir``, is the item's, if it has one. The path is noted in the item
    under ``<key>_path``, those of all files under ``written``. (MONAI Deploy drops transforms with ``SaveImage`` in
    their names: it writes for itself.)

    Args:
        keys: entry with the label map (1, H, W, D), of a section (1, H, W), on the case's own grid.
        output_dir: created where it is missing.
        output_postfix: added to the file names; needed to tell several keys apart.
        image_key: entry with the image, whose meta data know the case's own grid.
        probabilities_key: entry with probabilities (K, H, W, D), of which each class that ``classes`` names is written
            beside the labels, float32, as ``<case_id>_probability_<class>.nii.gz``: a volume each, as viewers take it;
            of a section as ``.tif``.
        classes: id -> name, needed for probabilities alone.
        label_values: id -> value that stands for it in the file, such as ``{1: 255}`` for masks that are made to be
            looked at; other ids stand for themselves.
        instances: in place of classes, write the numbers of objects that `Restored` has found under the same setting,
            in the smallest unsigned type that holds them, as they are.
        allow_missing_keys: pass items on that lack a key.

    Raises:
        GeometryError: a result that is not on the case's own grid. Nothing is written then.
        ConfigError: a case id or folder that leads out of ``output_dir``.
    """

    def __init__(
        self,
        keys: str = "pred",
        output_dir: str | Path = "predictions",
        output_postfix: str = "",
        image_key: str = "image",
        probabilities_key: str | None = None,
        classes: Mapping[int, str] | Mapping[str, str] | None = None,
        label_values: Mapping[int, int] | Mapping[str, int] | None = None,
        allow_missing_keys: bool = False,
        instances: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.output_postfix = output_postfix
        self.image_key = image_key
        self.instances = instances
        self.probabilities_key = probabilities_key
        self.classes = {int(label): name.replace(" ", "_") for label, name in (classes or {}).items()}
        self.label_values = {int(label): int(value) for label, value in (label_values or {}).items()}
        if probabilities_key is not None and not self.classes:
            raise ConfigError("probabilities to write, but no classes", expected="the name of each class")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        grid = own_grid(item[self.image_key])
        stem = self.output_dir / result_name(item, item[self.image_key])
        volume = len(grid.shape) == 3
        written = []
        for key in self.key_iterator(item):
            labels = item[key] if self.instances is None else item[instances_key(str(key))]
            _require_on_grid(labels, grid, stem.name)
            path = stem.with_name(f"{stem.name}{self.output_postfix}{'.nii.gz' if volume else '.png'}")
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, self._stored(labels[0].cpu().numpy()), grid)
            item[f"{key}_path"] = str(path)
            written.append(str(path))
        if self.probabilities_key is not None:
            probabilities = item[self.probabilities_key]
            _require_on_grid(probabilities, grid, stem.name)
            for label, name in self.classes.items():
                path = stem.with_name(f"{stem.name}_probability_{name}{'.nii.gz' if volume else '.tif'}")
                _write(path, probabilities[label].cpu().numpy(), grid)
                written.append(str(path))
        item["written"] = written
        return item

    def _stored(self, labels: np.ndarray) -> np.ndarray:
        if self.instances is not None:
            return labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
        if not self.label_values:
            return labels
        values = labels.astype(np.int64)
        for label, value in self.label_values.items():
            values[labels == label] = value
        return values


def _write(path: Path, array: np.ndarray, grid: Grid) -> None:
    if len(grid.shape) == 3:
        write_volume(path, array, grid)
    else:
        write_section(path, array)


def result_name(item: Mapping[Hashable, Any], image: MetaTensor) -> Path:
    """Folder below the output folder, and file name without a suffix, of a case's result."""
    case = item.get("case_id") or image.meta.get("case_id")
    if not case:
        file, section = section_of(str(image.meta["filename_or_obj"]))
        case = file.name
        for suffix in (".gz", ".nii", ".png", ".tif", ".tiff"):
            case = case[: -len(suffix)] if case.lower().endswith(suffix) else case
        case += "" if section is None else f"_{section:03d}"
    relative = PurePosixPath(item.get("relative", ""))
    if relative.is_absolute() or ".." in relative.parts or PurePosixPath(case).name != case or "\\" in case:
        raise ConfigError(f"folder {str(relative)!r} and case id {case!r}", expected="a place below the output folder")
    return Path(relative) / case


def _require_on_grid(result: MetaTensor, grid: Grid, case: str) -> None:
    found = Grid(tuple(result.shape[1:]), np.asarray(result.affine.cpu()))
    if not found.same_grid(grid):
        raise GeometryError(
            f"a result of {found}",
            expected=f"the case's own grid of {grid}",
            fix="put Restored before SaveImageOnGridd",
            case=case,
        )
