"""The charts of a report: curves over iterations, distributions over cases, agreement of volumes (Bland and Altman,
Lancet 1986)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from pipeline.metrics import Row
from pipeline.report.ranking import anchors, ml
from pipeline.report.run_results import Curve
from pipeline.report.svg import Frame, point

_LIMIT_SD = 1.96


def curve_chart(curves: Mapping[str, Curve], y_words: str) -> str:
    """Lines over iterations; a legend where there are several. What they are of, the heading above says."""
    points = [p for curve in curves.values() for p in curve]
    xs, ys = ([p[axis] for p in points] for axis in (0, 1))
    frame = Frame((min(xs), max(xs)), (min(ys), max(ys)))
    parts, legend = [], []
    for series, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in curve)
        parts.append(f'<polyline class="line s{series % 6}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(curve) <= 25:
            dots = (
                f'<circle class="dot s{series % 6}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="2.5"/>' for x, y in curve
            )
            parts += dots
        legend.append(
            f'<li><svg class="key" viewBox="0 0 26 10" aria-hidden="true">'
            f'<line class="line s{series % 6}" x1="0" x2="26" y1="5" y2="5"/></svg> {escape(name)}</li>'
        )
    last = "; ".join(f"{name} {curve[-1][1]:.4g} at the end" for name, curve in curves.items())
    chart = frame.drawn("".join(parts), "iteration", "", f"{y_words} over iterations: {last}")
    keys = f'<ul class="legend">{"".join(legend)}</ul>' if len(curves) > 1 else ""
    return f"{chart}{keys}"


def distribution_chart(rows: Sequence[Row], measure: str, x_words: str) -> str:
    """A box (median, quartiles, whiskers to the last case within 1.5 boxes) and every case as a point, per class.

    A case that has no value (the distance of a missed class) is counted in the words beside its class.
    """
    classes: dict[str, list[Row]] = {}
    for row in rows:
        classes.setdefault(row.result.class_name, []).append(row)
    places = anchors(rows)
    defined = {name: [row for row in own if math.isfinite(row.value(measure))] for name, own in classes.items()}
    values = [row.value(measure) for own in defined.values() for row in own]
    if not values:
        return f"<p>No case has a value of {escape(x_words)}.</p>"
    band = 64
    # Numbers that are shares end at 1, and no distance lies below 0, whatever the ticks.
    frame = Frame(
        (min(values), max(values)), (0, len(classes)), height=54 + band * len(classes), left=112, y_ticks=False
    )
    parts, said = [], []
    for number, (name, own) in enumerate(defined.items()):
        middle = frame.top + band * (number + 0.5)
        lacking = len(classes[name]) - len(own)
        label = f'<text x="104" y="{middle + (0 if lacking else 4)}" text-anchor="end">{escape(_short(name))}</text>'
        if lacking:
            label += f'<text class="faint" x="104" y="{middle + 15}" text-anchor="end">{lacking} without</text>'
        parts.append(label)
        if not own:
            continue
        found = np.array([row.value(measure) for row in own])
        low, median, high = np.percentile(found, (25, 50, 75))
        reach = 1.5 * (high - low)
        ends = found[(found >= low - reach) & (found <= high + reach)]
        x = [frame.x(float(v)) for v in (ends.min(), low, median, high, ends.max())]
        parts.append(
            f'<line class="whisker" x1="{x[0]}" x2="{x[4]}" y1="{middle}" y2="{middle}"/>'
            f'<rect class="box s{number % 6}" x="{x[1]}" y="{middle - 15}" width="{max(1.0, round(x[3] - x[1], 1))}" '
            f'height="30"/><line class="median" x1="{x[2]}" x2="{x[2]}" y1="{middle - 15}" y2="{middle + 15}"/>'
        )
        for index, row in enumerate(own):
            off = ((index * 0.618034) % 1 - 0.5) * 34  # spread evenly, the same in every report
            value = row.value(measure)
            words = f"{row.case_id}, {name}: {value:.3g}"
            parts.append(point(frame.x(value), round(middle + off, 1), number, words, places[row.case_id]))
        said.append(
            f"{name} median {median:.3g}, quartiles {low:.3g} and {high:.3g}, {found.min():.3g} to {found.max():.3g}"
        )
    return frame.drawn("".join(parts), x_words, "", f"{x_words}: {'; '.join(said)}")


def agreement_chart(rows: Sequence[Row], class_name: str, series: int) -> str:
    """Volume of prediction minus reference over the mean of both, ml; the mean difference and the limits between which
    95% of normally distributed differences lie (mean +- 1.96 standard deviations)."""
    places = anchors(rows)
    own = [row for row in rows if row.result.class_name == class_name and row.result.status != "absent"]
    own = [row for row in own if math.isfinite(row.result.volume_difference_ml)]
    if len(own) < 2:
        return f"<p>{escape(class_name)}: too few volumes.</p>"
    differences = np.array([row.result.volume_difference_ml for row in own])
    means = [(row.result.volume_prediction_ml + row.result.volume_reference_ml) / 2 for row in own]
    bias, spread = float(differences.mean()), float(differences.std(ddof=1))
    lines = {"mean": bias, "+1.96 SD": bias + _LIMIT_SD * spread, "\N{MINUS SIGN}1.96 SD": bias - _LIMIT_SD * spread}
    reach = [*differences, *lines.values(), 0.0]
    frame = Frame((min(means), max(means)), (min(reach), max(reach)), right=112)
    edge = frame.width - frame.right
    parts = [f'<line class="zero" x1="{frame.left}" x2="{edge}" y1="{frame.y(0)}" y2="{frame.y(0)}"/>']
    for name, value in lines.items():
        y = frame.y(value)
        kind = "mean" if name == "mean" else "limit"
        parts.append(f'<line class="{kind}" x1="{frame.left}" x2="{edge}" y1="{y}" y2="{y}"/>')
    for y, name, value in _apart([(frame.y(v), n, v) for n, v in lines.items()]):
        parts.append(f'<text x="{edge + 5}" y="{y + 4}">{name} {_signed(value)}</text>')
    for row, mean in zip(own, means, strict=True):
        difference = row.result.volume_difference_ml
        words = f"{row.case_id}, {class_name}: {_signed(difference)} ml of {ml(row.result.volume_reference_ml)}"
        parts.append(point(frame.x(mean), frame.y(difference), series, words, places[row.case_id]))
    title = (
        f"Volume of {class_name}: on average {_signed(bias)} ml; 95% of the differences between "
        f"{_signed(lines[chr(0x2212) + '1.96 SD'])} and {_signed(lines['+1.96 SD'])} ml"
    )
    chart = frame.drawn("".join(parts), "mean of prediction and reference, ml", "prediction − reference, ml", title)  # noqa: RUF001
    return f"{chart}<figcaption>{escape(title)}.</figcaption>"


def _apart(labels: list[tuple[float, str, float]]) -> list[tuple[float, str, float]]:
    """Words beside lines, moved so that none covers another."""
    placed: list[tuple[float, str, float]] = []
    for y, name, value in sorted(labels):
        placed.append((max(y, placed[-1][0] + 13) if placed else y, name, value))
    return placed


def _signed(value: float) -> str:
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _short(name: str, most: int = 15) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
