"""Learning curves on a page. They are no artifacts, so the page carries the rows that it was drawn from."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edpipe.results.page.charts import Switch, learning_curves
from edpipe.results.page.vega import saved_link
from edpipe.results.result_file import Result

Curves = Mapping[tuple[int, str], Sequence[Mapping[str, Any]]]
"""By seed and stage: the rows of a curve file."""
FILE = "curves.json"
KEPT = ("iteration", "images", "epoch", "loss", "learning_rate", "val_top1")
_LINK = re.compile(rf'<a download="{FILE}" href="data:application/json;base64,([A-Za-z0-9+/=]*)">')


def fitting(curves: Curves, result: Result) -> list[dict[str, Any]]:
    """Rows of those curves that end where their stage ended: others are of another training of the same name."""
    rows = []
    for seed in result.seeds:
        for stage in seed.stages:
            found = curves.get((seed.seed, stage.name), ())
            if found and found[-1].get("images") == stage.images_seen and all(map(_is_whole, found)):
                rows += [{"seed": seed.seed, "stage": stage.name, **{k: row.get(k) for k in KEPT}} for row in found]
    return rows


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a row can be drawn; the file lies where anybody may write."""
    numbers = [row.get(name) for name in ("loss", "val_top1") if row.get(name) is not None]
    return isinstance(row.get("images"), int) and all(isinstance(number, float) for number in numbers)


def link(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Saves the rows; `curves_in` finds them again."""
    return saved_link(FILE, "application/json", json.dumps(rows), "data (JSON)")


def curves_in(page: str) -> Curves:
    """Those that a page carries; none where it carries none that can be read."""
    found = _LINK.search(page)
    curves: dict[tuple[int, str], list[dict[str, Any]]] = {}
    try:
        for row in json.loads(base64.b64decode(found[1])) if found else ():
            curves.setdefault((row["seed"], row["stage"]), []).append(row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return curves


def pictures(rows: Sequence[Mapping[str, Any]], result: Result) -> list[Markup]:
    """Loss, and top1 on validation images where it was measured, over the images of all stages."""
    switches, seen = [], 0
    for stage in result.seeds[0].stages:
        switches.append(Switch(stage.name, seen))
        seen += stage.images_seen
    before = {switch.stage: switch.images for switch in switches}
    moved = [{**row, "images": before[row["stage"]] + row["images"]} for row in rows]
    found = []
    for field, title in (("val_top1", "top1 on validation images"), ("loss", "training loss, nats")):
        drawn = [row for row in moved if row[field] is not None]
        if drawn:
            words = f"{title} over the images seen, a line for each seed; the last is {drawn[-1][field]:.4g}"
            found.append(learning_curves(drawn, switches, field, title, words))
    return found
