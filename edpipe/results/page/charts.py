"""The charts of pages, as specifications of Vega-Lite: values in, SVG out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edpipe.results.page.units import percent
from edpipe.results.page.vega import Row, svg, xml_text

NARROWEST_SCALE = 0.1
"""A scale of top1 spans at least this much, so that noise does not look like a difference."""
FAINTEST, STRONGEST = 0.06, 0.6
"""Opacities of a heat map's colour; text stays readable on both, on light and on dark ground."""
SHORTEST_NAMED = 0.05
"""Share of an axis that a stage must take for its name to stand at it."""
LONGEST_NAME = 16
"""Characters of a name in a chart; tables have the whole name."""
MOST_NAMED = 15
"""Results whose names stand in a plane; more have their numbers."""
TOP1_AXIS = {"format": "~%", "title": "top1", "tickCount": 5}


def scale_of(values: Sequence[float]) -> tuple[float, float]:
    """The smallest range in whole points, inside 0 to 1, that holds all values and is wide enough to be fair.

    >>> scale_of([0.93, 0.964])
    (0.88, 0.98)
    """
    low, high = math.floor(min(values) * 100), math.ceil(max(values) * 100)
    lacking = max(0, round(NARROWEST_SCALE * 100) - (high - low))
    high = min(100, high + lacking // 4)
    low = max(0, min(low, high - round(NARROWEST_SCALE * 100)))
    return low / 100, max(high, low + round(NARROWEST_SCALE * 100)) / 100


def shortened(name: str) -> str:
    """As much of a name as a chart has room for.

    >>> shortened("university")
    'university'
    """
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map, by numbers of row and column; names may be equal."""

    row: int
    column: int
    value: float | None
    """None: there is no value, and the cell is drawn empty."""
    text: str


@dataclass(frozen=True)
class HeatMap:
    """A table whose cells are coloured by their values."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    cell_size: tuple[int, int]
    """Width and height, SVG units."""
    row_title: str
    column_title: str
    is_signed: bool = False
    """Whether values below 0 have a colour of their own."""
    turned: bool = False
    """Whether the names of columns stand upright, for narrow cells."""

    def svg(self, label: str, low: float, high: float) -> Markup:
        """Colours from `low`, the faintest, to `high`; of signed values by their size."""
        values = [self._value(cell) for cell in self.cells]
        position = {"x": _axis("column", self.columns, self.column_title, "top", -90 if self.turned else 0)}
        position |= {"y": _axis("row", self.rows, self.row_title, "left", 0)}
        opacity = {"field": "strength", "type": "quantitative", "legend": None}
        opacity["scale"] = {"domain": [low, high], "range": [FAINTEST, STRONGEST], "clamp": True}
        colour = {"condition": {"test": "datum.negative", "value": "var(--other)"}, "value": "var(--accent)"}
        tile = {"type": "rect", "cornerRadius": 4, "xOffset": 1, "x2Offset": -1, "yOffset": 1, "y2Offset": -1}
        full = {"transform": [{"filter": "datum.strength !== null"}], "mark": tile}
        full["encoding"] = {"fillOpacity": opacity, "fill": colour}
        empty: dict[str, Any] = {"transform": [{"filter": "datum.strength === null"}]}
        empty["mark"] = {**tile, "fill": None, "stroke": "var(--line)", "strokeDash": [3, 3]}
        words = {"mark": {"type": "text", "lineBreak": "\n", "baseline": "middle", "fontSize": 11}}
        words["encoding"] = {"text": {"field": "text"}}
        width, height = self.cell_size
        size = {"width": width * len(self.columns), "height": height * len(self.rows)}
        spec = {"data": {"values": values}, **size, "encoding": position, "layer": [full, empty, words]}
        return svg(spec, label)

    def _value(self, cell: Cell) -> dict[str, Any]:
        strength = None if cell.value is None else abs(cell.value) if self.is_signed else cell.value
        found = {"row": cell.row, "column": cell.column, "text": cell.text.split("\n"), "strength": strength}
        return found | {"negative": self.is_signed and (cell.value or 0) < 0}


def _axis(field: str, names: Sequence[str], title: str, orient: str, angle: int) -> dict[str, Any]:
    """An axis of names, placed by number: names may be equal, and texts in data cannot become expressions."""
    texts = {str(number): shortened(name) for number, name in enumerate(names)}
    axis = {"title": title or None, "orient": orient, "labelAngle": angle, "labelLimit": 150, "grid": False}
    axis |= {"labelExpr": f"{_as_literal(texts)}[datum.value]"}
    return {"field": field, "type": "ordinal", "axis": axis, "scale": {"domain": list(range(len(names))), "padding": 0}}


def _as_literal(texts: Mapping[str, str]) -> str:
    """An object of Vega's expressions; every character that is no plain letter is written by its number."""

    def quoted(text: str) -> str:
        units = xml_text(text).encode("utf-16-be")
        return "'" + "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)) + "'"

    return "{" + ",".join(f"{quoted(key)}:{quoted(value)}" for key, value in texts.items()) + "}"


def subset_panel(rows: Sequence[Row], stages: Sequence[str], scale: tuple[float, float], label: str) -> Markup:
    """Top1 on one subset over the stages; rows: stage (its number from 0), seed, top1."""
    names = stages if len(stages) <= 3 else [str(number) for number in range(1, len(stages) + 1)]
    x = _axis("stage", names, "", "bottom", 0)
    y = {"field": "top1", "type": "quantitative", "axis": {**TOP1_AXIS, "title": None}}
    y["scale"] = {"domain": list(scale), "zero": False, "nice": False}
    spec = {"data": {"values": list(rows)}, "width": 190, "height": 120, "encoding": {"x": x}}
    return svg({**spec, "layer": _seeds_and_mean("top1", y)}, label)


def _seeds_and_mean(field: str, y: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A thin line for each seed, and a bold one of their mean, both with points."""
    thin = {"type": "line", "strokeWidth": 1, "opacity": 0.55, "color": "var(--accent)"}
    thin["point"] = {"size": 14, "color": "var(--accent)", "opacity": 0.55}
    bold = {"type": "line", "strokeWidth": 2.5, "color": "var(--accent)"}
    bold["point"] = {"size": 40, "color": "var(--accent)"}
    mean = {**y, "aggregate": "mean", "field": field}
    return [
        {"mark": thin, "encoding": {"y": y, "detail": {"field": "seed"}}},
        {"mark": bold, "encoding": {"y": mean}},
    ]


@dataclass(frozen=True)
class Switch:
    """Where a stage begins on the axis of images."""

    stage: str
    images: int
    """Seen before it."""


def learning_curves(rows: Sequence[Row], switches: Sequence[Switch], field: str, title: str, label: str) -> Markup:
    """A quantity over the images seen; rows: seed, stage, images (of all stages until then), and the field."""
    end = max(row["images"] for row in rows)
    stages = [{"images": s.images, "name": name} for s, name in zip(switches, _named(switches, end), strict=True)]
    x = {"field": "images", "type": "quantitative", "axis": {"title": "images seen", "format": "~s", "grid": False}}
    x["scale"] = {"domain": [0, end], "nice": False}
    y = {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}
    y["axis"] = {**TOP1_AXIS, "title": title} if field.endswith("top1") else {"title": title, "tickCount": 5}
    detail = {"detail": [{"field": "seed"}, {"field": "stage"}], "y": y}
    thin = {"type": "line", "strokeWidth": 1, "opacity": 0.45, "color": "var(--accent)"}
    bold = {"type": "line", "strokeWidth": 2.25, "color": "var(--accent)"}
    mean = {"y": {**y, "aggregate": "mean"}, "detail": {"field": "stage"}}
    rule = {"type": "rule", "strokeDash": [3, 3], "color": "var(--soft)", "opacity": 0.7}
    text = {"type": "text", "align": "left", "dx": 3, "y": 0, "dy": -6, "fontSize": 11, "color": "var(--soft)"}
    layers = [{"mark": thin, "encoding": detail}, {"mark": bold, "encoding": mean}]
    marks = [{"mark": rule}, {"mark": text, "encoding": {"text": {"field": "name"}}}]
    layers += [{"data": {"values": stages}, **mark} for mark in marks]
    spec = {
        "data": {"values": list(rows)},
        "width": 560,
        "height": 170,
        "padding": {"top": 18, "bottom": 5, "left": 5, "right": 14},
    }
    return svg({**spec, "encoding": {"x": x}, "layer": layers}, label)


def _named(switches: Sequence[Switch], end: int) -> list[str]:
    """Names of the stages that are long enough on the axis; empty for the others."""
    ends = [*(switch.images for switch in switches[1:]), end]
    wide = [(stop - switch.images) / end >= SHORTEST_NAMED for switch, stop in zip(switches, ends, strict=True)]
    return [shortened(switch.stage) if is_wide else "" for switch, is_wide in zip(switches, wide, strict=True)]


def reliability(rows: Sequence[Row], label: str) -> Markup:
    """Top1 against confidence; rows: low, high, confidence, top1, images, of bins that are not empty."""
    domain = {"scale": {"domain": [0, 1]}}
    x = {"field": "low", "type": "quantitative", "bin": "binned", "axis": {"title": "confidence", "format": "~%"}}
    y = {"field": "top1", "type": "quantitative", "axis": {**TOP1_AXIS, "title": "top1 of these images"}}
    bars = {"mark": {"type": "bar", "color": "var(--accent)", "opacity": 0.55}}
    bars["encoding"] = {"x": {**x, **domain}, "x2": {"field": "high"}, "y": {**y, **domain}}
    ends = {"values": [{"low": 0, "top1": 0}, {"low": 1, "top1": 1}]}
    line = {"data": ends, "mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--soft)"}}
    line["encoding"] = {"x": {"field": "low", "type": "quantitative"}, "y": {"field": "top1", "type": "quantitative"}}
    return svg({"data": {"values": list(rows)}, "width": 280, "height": 240, "layer": [bars, line]}, label)


def top1_dots(rows: Sequence[Row], label: str) -> Markup:
    """Results below each other; rows: place (from 0), name, top1, low and high (both top1 where n is 1), is_own."""
    names = [row["name"] for row in rows]
    low, high = scale_of([row[end] for row in rows for end in ("low", "high")])
    x = {"type": "quantitative", "axis": {**TOP1_AXIS, "title": "top1 on the test split"}}
    x["scale"] = {"domain": [low, high], "zero": False, "nice": False}
    colour = {"condition": {"test": "datum.is_own", "value": "var(--accent)"}, "value": "var(--soft)"}
    bar = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
    }
    dot = {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1}}
    dot["encoding"] = {"x": {**x, "field": "top1"}}
    for layer in (bar, dot):
        layer["encoding"]["color"] = colour
    position = {"y": _axis("place", names, "", "left", 0)}
    spec = {"data": {"values": list(rows)}, "width": 420, "height": 34 * len(rows), "encoding": position}
    return svg({**spec, "layer": [bar, dot]}, label)


def top1_against_compute(rows: Sequence[Row], label: str) -> Markup:
    """Results in a plane; rows: name, top1, low, high, macs. The axis of compute is logarithmic."""
    macs = [row["macs"] for row in rows]
    low, high = scale_of([row[end] for row in rows for end in ("low", "high")])
    across = {"type": "log", "domain": [min(macs) / 1.25, max(macs) * 1.6], "nice": False}
    x = {"field": "macs", "type": "quantitative", "scale": across}
    x["axis"] = {"title": "training of one student, MACs (logarithmic)", "format": "~s", "grid": False, "tickCount": 4}
    y = {"type": "quantitative", "axis": {**TOP1_AXIS, "title": "top1 on the test split"}}
    y["scale"] = {"domain": [low, high], "zero": False, "nice": False}
    bar = {"mark": {"type": "rule", "color": "var(--accent)", "opacity": 0.6}}
    bar["encoding"] = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    dot = {"mark": {"type": "point", "filled": True, "size": 60, "color": "var(--accent)", "opacity": 1}}
    dot["encoding"] = {"y": {**y, "field": "top1"}}
    name = {"mark": {"type": "text", "align": "left", "dx": 8, "fontSize": 11}}
    name["encoding"] = {"y": {**y, "field": "label_top1"}, "text": {"field": "name"}}
    apart = spread_out([row["top1"] for row in rows], (high - low) / 20, high)
    names = [shortened_wide(row["name"]) for row in rows]
    shown = names if len(rows) <= MOST_NAMED else [str(number) for number in range(1, len(rows) + 1)]
    values = [{**row, "label_top1": at, "name": name} for row, at, name in zip(rows, apart, shown, strict=True)]
    spec = {"data": {"values": values}, "width": 520, "height": 300, "encoding": {"x": x}}
    return svg({**spec, "layer": [bar, dot, name]}, label)


def shortened_wide(name: str) -> str:
    """As much of a name as stands beside a dot."""
    return name if len(name) <= 2 * LONGEST_NAME else name[: 2 * LONGEST_NAME - 1] + "…"


def spread_out(values: Sequence[float], step: float, highest: float) -> list[float]:
    """The values, moved up where they are closer than a step to the one below, and down below the highest place.

    >>> spread_out([1.0, 0.0, 0.1], 0.5, 2.0), spread_out([1.0, 1.0], 0.5, 1.0)
    ([1.0, 0.0, 0.5], [0.5, 1.0])
    """
    order, found, last = sorted(range(len(values)), key=lambda n: values[n]), {}, -math.inf
    for number in order:
        last = found[number] = max(values[number], last + step)
    limit = max(highest, max(values))
    for number in reversed(order):
        found[number] = min(found[number], limit)
        limit = found[number] - step
    return [found[number] for number in range(len(values))]


def matrix_text(mean: float, std: float | None) -> str:
    """What stands in a cell of the accuracy matrix."""
    return percent(mean) + (f"\n± {std * 100:.1f}" if std is not None else "")
