"""A bundle's network in int8: calibrated on cases that it was trained on, measured on those that were held back."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bundle.build import resolve
from pipeline.bundle.evaluation import evaluate
from pipeline.bundle.find import find_bundle
from pipeline.bundle.inference import parsed
from pipeline.bundle.refusals import refuse_taken_back
from pipeline.errors import BundleError

if TYPE_CHECKING:
    from pipeline.inference.quantized import Quantized

logger = logging.getLogger("pipeline.bundle")

MOST_LOST = 0.002
"""Of Dice, in any class, that int8 may lose against float32 to be accepted."""

_MOST_WINDOWS = 100
_PACKAGES = ("torch", "openvino", "nncf", "monai-volume-pipeline")


@dataclass(frozen=True)
class QuantizeSummary:
    """What a quantisation came to.

    Args:
        record: what it lost, class by class.
        accepted: whether that is little enough.
        models: the bundle's folder that has it now, where it was accepted.
        seconds: wall clock.
    """

    record: Quantized
    accepted: bool
    models: Path
    seconds: float

    @property
    def table(self) -> str:
        """A line per class: Dice in float32, in int8, and the difference."""
        lines = [f"{'class':<20} {'float32':>8} {'int8':>8} {'change':>8}"]
        for name, dice in self.record.dice.items():
            change = dice["int8"] - dice["float32"]
            lines.append(f"{name:<20} {dice['float32']:>8.4f} {dice['int8']:>8.4f} {change:>+8.4f}")
        return "\n".join(lines)


def quantize(
    bundle: str | Path,
    data: str | Path,
    *,
    cases: int = 30,
    most_lost: float = MOST_LOST,
    overrides: Sequence[str] = (),
) -> QuantizeSummary:
    """Quantise the network of ``bundle`` and, where it loses at most ``most_lost`` Dice in every class, keep it.

    Activations get their ranges from windows of ``cases`` training cases, and Dice is measured on the validation cases,
    as ``models/split.json`` names both: on other cases of a bundle without one there is nothing to say.

    Args:
        bundle: a bundle's or a run's folder, or the name of a shipped bundle.
        data: the dataset that it was trained on.
        cases: training cases to calibrate with, at most.
        most_lost: of Dice, in any class.
        overrides: ``KEY=VALUE`` strings, known to the evaluation's config.

    Raises:
        ConfigError: OpenVINO or NNCF is not installed, or an override that means something else.
        BundleError: no weights, or no split beside them.
        DataError: the dataset lacks the cases.
    """
    from pipeline.inference.openvino_runtime import nncf

    started = time.time()
    named = {"part": "models/split.json alone", "split_file": "models/split.json alone", "runtime": "no runtime"}
    refuse_taken_back(overrides, named | {"quantized": "no other folder", "dataset_dir": "--data DATASET"})
    nncf()  # what is missing is said before any work
    folder = find_bundle(bundle)
    models = folder / "models"
    split = models / "split.json"
    if not split.is_file():
        raise BundleError(
            "weights of which it is not known what they were trained on",
            file=split,
            expected="the split that pipeline train writes and pipeline publish copies",
        )
    with tempfile.TemporaryDirectory(prefix="quantize-") as temporary:
        staged = Path(temporary) / "models"
        staged.mkdir()
        record = _quantised(folder, data, staged, cases, overrides)
        scores = {
            kind: evaluate(
                folder,
                data,
                out=Path(temporary) / kind,
                overrides=[*overrides, "part=validate", f"quantized={staged}", f"runtime={runtime}"],
            )
            for kind, runtime in (("float32", "float32"), ("int8", "openvino_int8"))
        }
        record = replace(record, **_compared({kind: summary.metrics for kind, summary in scores.items()}))
        accepted = record.largest_loss <= most_lost
        if accepted:
            record.write(staged)
            _keep(staged, models)
    return QuantizeSummary(record, accepted, models, time.time() - started)


def _quantised(
    folder: Path,
    data: str | Path,
    staged: Path,
    cases: int,
    overrides: Sequence[str],
) -> Quantized:
    """The int8 network and its record in ``staged``, without the Dice."""
    from pipeline.data import CaseDataset
    from pipeline.data.file_digests import file_sha256
    from pipeline.inference.calibration import quantise, windows_of
    from pipeline.inference.quantized import Quantized, model_digest, state_digest

    config = resolve(folder, "evaluate", overrides=overrides)
    config |= {"bundle_root": str(folder.resolve()), "dataset_dir": str(Path(data).resolve()), "part": "train"}
    config |= {"device": {"_target_": "pipeline.engines.device", "name": "cpu"}}
    config["validate"]["inferer"].pop("runtime", None)  # which would look at what lies ahead: all cases
    parser = parsed(config, folder / "configs" / "metadata.json")
    items = parser.get_parsed_content("validate#dataset#data")
    every = max(1, len(items) // cases)
    prepared = CaseDataset(
        items[::every][:cases],
        parser.get_parsed_content("validate#preprocessing"),
        on_refusal="skip",
        progress=False,
        name="calibration",
    )
    network: Any = parser.get_parsed_content("network")
    inferer = parser.get_parsed_content("validate#inferer")
    images = _Images(prepared)
    windows = windows_of(images, network, inferer, _MOST_WINDOWS)
    quantise(network, windows, staged)
    record = Quantized(
        state_sha256=state_digest(network),
        weights_sha256=file_sha256(Path(parser.get_parsed_content("checkpoint"))),
        model_sha256=model_digest(staged),
        window=list(windows[0].shape[2:]),
        calibration={"cases": len(images), "windows": len(windows)},
        validation_cases=0,
        dice={"mean": {"float32": 0.0, "int8": 0.0}},
        versions=_versions(),
    )
    record.write(staged)
    return record


class _Images(Sequence):
    """The images of a dataset, each read when it is asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]["image"]


def _compared(metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Dice of each class and their mean in both arithmetics, and of how many cases."""
    plain = metrics["float32"]
    names = {name.removeprefix("dice_"): name for name in plain if name.startswith("dice_")} | {"mean": "dice"}
    dice = {
        shown: {kind: round(found.get(name, 0.0), 5) for kind, found in metrics.items()}
        for shown, name in names.items()
    }
    return {"dice": dice, "validation_cases": int(plain["cases"])}


def _keep(staged: Path, models: Path) -> None:
    """The record goes last: without it, what lies there is not used."""
    from pipeline.inference.quantized import MODEL, RECORD, WEIGHTS

    (models / RECORD).unlink(missing_ok=True)
    for name in (MODEL, WEIGHTS, RECORD):
        shutil.copyfile(staged / name, models / f".{name}")
        (models / f".{name}").replace(models / name)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # this package itself, where it is used from its source
            from pipeline import __version__

            found[name] = __version__
    return found
