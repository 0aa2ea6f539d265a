"""docs/scale.md: its derived tables are what benchmarks/scale.py computes now, and its sentences fit them."""

import importlib
import math

import pytest
from project import ROOT

from edpipe.params.soft_labels import StorageKnobs
from edpipe.pipeline.estimates.job_costs import packed_bytes
from edpipe.soft_labels.encoding.costs import view_cost

PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scale():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("scale")


@pytest.mark.slow
def test_the_tables_are_those_that_are_computed_now(scale):
    assert scale.with_tables(PAGE) == PAGE, "call `python benchmarks/scale.py --write`"


def test_a_page_without_the_place_of_a_table_is_refused(scale):
    with pytest.raises(ValueError, match=r"^scale.md: 0 places for table 'bytes', must be 1$"):
        scale.with_tables("# No tables")


def test_tinyvits_own_figures_follow_from_its_record(scale):
    """16 GB and 481 GB, as its README has them, are whole GiB of its records."""
    small, large = scale.SCALES
    assert (small.forwards * 44) // 2**30 == 15
    assert round(small.forwards * 44 / 2**30) == 16
    assert round(large.forwards * 404 / 2**30) == 481


def test_the_sentences_fit_the_tables(scale):
    small, _ = scale.SCALES
    eight = view_cost(8, StorageKnobs(precision="uint8"), [(small.num_images, 1000)], 300 * small.num_images)
    assert f"take {eight.num_bytes / 1e9:.0f} GB as `uint8`" in PAGE
    assert f"see each view {300 // 8} times" in PAGE
    assert f"is {small.num_images / (24 * 3600):.0f} h a view" in PAGE
    assert f"= {scale.fan_out.young_s(5, 86_400):.0f} s" in PAGE
    opening_s = 300 * small.num_images * 1004 / scale.DIGEST_BYTES_PER_S
    assert f"`uint8` at ImageNet-1k takes {opening_s / 60:.0f} min" in PAGE
    knobs = scale.params_at_scale(300).datasets["imagenet"]
    assert f"about {1_331_167 * packed_bytes(knobs) / 1e9:.0f} GB" in PAGE
    assert f"takes {math.ceil(100 / 8) * 10} h" in PAGE
