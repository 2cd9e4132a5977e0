"""The report in a real browser: the table sorts and filters, links lead to rows, the viewer draws, all by itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from html import unescape

import pytest

from pipeline.report import read_run
from pipeline.report.report_page import report_page
from tests.report.conftest import WORST
from tests.report.devtools import BROWSER, QUIET, WEBGL, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; Debian: apt-get install chromium"),
]

ACTIONS = """
const seen = { errors: [] };
const names = () => [...document.querySelectorAll("#all-cases tbody tr")].filter((row) => !row.hidden)
  .map((row) => [row.cells[0].textContent, row.cells[1].textContent]);
const press = (column) => document.querySelectorAll("#all-cases thead button")[column].click();
const set = (id, key, value) => {
  const input = document.getElementById(id);
  input[key] = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
seen.first = names();
press(2); seen.ascending = names();
press(2); seen.descending = names();
seen.sorted = document.querySelector("#all-cases [aria-sort]").textContent;
press(3); seen.distance = names();
set("by-fault", "checked", true); seen.faults = names();
location.hash = document.querySelector(".lead a").hash.slice(1);
setTimeout(() => {
  seen.led = [...document.querySelectorAll("tr.found")].map((row) => row.cells[0].textContent);
  seen.unfiltered = names().length;
  set("by-class", "value", "core"); set("by-name", "value", "HALF"); seen.filtered = names();
  seen.counted = document.getElementById("counted").textContent;
  const shown = getComputedStyle(document.querySelectorAll(".slice img")[1]);
  seen.before = shown.visibility;
  document.getElementById("outlines").click();
  seen.after = shown.visibility;
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  const viewer = document.getElementById("viewer");
  const finish = () => {
    seen.viewer = viewer ? viewer.dataset.ready : null;
    seen.words = viewer ? document.getElementById("v-words").textContent : null;
    document.body.innerHTML = "<pre id=seen></pre>";
    document.getElementById("seen").textContent = JSON.stringify(seen);
  };
  if (!viewer) { finish(); return; }
  document.getElementById("v-start").click();
  new MutationObserver(finish).observe(viewer, { attributes: true });
}, 100);
"""


def in_browser(page: str, folder, width: int) -> dict:
    """Opens a page as a double click does, and what the actions saw."""
    file = folder / "report & page.html"
    file.write_text(page.replace("</body>", f"<script>{ACTIONS}</script></body>"), encoding="utf-8")
    words = (
        *(*QUIET, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"),
        *("--virtual-time-budget=30000", "--dump-dom", *WEBGL, file.as_uri()),
    )
    shown = subprocess.run([str(BROWSER), *words], capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="seen">(.*?)</pre>', shown, re.DOTALL)
    assert found, shown[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [1280, 500])
def test_a_reader_sorts_filters_and_follows_links(run_dir, volumes, tmp_path, width):
    page = report_page(read_run(run_dir), tmp_path / "r.html", volumes).read_text(encoding="utf-8")
    seen = in_browser(page, tmp_path, width)
    assert seen["errors"] == []
    assert seen["first"][0] == [WORST, "core"]
    assert seen["ascending"][0] == [WORST, "rim <b>"]
    assert seen["descending"][-1] == [WORST, "rim <b>"]
    assert seen["sorted"] == "Dice"
    assert seen["distance"][-1] == [WORST, "rim <b>"]  # a missed class has none
    assert seen["faults"] == [[WORST, "rim <b>"]]
    assert seen["led"] == [WORST, WORST]
    assert seen["unfiltered"] == 6
    assert seen["filtered"] == [["half", "core"]]
    assert seen["counted"] == "1 of 6 rows"
    assert (seen["before"], seen["after"]) == ("visible", "hidden")
    assert seen["wide"]
    installed = importlib.util.find_spec("ipyniivue") is not None
    assert seen["viewer"] == ("yes" if installed else None), seen["words"]


def focused(page: Page) -> str:
    """What has the focus, by its id, or else its words; and whether that can be seen."""
    return page.value(
        """(() => { const e = document.activeElement, s = getComputedStyle(e);
        const name = e.id || e.getAttribute("aria-label") || e.textContent;
        return e === document.body || s.outlineStyle === "none" ? "" : name; })()"""
    )


def test_all_that_can_be_clicked_can_be_reached_and_used_by_keyboard(run_dir, volumes, tmp_path):
    file = report_page(read_run(run_dir), tmp_path / "r.html", volumes)
    with Page(file, tmp_path / "profile") as page:
        reached = []
        for _ in range(60):
            page.press("Tab", 9)
            if not (name := focused(page)):
                break
            reached.append(name)
            if name == "outlines":
                page.press(" ", 32, " ")
                assert page.value("document.body.classList.contains('plain')")
            if name == "Dice":
                page.press("Enter", 13, "\r")
                assert page.value("document.querySelector('#all-cases tbody td[data-v]').textContent") == "rim <b>"
        links = page.value("[...document.querySelectorAll('nav a')].map((link) => link.textContent)")
        heads = page.value("[...document.querySelectorAll('#all-cases thead button')].map((head) => head.textContent)")
        viewer = ["v-start"] if importlib.util.find_spec("ipyniivue") else []
        shown = [WORST, "half", "good"]
        filters = ["by-name", "by-class", "by-fault"]
        assert reached[:2] == [WORST, "Summary"]
        assert reached[2:] == [*links, "outlines", *shown, *viewer, *filters, "Every case", *heads, reached[-1]]
        assert reached[-1].startswith("Digests")


def test_paper_has_what_can_be_read_on_paper(run_dir, volumes, tmp_path):
    file = report_page(read_run(run_dir), tmp_path / "r.html", volumes)
    with Page(file, tmp_path / "profile") as page:
        page.ask("Emulation.setEmulatedMedia", media="print")

        def display(what: str) -> str:
            return page.value(f"getComputedStyle(document.querySelector('{what}')).display")

        for gone in ("nav", "#in-3d", "#filters", "details", "thead button"):
            assert display(gone) == "none", gone
        # Chromium repeats no buttons on further sheets: the head is written by the style.
        head = "getComputedStyle(document.querySelectorAll('#all-cases thead th')[2], '::before').content"
        assert page.value(head) == '"Dice"'
        assert page.value("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
        assert page.ask("Page.printToPDF")["data"]


@pytest.mark.skipif(importlib.util.find_spec("ipyniivue") is None, reason="the extra `viewer` is not installed")
def test_the_viewer_moves_by_keyboard_and_lets_go_of_it(run_dir, volumes, tmp_path):
    file = report_page(read_run(run_dir), tmp_path / "r.html", volumes)
    ready = """new Promise((done) => { const viewer = document.getElementById("viewer");
        const tell = () => viewer.dataset.ready && done(viewer.dataset.ready);
        new MutationObserver(tell).observe(viewer, { attributes: true }); tell(); })"""
    with Page(file, tmp_path / "profile") as page:
        page.value("document.getElementById('v-start').focus()")
        page.press("Enter", 13, "\r")
        assert page.value(ready) == "yes"
        assert focused(page) == "v-case"
        for _ in range(8):
            page.press("Tab", 9)
        assert focused(page) == "The case in three planes and in 3D"

        def moved(*keys: tuple[str, int]) -> list[float]:
            for key in keys:
                page.press(*key)
            text = page.value("document.getElementById('v-place').textContent")
            return [float(number) for number in re.findall(r"-?[\d.]+", text)[:3]]

        left, up, deeper = ("ArrowLeft", 37), ("ArrowUp", 38), ("PageUp", 33)
        start = moved(left)
        # One voxel each, of 1 x 2 x 4 mm; the patient's right is on the left.
        assert [b - a for a, b in zip(start, moved(left, up, deeper), strict=True)] == [1.0, 2.0, 4.0]
        page.press("Tab", 9)
        assert focused(page) == "by-name"
