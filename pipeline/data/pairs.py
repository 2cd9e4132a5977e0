"""Which predicted label map belongs to which reference: two folders of files, named by whatever tool wrote them.

A file is known by three names, and the first of them that fits decides: where it lies and what it is called
(``sub-01/lesion``), what it is called, and the same without what only says that it is a segmentation (``sub-01_pred``
and ``sub-01_label`` are ``sub-01``; ``sub-01/label`` is its folder). References may lie in a dataset of any layout that
`pipeline.data` knows; then its labels are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from pipeline.data.cases import describe_dataset
from pipeline.data.layouts import SUFFIXES, Entry, Folder
from pipeline.data.layouts.folder import File
from pipeline.data.layouts.names import LABEL_NAMES, MASK_WORDS, without
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.errors import DataError

PREDICTION_WORDS = ("pred", "prediction", "predicted", "predictions", "output", "result", "results", "auto")
"""What a label map's name may end in where a tool has made it, beside the names of labels and masks."""
_WORDS = (*PREDICTION_WORDS, *LABEL_NAMES, *MASK_WORDS)
_PROBABILITY = "_probability_"  # `predict --probabilities` writes these beside the label maps


@dataclass(frozen=True)
class Pair:
    """A reference and its prediction; None where there is none, with a ``problem`` where none of several is certain."""

    case_id: str
    reference: Path
    prediction: Path | None
    problem: str | None = None
    fitting: tuple[Path, ...] = ()
    """All predictions of its name."""


@dataclass(frozen=True)
class Pairing:
    """Two folders, paired.

    Args:
        pairs: one per reference, sorted by id.
        extra: names of predictions that belong to no reference.
        classes: id -> name, where the references are those of a dataset that says so; otherwise empty.
    """

    pairs: tuple[Pair, ...]
    extra: tuple[str, ...] = ()
    classes: dict[int, str] = field(default_factory=dict)


class _Named(NamedTuple):
    path: Path
    names: tuple[str, str, str]


def find_pairs(
    predictions: str | PathLike[str], references: str | PathLike[str], channels: Sequence[str] | None = None
) -> Pairing:
    """Pairs label maps by their names.

    Args:
        predictions: a folder of label maps (NIfTI, or PNG and TIFF), or one file.
        references: a folder of label maps, a dataset with labels, or one file.
        channels: those of the bundle that predicted, the reference channel first: in a dataset whose channels have a
            mask each, the first one's is the reference. Where the dataset lacks them, and by default, its own order.

    Raises:
        DataError: no such folder, one without label maps, nothing that fits together, or the same folder twice.
    """
    roots = [Path(predictions), Path(references)]
    for root in roots:
        if not root.exists():
            raise DataError("no such file or folder", file=root, expected="label maps")
    if roots[0].resolve() == roots[1].resolve():
        raise DataError("the same folder twice", file=roots[0], expected="predictions, and references beside them")
    if all(root.is_file() for root in roots):
        [own] = _listed(roots[1])
        return Pairing((Pair(own.names[2], roots[1], roots[0]),))
    wanted, classes = _references(roots[1], channels)
    found = [own for own in _listed(roots[0]) if _PROBABILITY not in own.names[1]]
    if not found:
        raise DataError("no label map", file=roots[0], expected="files that end in .nii.gz, .nii, .png or .tif")
    pairs = tuple(sorted(_paired(wanted, found), key=lambda pair: pair.case_id))
    if not any(pair.prediction or pair.problem for pair in pairs):
        raise DataError(
            f"no file with the name of a reference ({', '.join(own.names[1] for own in found[:3])}...)",
            file=roots[0],
            expected=f"names such as {', '.join(own.names[2] for own in wanted[:3])}",
            fix="rename the files so that a prediction begins like its reference",
        )
    fitting = {path for pair in pairs for path in pair.fitting}
    extra = tuple(own.names[0] for own in found if own.path not in fitting)
    return Pairing(pairs, extra, classes)


def renamed(pairing: Pairing, pseudonyms: Pseudonyms) -> Pairing:
    """The same under pseudonyms; how many predictions belong to no reference is all that is left of their names.

    Raises:
        DataError: ids that the file does not name.
    """
    entries = pseudonyms.applied([Entry(pair.case_id, {}) for pair in pairing.pairs])
    pairs = [replace(pair, case_id=entry.case_id) for pair, entry in zip(pairing.pairs, entries, strict=True)]
    hidden = [replace(pair, problem=pair.problem and pair.problem.partition(":")[0]) for pair in pairs]
    return replace(pairing, pairs=tuple(hidden), extra=("(not named)",) * len(pairing.extra))


def _paired(wanted: Sequence[_Named], found: Sequence[_Named]) -> list[Pair]:
    plain = Counter(own.names[2] for own in wanted)
    by_name: list[dict[str, list[Path]]] = [{}, {}, {}]
    for own in found:
        for known, name in zip(by_name, own.names, strict=True):
            known.setdefault(name, []).append(own.path)
    pairs = []
    for own in wanted:
        case_id = own.names[2] if plain[own.names[2]] == 1 else own.names[0]
        levels = (known.get(name, []) for known, name in zip(by_name, own.names, strict=True))
        fitting = tuple(next(filter(None, levels), ()))
        problem = None
        if len(fitting) > 1:
            problem = f"several predictions of its name: {', '.join(sorted(path.name for path in fitting)[:4])}"
        pairs.append(Pair(case_id, own.path, fitting[0] if len(fitting) == 1 else None, problem, fitting))
    given = Counter(pair.prediction for pair in pairs)  # one file for two references is no result of both
    return [
        replace(pair, prediction=None, problem=f"a prediction that fits another reference too: {pair.prediction.name}")
        if pair.prediction is not None and given[pair.prediction] > 1
        else pair
        for pair in pairs
    ]


def _references(root: Path, channels: Sequence[str] | None) -> tuple[list[_Named], dict[int, str]]:
    """The references, and the names of their classes where a dataset says them."""
    for dims, wanted in product(SUFFIXES, [channels, None] if channels else [None]):
        try:
            description = describe_dataset(root, wanted, spatial_dims=dims, say=False)
        except DataError:  # label maps alone, or nothing of this kind
            continue
        labelled = [case for case in description.cases if case.label is not None]
        if labelled:
            named = [
                _Named(case.label, ("/".join((*case.relative.parts, case.case_id)), _stem(case.label), case.case_id))
                for case in labelled
                if case.label is not None
            ]
            return named, dict(description.classes)
    listed = _listed(root)
    if not listed:
        raise DataError("no label map", file=root, expected="files that end in .nii.gz, .nii, .png or .tif")
    return listed, {}


def _stem(path: Path) -> str:
    return next((stem for dims in SUFFIXES if (stem := Folder(path.parent, dims).stem(path.name))), path.name)


def _listed(root: Path) -> list[_Named]:
    """The images of a folder, volumes or else sections, or the one that is given."""
    if root.is_file():
        return [_named(File(root, (), _stem(root)))]
    for dims in SUFFIXES:
        files = Folder(root, dims).files
        if files:
            return [_named(file) for file in files]
    return []


def _named(file: File) -> _Named:
    rest = file.stem
    while (shorter := without(rest, _WORDS)) is not None:  # `a_lesion_mask_pred` is `a`
        if not shorter:  # all of it says what the file is: its folder says whose
            rest = file.folders[-1] if file.folders else rest
            break
        rest = shorter
    return _Named(file.path, ("/".join((*file.folders, file.stem)), file.stem, rest))
