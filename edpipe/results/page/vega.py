"""Charts of pages: Vega-Lite specifications drawn as SVG, without a script and without a network."""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

FONT = "Liberation Sans"
"""Comes with vl-convert, so that texts have the same width on every machine; the style of a page shows another."""
CONFIG: dict[str, Any] = {
    "aria": False,  # the picture is described as a whole; hundreds of described marks tire a reader
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--line)",
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelPadding": 6,
    },
    "legend": {"labelColor": "var(--ink)", "titleColor": "var(--soft)", "labelFontSize": 12, "titleFontSize": 12},
    "title": {"color": "var(--ink)", "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--soft)"},
}
_ROOT = re.compile(r"^<svg[^>]*>")
_MARKS_SAID = re.compile(r' (?:role|aria-roledescription|aria-hidden|aria-label)="[^"]*"')
"""Vega gives every group of marks a role, and no name."""
_VIEW_BOX = re.compile(r'viewBox="([\d. -]+)"')

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold: at one of them vl-convert would end the process."""

Row = Mapping[str, Any]


def xml_text(text: str) -> str:
    """The text with a sign of its own for each character that XML cannot hold.

    >>> xml_text("a\\x00b")
    'a�b'
    """
    return _NO_XML.sub("\ufffd", text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return xml_text(value)
    if isinstance(value, Mapping):
        return {name: _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, (list, tuple)) else value


def svg(spec: Mapping[str, Any], label: str) -> Markup:
    """A chart as an inline SVG that takes no more than its own width; `label` says in words what it shows.

    Raises:
        ValueError: it is no specification of Vega-Lite.
    """
    import vl_convert  # here, since it brings an engine of 30 MB

    drawn = vl_convert.vegalite_to_svg(_clean({"config": CONFIG, **spec}), vl_version="6.4")
    box = _VIEW_BOX.search(drawn)
    if box is None:
        raise ValueError(f"the chart '{label}' has no size")
    width = float(box[1].split()[2])
    root = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(xml_text(label))}" style="max-width:{width:g}px">'
    return Markup(root + _MARKS_SAID.sub("", _ROOT.sub("", drawn)))


def csv_link(name: str, rows: Sequence[Row], text: str = "data (CSV)") -> Markup:
    """A link that saves these rows; all have the same keys."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return saved_link(f"{name}.csv", "text/csv", stream.getvalue(), text)


def saved_link(name: str, kind: str, contents: str, text: str) -> Markup:
    """A link that saves this text as a file."""
    address = f"data:{kind};base64,{base64.b64encode(contents.encode()).decode()}"
    return Markup('<a download="{}" href="{}">{}</a>').format(name, Markup(address), text)
