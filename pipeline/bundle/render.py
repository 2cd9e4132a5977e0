"""The hand-readable files of a new bundle: ``bundle.yaml`` with a comment per decision, metadata, README."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import __version__
from pipeline.data.fingerprint import CaseFingerprint, DatasetFingerprint, IntensityFingerprint

if TYPE_CHECKING:
    from pipeline.planning import Plan

_WIDTH = 120
_COMMENT_COLUMN = 42
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_REQUIRED = ("nibabel", "pytorch-ignite", "scipy", "tensorboard")
_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

DATA_LICENSE = """FILL IN before this bundle is shared:
- where the training data come from: the study or the data set, the institution, a link or a reference;
- under which licence or agreement they may be used, and whether trained weights may be passed on under it;
- that the patients' consent or the ethics committee's decision covers this use.
The data are not part of this bundle.
"""


def bundle_yaml(plan: Plan, title: str, layout: str | None = None, settings: Mapping[str, Any] | None = None) -> str:
    """The delta of the bundle, a comment per decision; ``settings`` of how files are read, as they were given."""
    reasons = plan.reasons
    lines = [
        f"# {title}: set up by `pipeline init` for {plan.made_for}.",
        "# Each line is a decision, its reason beside it: change what you know better; `pipeline build` then writes",
        "# the complete JSON files beside this one. Everything that is not named here is the shared base.",
        "",
        *_line("channels", list(plan.channels), reasons.get("channels")),
        *_line("in_channels", len(plan.channels)),
        *_line("classes", {str(index): name for index, name in plan.classes.items()}, reasons.get("classes")),
        *_line("out_channels", len(plan.classes) + 1, "classes, and the background"),
    ]
    if layout is not None:
        lines += _line("layout", layout, "named by --layout; null finds out")
    for key, value in (settings or {}).items():
        lines += _line(key, value, "taken on trust, as `pipeline init` was told")
    if plan.label_values:
        values = {str(index): value for index, value in plan.label_values.items()}
        lines += _line("label_values", values, reasons.get("label_values"))
    lines.append("normalization:")
    for name, scheme in plan.normalization.items():
        lines += _line(f"  {_text(name)}", scheme, reasons.get(f"normalization#{name}"))
    lines += [
        "",
        *_line("spacing_mm", plan.spacing_mm, reasons.get("spacing_mm")),
        *_line("patch_size", list(plan.patch_size), reasons.get("patch_size")),
        *_line("flip_axes", list(plan.flip_axes), reasons.get("flip_axes")),
        *_line("foreground_share", plan.foreground_share, reasons.get("foreground_share")),
        "",
        "network: unet",
        *_comment(reasons.get("network_def")),
        "network_def:",
        *_line("  channels", list(plan.feature_maps)),
        *_line("  strides", [list(stride) for stride in plan.strides]),
        *_line("  kernel_sizes", [list(kernel) for kernel in plan.kernel_sizes]),
        *_line("  convolutions_per_stage", list(plan.convolutions_per_stage), reasons.get("convolutions_per_stage")),
        "",
        *_line("batch_size", plan.batch_size, reasons.get("batch_size")),
        *_line("max_epochs", plan.max_epochs, reasons.get("max_epochs")),
    ]
    if "weight_decay" in reasons:
        lines += _line("weight_decay", plan.weight_decay, reasons["weight_decay"])
    lines += _line("stratify", True, "the folds resemble each other in the volumes of their labels")
    if "folds" in reasons:
        lines += _line("folds", plan.folds, reasons["folds"])
    if plan.batch_dice:
        lines += ["loss:", *_line("  loss", {"batch_dice": True}, reasons.get("loss"))]
    spatial = []
    if "rotation_degrees" in reasons:
        spatial += _line("      rotation_degrees", list(plan.rotation_degrees), reasons["rotation_degrees"])
    if "affine_probability" in reasons:
        spatial += _line("      affine_probability", plan.affine_probability, reasons["affine_probability"])
    if spatial:
        lines += ["", "train:", "  steps:", "    spatial:", *spatial]
    if plan.notes:
        lines += ["", "# To know:", *(line for note in plan.notes for line in _wrapped(f"- {note}", ""))]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, reason: str | None = None) -> list[str]:
    """``key: value  # reason``; the reason above, where the line would be too long."""
    text = f"{key}: {_value(value)}"
    if not reason:
        return [text]
    beside = f"{text:<{_COMMENT_COLUMN}}  # {reason}"
    return [beside] if len(beside) <= _WIDTH else [*_comment(reason, key), text]


def _comment(reason: str | None, key: str = "") -> list[str]:
    indent = " " * (len(key) - len(key.lstrip()))
    return _wrapped(reason, indent) if reason else []


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value))  # YAML takes 1e-05 for a text


