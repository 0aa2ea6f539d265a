"""Results of a study as a picture, SVG: top1 on the test split against the compute of the student's training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

WIDTH, HEIGHT = 820.0, 440.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 560.0, 20.0, 390.0
"""Edges of the drawing area; names stand on its right."""
LABEL_X, LABEL_STEP = 584.0, 17.0
"""Where names begin, and how far apart they are at least."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999", "#7a5195")
"""Of Okabe and Ito, told apart by most people who do not see all colours; the last is ours."""
STYLE = (
    "text{font:13px sans-serif;fill:#24292f} .axis{stroke:#8c959f;stroke-width:1} .grid{stroke:#8c959f;opacity:.25} "
    "@media(prefers-color-scheme:dark){text{fill:#d0d7de}}"
)
TERA = 10**12


@dataclass(frozen=True)
class Axis:
    """Values along one direction of the drawing area."""

    low: float
    high: float
    start: float
    """Where the low end is, SVG units."""
    end: float

    def at(self, value: float) -> float:
        """Position of a value, SVG units."""
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)


def study_figure(study: Mapping[str, Any]) -> str:
    """An SVG of what `study_facts` gives.

    A dot is the mean over seeds, its bar the 95 % interval. A line joins results that differ in their budget alone. The
    axis of compute is logarithmic.
    """
    rows = sorted(study["results"], key=lambda row: (row["training_macs"], row["name"]))
    across, up = _compute_axis(rows), _top1_axis(rows)
    curves = _curves(rows)
    bottom = max(HEIGHT, TOP + LABEL_STEP * len(curves))
    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH:g} {bottom:g}", role="img")
    ET.SubElement(root, "title").text = f"{study['study']}: top1 against compute"
    ET.SubElement(root, "style").text = STYLE
    _draw_axes(root, across, up, rows)
    heights = spread_out([up.at(100 * curve[-1]["top1"]["mean"]) for curve in curves], bottom)
    for number, (curve, height) in enumerate(zip(curves, heights, strict=True)):
        _draw_curve(root, curve, across, up, COLOURS[number % len(COLOURS)], height)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows that differ in their budget alone, by compute; the best at its largest budget is first."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        curves.setdefault(row["curve"], []).append(row)
    return sorted(curves.values(), key=lambda curve: -curve[-1]["top1"]["mean"])


def _compute_axis(rows: Sequence[Mapping[str, Any]]) -> Axis:
    """Of the logarithm of MACs, a little wider than what is shown."""
    logs = [math.log10(row["training_macs"]) for row in rows]
    room = max(0.05 * (max(logs) - min(logs)), 0.05)
    return Axis(min(logs) - room, max(logs) + room, LEFT, RIGHT)


def _top1_axis(rows: Sequence[Mapping[str, Any]]) -> Axis:
    """In percent, from whole to whole number."""
    ends = [100 * row["top1"][end] for row in rows for end in ("low", "high", "mean") if row["top1"][end] is not None]
    low, high = math.floor(max(min(ends), 0)), math.ceil(min(max(ends), 100))
    high = max(high, 1)
    return Axis(float(min(low, high - 1)), float(high), BOTTOM, TOP)


def spread_out(heights: Sequence[float], bottom: float = HEIGHT) -> list[float]:
    """Ascending heights, moved down as little as keeps names `LABEL_STEP` apart, and then up as far as they stick out.

    >>> spread_out([20.0, 22.0, 100.0])
    [20.0, 37.0, 100.0]
    """
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL_STEP) if placed else height)
    for i in range(len(placed) - 1, -1, -1):
        lowest = placed[i + 1] - LABEL_STEP if i + 1 < len(placed) else bottom - 8
        placed[i] = min(placed[i], lowest)
    return placed


def _draw_axes(root: ET.Element, across: Axis, up: Axis, rows: Sequence[Mapping[str, Any]]) -> None:
    """Lines and numbers of top1, at most eleven; a mark for each compute that has room, and what both axes are."""
    step = next(s for s in (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if (up.high - up.low) / s <= 10)
    for k in range(math.floor((up.high - up.low) / step + 1e-9) + 1):
        value = up.low + k * step
        y = up.at(value)
        _line(root, LEFT, y, RIGHT, y, {"class": "grid"})
        _text(root, LEFT - 8, y + 4, f"{value:g}", "end")
    for macs in _marked([row["training_macs"] for row in rows], across):
        x = across.at(math.log10(macs))
        _line(root, x, BOTTOM, x, BOTTOM + 5, {"class": "axis"})
        _text(root, x, BOTTOM + 20, f"{macs / TERA:.3g}", "middle")
    _line(root, LEFT, BOTTOM, RIGHT, BOTTOM, {"class": "axis"})
    _text(root, (LEFT + RIGHT) / 2, BOTTOM + 40, "compute of the student's training, TMAC", "middle")
    middle = (TOP + BOTTOM) / 2
    _text(root, 16.0, middle, "top1, test split, %", "middle").set("transform", f"rotate(-90 16 {middle:g})")


def _marked(values: Sequence[int], across: Axis) -> list[int]:
    """Those whose numbers have room beside each other."""
    kept: list[int] = []
    for value in sorted(values):
        if not kept or across.at(math.log10(value)) - across.at(math.log10(kept[-1])) >= 45:
            kept.append(value)
    return kept


def _draw_curve(
    root: ET.Element, curve: Sequence[Mapping[str, Any]], across: Axis, up: Axis, colour: str, label_y: float
) -> None:
    """Dots, intervals, the line between them, and the name of the last one beside the drawing area."""
    group = ET.SubElement(root, "g", stroke=colour, fill=colour)
    dots = [(across.at(math.log10(row["training_macs"])), up.at(100 * row["top1"]["mean"])) for row in curve]
    if len(dots) > 1:
        points = " ".join(f"{x:g},{y:g}" for x, y in dots)
        ET.SubElement(group, "polyline", {"points": points, "fill": "none", "stroke-width": "1.5"})
    for row, (x, y) in zip(curve, dots, strict=True):
        dot = ET.SubElement(group, "circle", cx=f"{x:g}", cy=f"{y:g}", r="3.5")
        ET.SubElement(dot, "title").text = f"{row['name']}: {100 * row['top1']['mean']:.2f} %, n = {len(row['seeds'])}"
        if row["top1"]["low"] is not None:
            low, high = (up.at(min(max(100 * row["top1"][end], up.low), up.high)) for end in ("low", "high"))
            _line(group, x, low, x, high, {"stroke-width": "1.5"})
    x, y = dots[-1]
    _line(group, x + 5, y, LABEL_X - 4, label_y, {"stroke-width": "0.5", "opacity": "0.6"})
    _text(group, LABEL_X, label_y + 4, curve[-1]["name"], "start").set("stroke", "none")


def _line(parent: ET.Element, x1: float, y1: float, x2: float, y2: float, more: dict[str, str]) -> None:
    ends = {name: f"{value:g}" for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    ET.SubElement(parent, "line", ends | more)


def _text(parent: ET.Element, x: float, y: float, text: str, anchor: str) -> ET.Element:
    made = ET.SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor})
    made.text = text
    return made
