"""The frame of a chart as inline SVG: scales, ticks, grid, words. Colours are the page's, by class names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from matplotlib.ticker import MaxNLocator


class Frame:
    """The area of a chart and its scales.

    Args:
        x_range, y_range: of the data; widened to whole ticks.
        width, height: of the whole, px.
        left, bottom, right: px for ticks and words.
        y_ticks: whether the y axis has numbers; categories are put there by the caller.
    """

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        width: int = 460,
        height: int = 260,
        left: int = 58,
        bottom: int = 44,
        right: int = 12,
        y_ticks: bool = True,
    ) -> None:
        self.width, self.height, self.left, self.right, self.y_ticks = width, height, left, right, y_ticks
        self.top, self.low_edge = 10, height - bottom
        self.xs = ticks(*x_range)
        self.ys = ticks(*y_range) if y_ticks else list(y_range)

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / (self.xs[-1] - self.xs[0])
        return round(self.left + share * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        share = (value - self.ys[0]) / (self.ys[-1] - self.ys[0])
        return round(self.low_edge - share * (self.low_edge - self.top), 1)

    def drawn(self, inside: str, x_words: str, y_words: str, title: str) -> str:
        """The whole picture; ``title`` is what a screen reader says of it."""
        right = self.width - self.right
        parts = []
        for value in self.xs:
            x = self.x(value)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{self.top}" y2="{self.low_edge}"/>')
            parts.append(f'<text x="{x}" y="{self.low_edge + 16}" text-anchor="middle">{number(value, self.xs)}</text>')
        for value in self.ys if self.y_ticks else ():
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{right}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{self.left - 6}" y="{y + 4}" text-anchor="end">{number(value, self.ys)}</text>')
        middle = (self.left + right) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(x_words)}</text>')
        if y_words:
            at = (self.top + self.low_edge) / 2
            parts.append(
                f'<text transform="translate(13 {at}) rotate(-90)" text-anchor="middle">{escape(y_words)}</text>'
            )
        size = f'viewBox="0 0 {self.width} {self.height}" style="max-width:{self.width}px"'
        said = f"<title>{escape(title)}</title>"
        return (
            f'<svg class="chart" role="group" {size} aria-label="{escape(title)}">{said}{"".join(parts)}{inside}</svg>'
        )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, which is never empty.

    >>> ticks(0.12, 0.88)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    return [round(float(value), 12) for value in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def number(value: float, among: Sequence[float]) -> str:
    """A tick, with as many digits as its neighbours need to differ.

    >>> number(0.5, [0.0, 0.25, 0.5]), number(2000.0, [0.0, 2000.0]), number(0.002, [0.001, 0.002])
    ('0.50', '2000', '0.002')
    """
    step = among[1] - among[0]
    digits = next((d for d in range(8) if math.isclose(step * 10**d, round(step * 10**d), abs_tol=1e-6)), 8)
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if value else "0"


def point(x: float, y: float, series: int, words: str, anchor: str) -> str:
    """A case: says its name, leads to its row of the table."""
    said = escape(words)
    dot = f'<circle class="dot s{series % 6}" cx="{x}" cy="{y}" r="3.5"><title>{said}</title></circle>'
    return f'<a href="#{anchor}" aria-label="{said}" tabindex="-1">{dot}</a>'