def _text(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value not in _YAML_WORDS
    return value if plain else json.dumps(value)


def metadata(plan: Plan, title: str, modality: str, source: str) -> dict[str, Any]:
    """``metadata.json`` after the model zoo's schema."""
    shape = [f"{max(2 * stride, 2)}*n" for stride in plan.total_stride]
    classes = {"0": "background", **{str(index): name for index, name in plan.classes.items()}}
    tensor = {"type": "image", "spatial_shape": shape, "dtype": "float32", "value_range": [], "is_patch_data": True}
    named = ", ".join(f"{index} {name}" for index, name in plan.classes.items())
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "set up by pipeline init"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"monai-volume-pipeline": __version__}
        | {name: version(name) for name in _REQUIRED},
        "name": title,
        "task": f"Segmentation of {', '.join(plan.classes.values())}",
        "description": f"A 3D U-Net with deep supervision that segments {', '.join(plan.classes.values())} in "
        f"{', '.join(plan.channels)} volumes.",
        "authors": "FILL IN",
        "copyright": "FILL IN",
        "data_source": f"{source} (FILL IN where it comes from)",
        "data_type": "nifti",
        "image_classes": f"{len(plan.channels)} channel(s): {', '.join(plan.channels)}",
        "label_classes": f"single-channel label map: {named}, 0 everything else",
        "pred_classes": f"{len(classes)} channels: logits of {', '.join(classes.values())}",
        "intended_use": "Research only. Not a medical device: no figure or picture of this bundle may guide the care "
        "of a patient.",
        "references": [
            "Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, "
            "Nature Methods 18 (2021)",
            "Cicek et al., 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation, MICCAI 2016",
        ],
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "format": "magnitude",
                    "modality": modality,
                    "num_channels": len(plan.channels),
                    "channel_def": {str(index): name for index, name in enumerate(plan.channels)},
                }
            },
            "outputs": {
                "pred": {**tensor, "format": "segmentation", "num_channels": len(classes), "channel_def": classes}
            },
        },
    }


def readme(plan: Plan, fingerprint: DatasetFingerprint, title: str, name: str) -> str:
    """``docs/README.md``: what goes in and comes out, the dataset's table, how to use it."""
    channels = ", ".join(f"`{channel}`" for channel in plan.channels)
    classes = ", ".join(f"{index} {label}" for index, label in plan.classes.items())
    widths = "-".join(map(str, (plan.feature_maps[0], plan.feature_maps[-1])))
    convolutions = ", ".join(map(str, plan.convolutions_per_stage))
    notes = [f"- {note[0].upper()}{note[1:]}." for note in plan.notes]
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Segments {', '.join(plan.classes.values())}. **Research only; not a medical device.**",
            "",
            "| | |",
            "|---|---|",
            f"| Input | {channels}: NIfTI, on the grid of `{plan.channels[0]}` |",
            f"| Output | label map on the input's own grid: 0 background, {classes} |",
            f"| Network | 3D U-Net, {len(plan.feature_maps)} levels of {widths} channels, "
            f"{convolutions} convolutions per stage, instance norm, deep supervision |",
            f"| Patch | {' x '.join(map(str, plan.patch_size))} voxels, {plan.found.covered:.0%} of the median case |",
            "",
            "## Use",
            "",
            f"    pipeline train {name} --data DATASET --budget 1h",
            f"    pipeline predict runs/{name}/DATE-TIME SCANS SEGMENTATIONS",
            "",
            "With plain MONAI, in this bundle's folder:",
            "",
            "    python -m monai.bundle run --config_file configs/train.json --dataset_dir DATASET",
            "",
            "## The dataset that it was set up for",
            "",
            *dataset_table(fingerprint, plan.channels, plan.classes, plan.label_values),
            "",
            "Why each setting is as it is stands beside it in `configs/bundle.yaml`.",
            *(["", "## To know", "", *notes] if notes else []),
            "",
        ]
    )


def dataset_table(
    fingerprint: DatasetFingerprint, channels: Iterable[str], classes: dict[int, str], values: dict[int, int]
) -> list[str]:
    """Cases, shapes, spacings, intensities per channel and volumes per class: Markdown, one row each."""
    cases = [case for case in fingerprint.usable if case.grid is not None]
    labelled = [case for case in cases if case.label is not None]
    refused = len(fingerprint.cases) - len(fingerprint.usable)
    rows = [
        ("layout", fingerprint.layout, ""),
        ("cases", f"{len(cases)} ({len(labelled)} with a label)", f"{refused} refused" if refused else ""),
        ("voxels", *_triples([case.grid.shape for case in cases if case.grid], "{:.0f}")),
        ("spacing, mm", *_triples([case.grid.spacing_mm for case in cases if case.grid], "{:.3g}")),
        ("stored orientation", ", ".join(sorted({case.grid.orientation for case in cases if case.grid})), ""),
    ]
    by_name = {name.lower(): name for name in fingerprint.channel_names}
    for channel in channels:
        name = by_name[channel]
        whole = [case.channels[name].all_voxels for case in cases if name in case.channels]
        if whole:
            rows.append((f"`{channel}`, values", *_span([v.percentiles[4] for v in whole], *_ends(whole))))
    for index, label in classes.items():
        volumes = list(_volumes_ml(labelled, values.get(index, index)))
        present = [ml for ml in volumes if ml > 0]
        text = _span(present, min(present), max(present)) if present else ("none", "")
        rows.append((f"{label}, ml (in {len(present)} cases)", *text))
    return ["| | median | range |", "|---|---|---|", *(f"| {name} | {mid} | {ends} |" for name, mid, ends in rows)]


def _triples(values: list[tuple[float, ...]], form: str) -> tuple[str, str]:
    def text(row: Any) -> str:
        return " x ".join(form.format(float(value)) for value in row)

    low, middle, high = (how(np.array(values, dtype=float), axis=0) for how in _HOW)
    return text(middle), f"{text(low)} to {text(high)}" if text(low) != text(high) else "all the same"


_HOW: tuple[Callable[..., Any], ...] = (np.min, np.median, np.max)


def _span(values: list[float], low: float, high: float) -> tuple[str, str]:
    return f"{np.median(values):.3g}", f"{low:.3g} to {high:.3g}"


def _ends(values: list[IntensityFingerprint]) -> tuple[float, float]:
    return min(value.minimum for value in values), max(value.maximum for value in values)


def _volumes_ml(cases: list[CaseFingerprint], value: int) -> Iterator[float]:
    for case in cases:
        if case.label is not None and case.grid is not None:
            yield case.label.voxels.get(value, 0) * case.grid.voxel_volume_ml
