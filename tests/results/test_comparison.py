"""Each result against a base: pairs of seeds, classes, and all of it as JSON."""

import json
import re
from pathlib import Path

import pytest
from comparable_results import lines_from, refusal_of, row_after, with_top1, written

from edpipe.cli.commands.compare import compare
from edpipe.errors import OverwriteError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "result.md"


# Pairs


def test_pairs_by_hand(tmp_path, capsys):
    # Differences 1, 2, 3 points: mean 2, s 1, t = 2√3, p(2 df) = 0.0742; margin 4.302653 / √3.
    ce = with_top1(tmp_path, "digits_ce", {0: 0.80, 1: 0.82, 2: 0.81})
    kd = with_top1(tmp_path, "digits_kd", {2: 0.84, 0: 0.81, 1: 0.84})
    lines = lines_from(capsys, kd, ce)
    assert row_after(lines, "minus digits_ce", "digits_kd") == "digits_kd 3 +2.00 -0.48 to +4.48 3 / 0 / 0 0.074 1.000"
    assert any(line.endswith("of digits_ce; 1 comparison, so p is not adjusted") for line in lines)
    assert "Holm" not in " ".join(lines)


def test_pairs_are_those_of_shared_seeds_only(tmp_path, capsys):
    # Seeds 1 and 2 differ by 1 and 2 points: mean 1.5, standard error 0.5, t(1 df) = 3, p = 1 - 2 atan(3) / π.
    ce = with_top1(tmp_path, "digits_ce", {0: 0.10, 1: 0.80, 2: 0.80})
    kd = with_top1(tmp_path, "digits_kd", {1: 0.81, 2: 0.78 + 0.04, 7: 0.99})
    row = row_after(lines_from(capsys, kd, ce), "minus digits_ce", "digits_kd")
    assert row == "digits_kd 2 +1.50 -4.85 to +7.85 2 / 0 / 0 0.2 1.000"


def test_several_comparisons_are_counted_and_adjusted(tmp_path, capsys):
    ce = with_top1(tmp_path, "digits_ce", {0: 0.80, 1: 0.82, 2: 0.81})
    kd = with_top1(tmp_path, "digits_kd", {0: 0.81, 1: 0.84, 2: 0.84}, budget__training_macs=432 * 10**9)
    ed = with_top1(tmp_path, "digits_ed", {0: 0.79, 1: 0.80, 2: 0.81})
    lines = lines_from(capsys, ed, kd, ce)
    assert row_after(lines, "minus digits_ce", "digits_kd").endswith("3 / 0 / 0 0.074 0.15 2.000")
    assert row_after(lines, "minus digits_ce", "digits_ed").endswith("0 / 2 / 1 0.23 0.23 0.778")
    count = "2 comparisons: p Holm is adjusted for the 2 that have a p, intervals are not adjusted"
    assert any(line.endswith(count) for line in lines)


def test_another_base_turns_the_sign(tmp_path, capsys):
    ce = with_top1(tmp_path, "digits_ce", {0: 0.80, 1: 0.82, 2: 0.81})
    kd = with_top1(tmp_path, "digits_kd", {0: 0.81, 1: 0.84, 2: 0.84})
    row = row_after(lines_from(capsys, kd, ce, "--base", "digits_kd"), "minus digits_kd", "digits_ce")
    assert row == "digits_ce 3 -2.00 -4.48 to +0.48 0 / 3 / 0 0.074 1.000"


@pytest.mark.parametrize("first", ["digits_ed", "digits_kd"])
def test_without_ce_the_first_on_the_command_line_is_the_base_whichever_is_best(tmp_path, capsys, first):
    paths = {name: written(tmp_path, name, shift) for name, shift in (("digits_ed", 0.02), ("digits_kd", 0.0))}
    lines = lines_from(capsys, paths.pop(first), *paths.values())
    assert any(line.startswith(f"minus {first} ") for line in lines)


def test_one_shared_seed_has_no_interval(tmp_path, capsys):
    ce, kd = with_top1(tmp_path, "digits_ce", {0: 0.8, 1: 0.7}), with_top1(tmp_path, "digits_kd", {1: 0.75, 2: 0.9})
    lines = lines_from(capsys, kd, ce)
    assert row_after(lines, "minus digits_ce", "digits_kd") == "digits_kd 1 +5.00 – 1 / 0 / 0 – 1.000"
    assert "one shared seed (1), so no interval and no p: digits_kd" in lines


def test_without_shared_seeds_nothing_is_paired(tmp_path, capsys):
    ce = with_top1(tmp_path, "digits_ce", {0: 0.8, 1: 0.7})
    ed = with_top1(tmp_path, "digits_ed", {3: 0.8, 2: 0.7})
    kd = with_top1(tmp_path, "digits_kd", {0: 0.9, 1: 0.9})
    lines = lines_from(capsys, kd, ce, ed, "--per-class")
    assert row_after(lines, "minus digits_ce", "digits_ed") == "digits_ed 0 – – – – – 0.778"
    said = "no shared seed, so no paired difference: digits_ed has 2, 3, digits_ce has 0, 1; "
    assert said + "train both with the same seeds" in lines
    assert any("2 comparisons: p Holm is adjusted for the 1 that have a p" in line for line in lines)
    assert len([line for line in lines if line.startswith("nine ")]) == 1


def test_equal_differences_have_no_p(tmp_path, capsys):
    lines = lines_from(capsys, written(tmp_path, "digits_ce"), written(tmp_path, "digits_kd", 0.01))
    assert row_after(lines, "minus digits_ce", "digits_kd") == "digits_kd 3 +1.00 +1.00 to +1.00 3 / 0 / 0 – 1.000"
    assert "all differences are equal, so no p: digits_kd" in lines


