"""What the demo compares: the network's lesions and those of tuned threshold rules, on the same unseen cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from pipeline.data import find_cases
from pipeline.data.perfusion_rules import apply_rule, features_of, tune_rules
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import read_volume
from pipeline.metrics import ClassResult, measure_case
from pipeline.report import FigureCase

CHANNELS = ("cbf", "cbv", "mtt")
NETWORK = "network"
TUNING_CASES = 20


@dataclass
class DemoCase:
    """A perfusion case in memory; maps and label (H, W, D) on ``grid``."""

    case_id: str
    cbf: np.ndarray
    cbv: np.ndarray
    mtt: np.ndarray
    label: np.ndarray
    grid: Grid

    @property
    def has_lesion(self) -> bool:
        return bool((self.label == 1).any())


@dataclass(frozen=True)
class Method:
    """One way to find lesions, and what it reached per case id."""

    name: str
    results: Mapping[str, ClassResult]

    @property
    def dice(self) -> float:
        """Mean Dice over the cases with a lesion; a missed one counts as 0."""
        return float(np.mean([r.dice for r in self.results.values() if r.status in ("ok", "missed")]))

    def count(self, status: str) -> int:
        return sum(result.status == status for result in self.results.values())


@dataclass(frozen=True)
class Comparison:
    """The methods on the same cases, the network first."""

    methods: Sequence[Method]
    lesions: int
    healthy: int

    def table(self) -> str:
        """One line per method: mean lesion Dice, missed lesions, healthy cases in which it shows one."""
        width = max(len(method.name) for method in self.methods)
        lines = [f"{'':{width}}  lesion Dice  missed of {self.lesions:<3} false alarms of {self.healthy}"]
        lines += [
            f"{m.name:{width}}  {m.dice:>11.3f}  {m.count('missed'):>13} {m.count('false_alarm'):>17}"
            for m in self.methods
        ]
        return "\n".join(lines)


def load_cases(dataset: Path, most: int | None = None) -> list[DemoCase]:
    """The labelled perfusion cases of a dataset in memory, at most the first ``most`` of them."""
    loaded = []
    for case in find_cases(dataset, CHANNELS)[:most]:
        cbf, cbv, mtt = (read_volume(case.image[name]) for name in CHANNELS)
        label = _labels(_label_path(case.label, case.case_id))
        loaded.append(DemoCase(case.case_id, cbf.array, cbv.array, mtt.array, label, cbf.grid))
    return loaded


def compare(train: Path, test: Path, predictions: Mapping[str, Path]) -> Comparison:
    """Measure the network's label maps, and each family of rules tuned on ``train``, on the cases of ``test``.

    Args:
        train: dataset on whose first cases the rules are tuned: a grid of four thresholds needs no more.
        test: dataset on which everything is measured.
        predictions: case id -> label map of the network.
    """
    rules = tune_rules(load_cases(train, TUNING_CASES))
    cases = load_cases(test)
    features = dict(zip((case.case_id for case in cases), features_of(cases), strict=True))
    methods = [Method(NETWORK, {c.case_id: _measure(_labels(predictions[c.case_id]), c) for c in cases})]
    for family, rule in rules.items():
        found = {c.case_id: _measure(apply_rule(features[c.case_id], rule.settings), c) for c in cases}
        methods.append(Method(f"best {family} rule", found))
    lesions = sum(case.has_lesion for case in cases)
    return Comparison(methods, lesions, len(cases) - lesions)


def drawn_cases(test: Path, predictions: Mapping[str, Path], comparison: Comparison) -> list[FigureCase]:
    """The best, the median and the worst case of the network, and a healthy one, with a false alarm if there is any."""
    results = comparison.methods[0].results
    cases = {case.case_id: case for case in load_cases(test)}
    ranked = sorted((i for i in cases if cases[i].has_lesion), key=lambda i: -results[i].dice)
    healthy = sorted((i for i in cases if not cases[i].has_lesion), key=lambda i: results[i].status != "false_alarm")
    chosen = {
        "best": ranked[:1],
        "median": ranked[len(ranked) // 2 :][:1],
        "worst": ranked[-1:],
        "healthy": healthy[:1],
    }
    return [
        _figure_case(f"{word}: {i}", cases[i], _labels(predictions[i])) for word, ids in chosen.items() for i in ids
    ]


def _labels(path: Path) -> np.ndarray:
    return read_volume(path).array.astype(np.uint8)


def _label_path(label: Path | None, case_id: str) -> Path:
    if label is None:
        raise DataError("no label", expected="a label map", case=case_id)
    return label


def _measure(prediction: np.ndarray, case: DemoCase) -> ClassResult:
    lesion = (case.label == 1).astype(np.uint8)
    return measure_case((prediction == 1).astype(np.uint8), lesion, case.grid.spacing_mm, {1: "lesion"})[0]


def _figure_case(title: str, case: DemoCase, prediction: np.ndarray) -> FigureCase:
    orientation = io_orientation(case.grid.affine)
    spacing_mm = [case.grid.spacing_mm[axis] for axis in np.argsort(orientation[:, 0])]
    maps = {name: apply_orientation(getattr(case, name), orientation) for name in CHANNELS}
    reference, shown = (apply_orientation(labels == 1, orientation) for labels in (case.label, prediction))
    return FigureCase(title, maps, reference, shown, spacing_mm)
