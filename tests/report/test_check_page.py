"""The data doctor's page: whole, self-contained, readable by a screen reader; pictures at the true proportions."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pipeline.data import check_dataset, describe_dataset
from pipeline.data.summary import write_json
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import Volume, write_volume
from pipeline.report import check_page
from pipeline.report.thumbnail import OUTLINE, thumbnail

GRID = Grid((20, 20, 10), np.diag([1.0, 2.0, 3.0, 1.0]))


def picture(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def outlined(shown: np.ndarray) -> np.ndarray:
    return np.argwhere((shown == OUTLINE).all(axis=-1))


def test_right_is_left_front_is_up_and_a_millimetre_is_one_both_ways():
    ids = np.zeros(GRID.shape, np.uint8)
    ids[16:19, 15:18, 7] = 1  # to the patient's right, in front
    shown = picture(thumbnail(Volume(np.random.default_rng(0).random(GRID.shape), GRID), ids))
    assert shown.shape == (240, 120, 3)  # 40 mm high, 20 mm wide
    rows, columns = outlined(shown).mean(axis=0)
    assert rows < 120
    assert columns < 60


def test_the_same_picture_from_any_order_of_axes():
    rng = np.random.default_rng(1)
    array, ids = rng.random(GRID.shape).astype(np.float32), np.zeros(GRID.shape, np.uint8)
    ids[2:5, 3:9, 4] = 1
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3, -1, 2, 1
    affine[0, 3] = 19
    turned = [np.transpose(volume[::-1], (2, 0, 1)) for volume in (array, ids)]
    other = Volume(turned[0], Grid(turned[0].shape, affine))
    assert (picture(thumbnail(other, turned[1])) == picture(thumbnail(Volume(array, GRID), ids))).all()


def test_slices_are_shown_as_they_were_taken():
    coronal = Grid((20, 4, 30), np.diag([1.0, 8.0, 1.0, 1.0]))
    ids = np.zeros(coronal.shape, np.uint8)
    ids[3:5, 2, 25:28] = 1
    shown = picture(thumbnail(Volume(np.random.default_rng(0).random(coronal.shape), coronal), ids))
    assert shown.shape == (240, 160, 3)
    rows, columns = outlined(shown).mean(axis=0)
    assert rows < 60  # the top of the head is up
    assert columns > 80  # the patient's left


def test_a_constant_slice_without_label_is_no_error():
    assert picture(thumbnail(Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))))).max() == 0


class Page(HTMLParser):
    """Checks that tags nest, and collects images and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        if tag in ("script", "link", "iframe"):
            self.foreign.append(tag)
        self.foreign += [v for name, v in attrs if name in ("src", "href") and not v.startswith("data:")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def found(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        case = tmp_path / "scans & more" / f"sub-{number}"
        array = rng.normal(100, 9, GRID.shape).astype(np.float32)
        if number == 1:
            array[0, 0, 0] = 1e30
        ids = np.zeros(GRID.shape, np.uint8)
        ids[4:8, 4:8, 4:8] = 1
        write_volume(case / "t1.nii.gz", array, GRID)
        write_volume(case / "label.nii.gz", ids, GRID)
    (tmp_path / "scans & more" / "sub-2" / "t1.nii.gz").write_bytes(b"<html>")
    return check_dataset(describe_dataset(tmp_path / "scans & more", ["t1"]), kept_in=tmp_path / "kept")


def test_the_page_is_whole_and_needs_nothing_else(found, tmp_path):
    drawn = []
    path = check_page(found, tmp_path / "new" / "check.html", lambda done, total: drawn.append((done, total)))
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.foreign == []
    (image,) = page.images  # the unreadable one has none, the clean one needs none
    assert image["alt"] == "A slice of t1 of case sub-1, the label outlined"
    shown = picture(base64.b64decode(image["src"].partition(",")[2]))
    assert len(outlined(shown)) > 20
    assert drawn == [(1, 2), (2, 2)]
    assert '<html lang="en">' in text
    assert "scans &amp; more" in text
    assert re.search(r"3 cases: 1 clean, 1 with warnings, 0 repaired, 1 refused\.<", text)
    assert [entry.name for entry in path.parent.iterdir()] == ["check.html"]


def test_where_no_case_is_odd_the_first_are_pictured(tmp_path):
    for number in range(6):
        array = np.random.default_rng(number).normal(100, 9, GRID.shape).astype(np.float32)
        write_volume(tmp_path / "scans" / f"sub-{number}" / "t1.nii.gz", array, GRID)
    clean = check_dataset(describe_dataset(tmp_path / "scans", ["t1"]), kept_in=tmp_path / "kept")
    page = Page()
    page.feed(check_page(clean, tmp_path / "check.html").read_text(encoding="utf-8"))
    assert [image["alt"] for image in page.images] == [f"A slice of t1 of case sub-{number}" for number in range(4)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_a_name_that_is_no_text_stands_escaped_in_the_page(tmp_path):
    case = tmp_path / "scans" / os.fsdecode(b"a\xff")
    write_volume(case / "t1.nii.gz", np.ones(GRID.shape, np.float32), GRID)
    (case / "label.nii.gz").write_bytes(b"<html>")
    found = check_dataset(describe_dataset(tmp_path / "scans", ["t1"]), kept_in=tmp_path / "kept")
    text = check_page(found, tmp_path / "check.html").read_text(encoding="utf-8")
    assert '<th scope="row">a\\udcff</th>' in text
    write_json(found, tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert [line["case_id"] for line in content["cases"]] == [os.fsdecode(b"a\xff")]


def test_a_page_that_can_not_be_written_says_so(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        check_page(found, tmp_path / "file" / "check.html")