def test_compute_of_a_base_without_any_is_no_ratio(tmp_path, capsys):
    ce = with_top1(tmp_path, "digits_ce", {0: 0.8, 1: 0.7}, budget__training_macs=0)
    row = row_after(lines_from(capsys, ce, written(tmp_path, "digits_kd")), "minus digits_ce", "digits_kd")
    assert row.endswith(" –")


def test_one_result_has_nothing_to_be_held_against(tmp_path, capsys):
    assert "minus" not in " ".join(lines_from(capsys, written(tmp_path)))
    line = refusal_of(capsys, written(tmp_path), "--per-class")
    assert line.endswith("digits_ed.json is the only result; name a second one to hold it against")


# Classes


def test_classes_are_in_order_of_their_change(tmp_path, capsys):
    before, after = [0.5] * 9 + [None], [0.4, 0.6, 0.5, 0.6, 0.25, 0.5, 0.5, 0.5, 0.5, None]
    ce = with_top1(tmp_path, "digits_ce", {0: 0.5, 1: 0.5}, before)
    kd = with_top1(tmp_path, "digits_kd", {0: 0.5, 1: 0.6}, after)
    lines = lines_from(capsys, kd, ce, "--per-class")
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    rows = lines[start + 2 : start + 12]
    names = "four zero two five six seven eight one three nine"
    assert [row.split()[0] for row in rows] == names.split()
    assert rows[0] == "four 36 50.00 25.00 -25.00"
    assert rows[7] == "one 36 50.00 60.00 +10.00"
    assert rows[-1] == "nine 36 – – –"
    assert lines[start] == "class images digits_ce % digits_kd % pp"


def test_classes_are_means_over_shared_seeds(tmp_path, capsys):
    ce, kd = written(tmp_path, "digits_ce", seeds=(0, 2, 4)), written(tmp_path, "digits_kd", 0.03, seeds=(0, 2, 1))
    lines = lines_from(capsys, ce, kd, "--per-class")
    assert "zero 36 81.00 84.00 +3.00" in lines
    assert not any(line.startswith("zero ") for line in lines_from(capsys, ce, kd))


# For programs


def test_json_holds_all_numbers(tmp_path, capsys):
    ce = with_top1(tmp_path, "digits_ce", {8: 0.80, 1: 0.82, 2: 0.81})
    kd = with_top1(tmp_path, "digits_kd", {8: 0.81, 1: 0.84, 2: 0.84, 3: 0.9})
    ed = with_top1(tmp_path, "digits_ed", {5: 0.8})
    out = tmp_path / "new" / "comparison.json"
    lines_from(capsys, ce, kd, ed, "--json", out)
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert (facts["format"], facts["format_version"], facts["base"]) == ("edpipe-comparison", 2, "digits_ce")
    assert [one["name"] for one in facts["results"]] == ["digits_kd", "digits_ce", "digits_ed"]
    assert [one["name"] for one in facts["comparisons"]] == ["digits_kd", "digits_ed"]
    paired, lonely = facts["comparisons"]
    assert paired["seeds"] == [1, 2, 8]
    assert paired["top1_differences"] == pytest.approx([0.02, 0.03, 0.01])
    assert paired["top1_difference"]["mean"] == pytest.approx(0.02)
    assert paired["top1_difference"]["low"] == pytest.approx(0.02 - 0.02484138, abs=1e-7)
    assert paired["t"] == pytest.approx(2 * 3**0.5)
    assert paired["p"] == paired["p_holm"] == pytest.approx(0.0741799, abs=1e-6)
    assert (paired["wins"], paired["losses"], paired["ties"], paired["training_macs_ratio"]) == (3, 0, 0, 1.0)
    assert paired["top1_by_class"][3]["name"] == "three"
    assert paired["top1_by_class"][3]["change"] == pytest.approx(0.0)
    assert lonely["top1_difference"] is lonely["p"] is lonely["p_holm"] is None
    assert facts["warnings"][0].startswith("no shared seed")


def test_equal_comparisons_write_equal_bytes_whatever_the_order_of_words(tmp_path, capsys):
    paths = [written(tmp_path, f"digits_{name}", shift) for name, shift in (("ce", 0), ("kd", 0.01), ("ed", 0.02))]
    texts = []
    for order in (paths, paths[::-1]):
        out = tmp_path / "comparison.json"
        lines_from(capsys, *order, "--json", out)
        texts.append(out.read_bytes())
    assert texts[0] == texts[1]


def test_json_does_not_overwrite_what_is_no_comparison(tmp_path, capsys):
    path, other = written(tmp_path), written(tmp_path, "digits_kd")
    before = other.read_bytes()
    assert refusal_of(capsys, path, "--json", other) == (
        f"--json: {other} is there and is no comparison; name another file, or remove this one"
    )
    assert other.read_bytes() == before


def test_json_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OverwriteError, match=r"file/c\.json: cannot be written: .*; nothing was changed"):
        compare([written(tmp_path)], json_path=tmp_path / "file" / "c.json")


def keys_of(value):
    if isinstance(value, dict):
        return set(value) | {key for part in value.values() for key in keys_of(part)}
    return {key for part in value for key in keys_of(part)} if isinstance(value, list) else set()


def test_every_key_of_the_json_is_explained(tmp_path, capsys):
    out = tmp_path / "comparison.json"
    lines_from(capsys, written(tmp_path, "digits_ce"), written(tmp_path), "--json", out)
    explained = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    assert keys_of(json.loads(out.read_text(encoding="utf-8"))) <= explained
