"""The report: whole, self-contained, safe with any name, and right in what it says of each case."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.data.case_volumes import CaseVolumes
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.metrics import Row, measure_case
from pipeline.report import RunResults, read_run
from pipeline.report.charts import agreement_chart, distribution_chart
from pipeline.report.ranking import faults, ranked
from pipeline.report.report_page import report_page
from tests.report.conftest import WORST

VOID = ("meta", "img", "br", "input", "circle", "line", "rect", "polyline")


class Page(HTMLParser):
    """Checks that tags nest; collects ids, links, images, and whatever would be loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.foreign: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img":
            self.images.append(given)
        for name, value in attrs:
            if name.startswith("on"):
                self.foreign.append(f"{name}={value}")
            if name == "href" and value.startswith("#"):
                self.links.append(value[1:])
            elif name in ("src", "href") and not value.startswith("data:"):
                self.foreign.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(run_dir, volumes, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert report_page(read_run(run_dir), file, volumes, {}, True) == file
    assert [entry.name for entry in file.parent.iterdir()] == ["report.html"]
    return file.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(text):
    page = Page(text)
    assert page.open == []
    assert page.foreign == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert '<html lang="en">' in text
    # three planes, each a picture that is described and a layer that is not
    assert len(page.images) == 3 * 3 * 2
    assert {image["alt"] for image in page.images[::2]} >= {
        "axial slice 3 of 10 of case good, reference and prediction outlined"
    }
    assert {image["alt"] for image in page.images[1::2]} == {""}
    assert "The channel is t1." in text


def test_names_are_shown_and_never_obeyed_and_no_folder_is_named(text):
    assert WORST not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "rim <b>" not in text
    assert "a &amp; b" in text
    assert "SMITH" not in text
    assert "…/scans" in text
    assert "2 NaN voxels" in text
    assert "abababababab<" in text


def test_the_first_sentences_name_the_worst_case_and_how_far_it_is_off(text):
    lead = re.search(r'<p class="lead">(.*?)</p>', text, re.DOTALL)[1]
    # Dice of core 1, 2/3, 1/2 and of rim 1, 1, 0
    assert f"mean Dice <strong>{(13 / 6 / 3 + 2 / 3) / 2:.3f}</strong>" in lead
    assert "1 missed, 0 false alarms" in lead
    assert "with a Dice of 0.25" in lead
    # 2 x 8 x 4 voxels of 8 cubic mm
    assert "Missed altogether: 0.51 ml in the reference." in lead


def test_worst_median_and_best_once_each(rows):
    assert [(case.role, case.case_id) for case in ranked(rows)] == [
        ("worst", WORST),
        ("second worst", "half"),
        ("third worst", "good"),
    ]
    more = [type(row)(f"{n}", row.diagonal_mm, row.result) for n in range(4) for row in rows[:2]]
    assert [case.role for case in ranked([*rows, *more])][3:] == ["median", "best"]
    assert ranked([]) == []


def test_the_words_say_whether_size_or_place_is_wrong(rows):
    said = {(row.case_id, row.result.class_id): faults(row) for row in rows}
    assert said["half", 1] == (
        "Dice 0.67. Volume 0.51 ml instead of 1.02 ml: 0.51 ml (50%) too small. Mostly too little is shown: 0.51 ml "
        "missing, nothing added. 95% of the outlines agree within 2.0 mm; at most 2.0 mm off."
    )
    assert "the same. About as much is missing (0.51 ml) as added (0.51 ml)" in said[WORST, 1]
    assert said["good", 1] == "Dice 1.00. Volume 1.02 ml instead of 1.02 ml: the same."


def test_the_agreement_is_bland_and_altmans(rows):
    # differences of core: 0, -0.512, 0 ml; mean -0.1707, sample deviation 0.2956
    chart = agreement_chart(rows, "core", 0)
    assert "on average −0.17 ml; 95% of the differences between −0.75 and +0.41 ml" in chart  # noqa: RUF001
    assert chart.count("<circle") == 3


def test_a_distance_that_does_not_exist_is_counted_and_not_drawn(rows):
    chart = distribution_chart(rows, "hausdorff_95_mm", "HD95")
    assert chart.count("<circle") == 5
    assert "1 without" in chart
    assert "core median 2, quartiles 1 and 2" in chart


def test_curves_are_those_of_the_table_and_the_events(run_dir, text):
    curves = read_run(run_dir).curves
    assert curves["dice"] == [(10.0, 0.5), (20.0, 0.75)]
    assert curves["dice_core"] == [(10.0, 0.4)]
    assert len(curves["train/loss"]) == 167
    assert curves["train/loss"][0] == pytest.approx((2.0, (1 + 1 / 2 + 1 / 3) / 3))
    assert "loss over iterations: all 0.002" in text
    assert "learning rate over iterations: mean 0.002 at the end" in text


def test_a_picture_of_another_prediction_than_the_tables_says_so(run_dir, volumes, tmp_path):
    swapped = {"half": type(volumes["good"])(**{**vars(volumes["good"]), "case_id": "half"})}
    problems = {WORST: "a damaged file"}
    text = report_page(read_run(run_dir), tmp_path / "r.html", swapped, problems).read_text(encoding="utf-8")
    assert "Its Dice: core 1.000 (table: 0.667)" in text
    assert "No picture: a damaged file." in text


def test_sections_are_measured_in_pixels_and_their_worst_part_is_enlarged(tmp_path):
    reference = np.zeros((40, 80), np.uint8)
    reference[2:38, 2:78] = 1
    prediction = reference.copy()
    prediction[30:36, 60:70] = 0
    grid = Grid(reference.shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    image = np.random.default_rng(0).random(reference.shape)
    case = CaseVolumes("07", "em", image, grid, reference, prediction)
    rows = [Row("07", 90.0, result) for result in measure_case(prediction, reference, (1.0, 1.0), {1: "cell"})]
    text = report_page(RunResults("r", rows=rows), tmp_path / "r.html", {"07": case}).read_text(encoding="utf-8")
    words = " ".join(re.sub("<[^>]*>", " ", text.split("</style>")[1].split("<script>")[0]).split())
    assert "60 pixels missing, nothing added. 95% of the outlines agree within" in words
    assert "px off" in words
    assert " mm" not in words
    assert " ml" not in words
    assert "patient" not in words
    distance = rows[0].result.hausdorff_95_mm
    assert f"cell 0.989 {distance:.2f} 2736 2676 −60 −2 1 of 1" in words  # noqa: RUF001
    assert {image["alt"] for image in Page(text).images[::2]} == {
        "section of case 07, reference and prediction outlined",
        "Close-up of the section of case 07, reference and prediction outlined",
    }


def test_without_measures_and_pictures_it_says_how_to_get_them(run_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    bare = report_page(read_run(tmp_path / "empty"), tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Nothing here was measured" in bare
    assert Page(bare).open == []
    plain = report_page(read_run(run_dir), tmp_path / "b.html").read_text(encoding="utf-8")
    assert "give the report their images" in plain


@pytest.mark.parametrize(("name", "content"), [("run.json", "[]"), ("run.json", "{"), ("metrics.csv", "a\n1\n")])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read_run(tmp_path)
