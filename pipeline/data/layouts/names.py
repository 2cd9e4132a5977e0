"""What a file's name says: which channel, or which label, of which case.

A name ends in what the file is, behind ``_``, ``-`` or ``.``, without regard to case: ``sub-01_cbf``, ``CBF``,
``p7.mr_t1``. The word ``image`` behind it is left out: ``ct_image`` is ``ct``. A label ends in one of `LABEL_NAMES`.

``mask`` is as often the brain's as the lesion's. It is the label where its own name says so, in one of two ways:
it names what it outlines (``lesion_mask``, ``tumor_mask``), or it bears the name of the image that it was drawn on
(``ct_mask`` beside ``ct_image`` or ``ct``, ``a_mask`` beside ``a``, ``mask`` beside ``image``). Where each channel has
a mask of its own, the reference channel's counts, the first: who names ``pet`` first among the channels gets
``pet_mask``. Any other mask (``mask`` beside ``cbf`` and ``cbv``, ``brain_mask``) is never taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LABEL_NAMES = ("label", "labels", "lesion", "lesions", "seg", "dseg", "segmentation", "gt")
"""Names of a label file, the first found wins."""
LABEL_FOLDERS = (
    *("label", "labels", "labelstr", "labelsts", "mask", "masks", "msk", "seg", "segmentation", "segmentations"),
    *("annotation", "annotations", "gt", "ground_truth", "groundtruth"),
)
"""Folders of labels, in lower case; not ``lesions``, which is as often a class of images."""
OUTLINED = ("label", "lesion", "lesions", "tumor", "tumour", "gtv", "infarct", "target", "gt", "seg", "segmentation")
"""What a mask that is a label may be named after."""
IMAGE_WORDS = ("image", "img", "volume", "scan")
IMAGE_FOLDERS = (*IMAGE_WORDS, "images", "imagestr", "imagests", "imgs", "volumes", "scans")
MASK_WORDS = ("mask", "msk")
NO_LABEL = (
    "brain",
    "bet",
    "skull",
    "head",
    "body",
    "lung",
    "lungs",
    "vessel",
    "vessels",
    "csf",
    "ventricles",
    "roi",
    "fov",
)
"""What a mask is of that is no label, where nothing else says so."""
SERIES = frozenset({"4dpwi", "pwi", "ctp", "dsc", "dce", "bold", "asl", "epi", "sbref"})
"""Names of series (4D): never a channel unless asked for."""
MODALITIES = frozenset(
    ("ct", "ncct", "cta", "ctp", "cbf", "cbv", "mtt", "tmax", "ttp", "pet", "us", "mr", "mri", "mra")
) | {
    *("t1", "t1w", "t1c", "t1ce", "t1gd", "t1post", "t2", "t2w", "t2f", "flair", "pd", "pdw", "swi", "dwi", "adc", "fa")
}
"""Names by which a channel is known even where a single case is all there is."""


class Role(NamedTuple):
    """What a file is: ``kind`` is image, label or mask; ``prefix`` the case's part of its name; ``name`` the channel,
    the label's name, or the channel that a mask belongs to."""

    kind: str
    prefix: str
    name: str


def before(stem: str, name: str) -> str | None:
    """What stands before ``name`` at the end of ``stem``; None where it does not end so.

    >>> before("sub-01_CBF", "cbf"), before("cbf", "cbf"), before("sub-01_ncct", "ct")
    ('sub-01', '', None)
    """
    lower = stem.lower()
    if lower == name:
        return ""
    return stem[: -len(name) - 1] if lower.endswith(("_" + name, "-" + name, "." + name)) else None


def without(stem: str, words: Sequence[str]) -> str | None:
    """The stem without one of the words at its end; None where it ends in none of them."""
    return next((rest for word in words if (rest := before(stem, word)) is not None), None)


def role(stem: str, channels: Sequence[str]) -> Role | None:
    """What a file of this name is among these channels (in lower case); None for what is none of them.

    >>> role("sub-01_ct_image", ["ct", "pet"]), role("sub-01_pet_mask", ["ct", "pet"])
    (Role(kind='image', prefix='sub-01', name='ct'), Role(kind='mask', prefix='sub-01', name='pet'))
    >>> role("p1_lesion_mask", ["ct"]), role("p1_brain_mask", ["ct"])
    (Role(kind='label', prefix='p1', name='lesion'), None)
    """
    image = without(stem, IMAGE_WORDS)
    by_length = sorted(channels, key=len, reverse=True)  # `mr_t1` before `t1`
    for text in (stem, image):
        for name in by_length if text else ():
            if (prefix := before(text or "", name)) is not None:
                return Role("image", prefix, name)
    for name in LABEL_NAMES:
        if (prefix := before(stem, name)) is not None:
            return Role("label", prefix, name)
    masked = without(stem, MASK_WORDS)
    if masked:
        for name in OUTLINED:
            if (prefix := before(masked, name)) is not None:
                return Role("label", prefix, name)
        for text in (masked, without(masked, IMAGE_WORDS)):
            for name in by_length if text else ():
                if (prefix := before(text or "", name)) is not None:
                    return Role("mask", prefix, name)
    generic = next((name for name in channels if name in IMAGE_WORDS), None)
    return Role("mask", masked, generic) if masked is not None and generic and not _is_other(masked) else None


def _is_other(masked: str) -> bool:
    """Whether a mask is named after what is no label."""
    return any(before(masked, name) is not None for name in NO_LABEL)


def is_label(stem: str) -> bool:
    """Whether a file is a label or a mask by its name, of whatever case."""
    return without(stem, LABEL_NAMES) is not None or without(stem, MASK_WORDS) is not None


def endings(stem: str) -> Iterator[tuple[str, str]]:
    """(what stands before, ending) for every way to cut a stem at a separator, the longest ending first; in lower case.

    >>> list(endings("p1_mr-t1"))
    [('', 'p1_mr-t1'), ('p1', 'mr-t1'), ('p1_mr', 't1')]
    """
    lower = stem.lower()
    yield "", lower
    for separator in re.finditer(r"[_\-.]", lower):
        if separator.start() > 0 and separator.end() < len(lower):
            yield lower[: separator.start()], lower[separator.end() :]
