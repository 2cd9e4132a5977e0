"""How datasets lie on disk: one module per layout, and the order in which they are recognised.

A layout is two functions: ``why(folder)`` says in words why a folder is of this kind (None where it is not), and
``listing(folder, channels)`` names its cases, with the channels asked for or, where none are, those that it finds. A
new one is a module here and a line in `LAYOUTS`. Nothing here opens an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.layouts import bids, decathlon, folders, images_labels, isles, nnunet, table
from pipeline.data.layouts.folder import SUFFIXES, Entry, Folder, Listing
from pipeline.errors import ConfigError, DataError


@dataclass(frozen=True)
class Layout:
    """One way in which datasets lie on disk."""

    name: str
    why: Callable[[Folder], str | None]
    listing: Callable[[Folder, Sequence[str] | None], Listing]


LAYOUTS = (
    Layout("list", table.why, table.listing),
    Layout("decathlon", decathlon.why, decathlon.listing),
    Layout("nnunet", nnunet.why, nnunet.listing),
    Layout("isles24", isles.why_24, isles.listing_24),
    Layout("isles22", bids.why_isles22, bids.listing),
    Layout("isles18", isles.why_18, isles.listing_18),
    Layout("bids", bids.why, bids.listing),
    Layout("images_labels", images_labels.why, images_labels.listing),
    Layout("folders", folders.why, folders.listing),
)
"""In the order in which they are asked, the first that fits is taken: what somebody wrote down (a list, a dataset.json)
goes before what names only look like, the special before the general; ``folders``, which always fits, comes last."""


@dataclass(frozen=True)
class Recognised:
    """A dataset as its layout lists it, why that layout was taken, and what of the folder can't be read, in words."""

    layout: str
    why: str
    listing: Listing
    left_out: str = ""


def recognise(root: Path, channels: Sequence[str] | None, layout: str | None, spatial_dims: int) -> Recognised:
    """List a dataset by the first layout that fits, or by the one that is named.

    Args:
        root: an existing folder, a list of cases, or a single image.
        channels: in lower case; None finds out.
        layout: a name of `LAYOUTS`.
        spatial_dims: 3 for NIfTI, 2 for PNG and TIFF.

    Raises:
        ConfigError: an unknown layout.
        DataError: a dataset that is not of the layout named, or as the layout's ``listing``.
    """
    names = [known.name for known in LAYOUTS]
    if layout is not None and layout not in names:
        raise ConfigError(f"layout={layout!r}", expected=f"one of {', '.join(names)}")
    if root.is_file() and root.name == decathlon.FILE:
        root = root.parent
    if root.is_file():
        return _recognise_file(root, channels, layout, spatial_dims)
    folder = Folder(root, spatial_dims)
    reasons = {known.name: reason for known in LAYOUTS if (reason := known.why(folder)) is not None}
    name = layout or next(iter(reasons))
    if name not in reasons:
        raise DataError(
            f"a dataset that is not of the layout {name}",
            file=root,
            expected=f"one of those that it can be: {', '.join(reasons)}",
            fix="leave the layout out, or give the folder that is meant",
        )
    others = [other for other in reasons if other not in (name, *names[-2:])]
    why = reasons[name] if layout is None else f"as asked for; {reasons[name]}"
    why += f" (it could also be {', '.join(others)})" if others else ""
    chosen = next(known for known in LAYOUTS if known.name == name)
    listing = chosen.listing(folder, channels)
    if name != "list":  # what a list does not name is no case
        listing.entries += folder.unread_cases()
    named = name in ("list", "decathlon")
    return Recognised(name, why, listing, "" if named else folder.left_out)


def part_of_a_dataset(root: Path) -> DataError | None:
    """What to say of a folder that is only the images, or only the labels, of the dataset above it; None of another."""
    name, parent = root.resolve().name, root.resolve().parent
    pairs = (*images_labels.PAIRS, *nnunet.PARTS.items())
    beside = {own: other for pair in pairs for own, other in (pair, pair[::-1])}
    if name not in beside or not any((parent / one).exists() for one in (beside[name], decathlon.FILE)):
        return None
    return DataError(
        f"only the {'labels' if name.startswith('labels') else 'images'} of a dataset",
        file=root,
        expected="its folder, in which images and labels lie",
        fix=f"give {parent}; or, for these files alone, say --layout folders",
    )


def _recognise_file(path: Path, channels: Sequence[str] | None, layout: str | None, spatial_dims: int) -> Recognised:
    if path.suffix.lower() in table.SUFFIXES and layout in (None, "list"):
        return Recognised("list", "a list of cases", table.listing_of(path, channels))
    stem = Folder(path.parent, spatial_dims).stem(path.name)
    if stem is None or layout not in (None, "folders"):
        expected = f"a {' or '.join(sorted(SUFFIXES[spatial_dims]))} image, a list of cases (CSV, JSON), or a folder"
        raise DataError("a file of another kind", file=path, expected=expected)
    if channels is not None and len(channels) > 1:
        expected = f"the channels {', '.join(channels)}"
        raise DataError("one file", file=path, expected=expected, fix="give the folder that holds them")
    channel = channels[0] if channels else "image"
    return Recognised("file", "a single image", Listing((channel,), [Entry(stem, {channel: [path]})]))


__all__ = [
    "LAYOUTS",
    "SUFFIXES",
    "Entry",
    "Folder",
    "Layout",
    "Listing",
    "Recognised",
    "part_of_a_dataset",
    "recognise",
]
