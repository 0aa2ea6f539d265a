"""The derived tables of docs/scale.md: bytes, teacher forwards, hours and jobs at the size of ImageNet-1k and -21k.

    python benchmarks/scale.py            the tables, as they stand in the page
    python benchmarks/scale.py --write    puts them into the page

Bytes of a row come from the precisions themselves, jobs from the pipeline's own list for the shipped example.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fan_out

from edpipe.cli.commands.add import EXAMPLES
from edpipe.datasets.readers.published_counts import PUBLISHED
from edpipe.params.load import parse_params
from edpipe.params.schema import Params
from edpipe.params.soft_labels import StorageKnobs
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.estimates.summary import size
from edpipe.pipeline.jobs.graph import jobs_named
from edpipe.soft_labels.encoding.costs import store_bytes
from edpipe.soft_labels.encoding.precisions import make_precision, row_bytes

PAGE = Path(__file__).resolve().parents[1] / "docs/scale.md"
BLOCK = r"(<!-- {name}: python benchmarks/scale\.py --write -->\n).*?(<!-- end -->)"
STUDENTS = 100
RATES_PER_S = (500, 2_000, 10_000)
"""Images that one GPU passes through a teacher; the page says which teacher that may be."""
DIGEST_BYTES_PER_S = 0.84e9 / 1.3
"""Opening a store with every byte compared, measured: docs/benchmarks.md, "Speed"."""
PER_FILE = 10
"""Views in a file of the store."""


@dataclass(frozen=True)
class Scale:
    """One data set with so many views; students train for as many epochs."""

    name: str
    num_images: int
    num_classes: int
    num_views: int

    @property
    def forwards(self) -> int:
        """Of one teacher, to store all views."""
        return self.num_images * self.num_views


IMAGENET = PUBLISHED["imagenet"]
SCALES = (
    Scale("ImageNet-1k × 300", IMAGENET.train, IMAGENET.num_classes, 300),
    # Deng et al. 2009 and later additions: 14,197,122 images of 21,841 synsets (image-net.org, winter 2011 release).
    Scale("ImageNet-21k × 90", 14_197_122, 21_841, 90),
)
STORAGES = {
    "float16": {"precision": "float16"},
    "uint8": {"precision": "uint8"},
    "uint4": {"precision": "uint4"},
    "top_k 100": {"precision": "top_k", "top_k": 100},
    "top_k 10": {"precision": "top_k", "top_k": 10},
    "sampled 50": {"precision": "sampled", "draws": 50, "temperature": 1.0},
}


def storage_rows() -> list[list[str]]:
    """A row for each precision, and for the records of TinyViT and FKD."""
    rows = []
    for name, values in STORAGES.items():
        knobs = StorageKnobs.model_validate({"max_kl": None, **values})
        row = [name]
        for scale in SCALES:
            row.append(f"{row_bytes(make_precision(knobs, scale.num_classes)):,}")
            row.append(size(store_bytes(knobs, [(scale.num_images, scale.num_classes)], scale.num_views)))
        rows.append(row)
    for top_k in (100, 10):
        rows.append([f"TinyViT's record, K = {top_k} ¹", *_cells(4 + 4 * top_k)])
    return [*rows, ["FKD's record, 5 classes, float32 ²", *_cells(16 + 1 + 2 * 4 * 5)]]


def _cells(record_bytes: int) -> list[str]:
    return [cell for scale in SCALES for cell in (f"{record_bytes:,}", size(record_bytes * scale.forwards))]


def forward_rows() -> list[list[str]]:
    """What one store costs, beside asking the teacher while 100 students train for as many epochs."""
    rows = []
    for scale in SCALES:
        for what, count in (("one store", 1), (f"{STUDENTS} students online", STUDENTS)):
            hours = [f"{scale.forwards * count / rate / 3600:,.0f} h" for rate in RATES_PER_S]
            rows.append([scale.name, what, f"{scale.forwards * count:.3g}", *hours])
    return rows


def params_at_scale(num_views: int) -> Params:
    """The shipped example of ImageNet with so many views, and 100 students of its method kd, one seed each."""
    raw = load_raw(EXAMPLES / "imagenet.yaml")
    raw["soft_labels"]["imagenet"]["views"] = {"number": num_views, "per_file": PER_FILE}
    kd = raw["experiments"]["imagenet_kd"] | {"seeds": [0]}
    raw["experiments"] = {f"kd_{number}": kd for number in range(STUDENTS)}
    return parse_params(raw)


def job_rows() -> list[list[str]]:
    """Jobs of 100 students by step; and what starts and sharing cost."""
    rows = []
    for scale in SCALES:
        params = params_at_scale(scale.num_views)
        counts = Counter(job.step for job in jobs_named(params, list(params.experiments)))
        knobs = StorageKnobs.model_validate({"max_kl": None, **STORAGES["top_k 100"]})
        num_bytes = store_bytes(knobs, [(scale.num_images, scale.num_classes)], scale.num_views)
        others = sum(counts.values()) - counts["dump_soft_labels"] - counts["run_stage"]
        opening = f"{num_bytes / DIGEST_BYTES_PER_S / 60:,.0f} min"
        per_file = size(num_bytes * PER_FILE // scale.num_views)
        row = [counts["dump_soft_labels"], per_file, counts["run_stage"], others, sum(counts.values()), opening]
        rows.append([scale.name, *map(str, row)])
    return rows


def tables() -> dict[str, list[str]]:
    """Lines of Markdown of each table, by its name."""
    columns = [f"{scale.name}: {what}" for scale in SCALES for what in ("bytes a row", "store")]
    hours = [f"at {rate:,} images/s" for rate in RATES_PER_S]
    jobs = ["dump jobs", "a file", "student jobs", "other jobs", "all jobs", "opening a store"]
    return {
        "bytes": _table(["precision", *columns], storage_rows()),
        "forwards": _table(["size", "what", "teacher forwards", *hours], forward_rows()),
        "jobs": _table(["size, top_k 100", *jobs], job_rows()),
        "failures": fan_out.table(fan_out.SCALE, fan_out.SCALE_INTERVALS_S),
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def with_tables(page: str) -> str:
    """The page with its tables as they are computed now.

    Raises:
        ValueError: the page lacks the place of a table.
    """
    for name, lines in tables().items():
        place = re.compile(BLOCK.format(name=name), re.S)
        page, count = place.subn(
            lambda found, lines=lines: found[1] + "\n" + "\n".join(lines) + "\n\n" + found[2], page
        )
        if count != 1:
            raise ValueError(f"{PAGE.name}: {count} places for table '{name}', must be 1")
    return page


def main() -> None:
    """Prints the tables, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into docs/scale.md")
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, lines in tables().items():
        print(f"{name}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
