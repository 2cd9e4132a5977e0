"""What is written can be read, and lines told from the page: WCAG 2.1's contrast, on screen, in the dark, on paper."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import pipeline.report
from pipeline.handlers.panel import PREDICTION_COLOURS, REFERENCE_COLOURS

STYLE = (Path(pipeline.report.__file__).parent / "page" / "report.css").read_text(encoding="utf-8")
LIGHT, DARK, PAPER = (
    dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{([^}]*)\}", STYLE)
)
THEMES = pytest.mark.parametrize("theme", [LIGHT, LIGHT | DARK, LIGHT | PAPER], ids=["light", "dark", "paper"])
TEXT, GRAPHICS = 4.5, 3.0  # 1.4.3 and 1.4.11, level AA


def luminance(colour: tuple[int, ...]) -> float:
    shares = [part / 255 for part in colour]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def rgb(text: str) -> tuple[int, ...]:
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.005)  # the well-known near miss


def test_the_dark_and_the_paper_leave_no_colour_to_the_screen():
    assert set(DARK) == set(PAPER) == set(LIGHT)


@THEMES
@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("ink", "page"),
        ("faint", "page"),
        ("accent", "page"),
        ("bad", "bad-soft"),
        ("odd", "odd-soft"),
        ("faint", "soft"),
    ],
)
def test_words(theme, ink, paper):
    assert contrast(rgb(theme[ink]), rgb(theme[paper])) >= TEXT


@THEMES
def test_lines_and_points(theme):
    too_faint = [n for n in range(6) if contrast(rgb(theme[f"s{n}"]), rgb(theme["page"])) < GRAPHICS]
    assert too_faint == []


@pytest.mark.parametrize("colour", [*REFERENCE_COLOURS, *PREDICTION_COLOURS])
def test_outlines_on_the_dark_of_an_image(colour):
    assert contrast(colour, (64, 64, 64)) >= GRAPHICS


def test_the_marks_of_a_data_check():
    pairs = re.findall(r"background: (#\w+); color: (#\w+)", import_module("pipeline.report.check_page")._STYLE)
    assert len(pairs) == 5
    assert [pair for pair in pairs if contrast(*map(rgb, pair)) < TEXT] == []
