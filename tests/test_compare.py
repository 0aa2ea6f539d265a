"""Results side by side and in pairs: order, numbers, and what forbids the comparison."""

import io
import json
import re

import pytest
from examples import evaluation, write_result
from rich.console import Console

from edpipe.__main__ import EXIT_MENDABLE, main
from edpipe.compare import COLUMNS, HALVES, compare, ranked, table_of, warnings_of
from edpipe.comparison import base_of, read_entries
from edpipe.errors import CorruptFileError, OverwriteError
from edpipe.storage.records import read_record, write_record


def written(folder, experiment="digits_ed", shift=0.0, seeds=(0, 1, 2), **changes):
    """A result whose keys `changes` (as a__b=value) were set after the fact."""
    return altered(write_result(folder, [evaluation(seed, experiment, shift) for seed in seeds], experiment), **changes)


def altered(path, **changes):
    contents = read_record(path)
    for name, value in changes.items():
        *outer, last = name.split("__")
        part = contents
        for key in outer:
            part = part[key]
        part[last] = value
    write_record(path, contents)
    return path


def with_top1(folder, experiment, top1_by_seed, by_class=None, **changes):
    """A result with these top1, and for each seed the same top1 of each class."""
    records = [evaluation(0, experiment) | {"seed": seed} for seed in top1_by_seed]
    for record in records:
        record["metrics"]["top1"] = top1_by_seed[record["seed"]]
        record["metrics"]["top1_by_class"] = by_class or record["metrics"]["top1_by_class"]
    return altered(write_result(folder, records, experiment), **changes)


def entries_of(*paths):
    return read_entries(paths)


def lines_from(capsys, *words):
    """What the command printed; every table row as its words."""
    assert main(["compare", *map(str, words)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def row_after(lines, heading, name):
    """The first row of this name below the line that begins with the heading."""
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    return next(line for line in lines[start:] if line.startswith(name + " "))


def refusal_of(capsys, *words):
    """The one line that the command ended with, before anything was printed."""
    assert main(["compare", *map(str, words)]) == EXIT_MENDABLE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("edpipe: ").rstrip()


def rendered(entries, width=300, columns=COLUMNS):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(table_of(entries, columns))
    return console.file.getvalue()


def test_best_comes_first_whatever_the_order_of_words(tmp_path):
    kd, ed, ce = (
        written(tmp_path, f"digits_{name}", shift) for name, shift in (("kd", 0), ("ed", 0.02), ("ce", -0.02))
    )
    for paths in ([kd, ed, ce], [ce, kd, ed]):
        assert [e.result.method for e in ranked(entries_of(*paths))] == ["ed", "kd", "ce"]


def test_rows_hold_the_numbers(tmp_path, capsys):
    path = written(tmp_path)
    path.with_suffix(".html").touch()
    compare([path])
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("digits_ed"))
    words = "digits_ed ed 3 88.50 ± 1.00 86.02–90.98 98.00 3.75 +7.00 24,000 168 9,100 / 62,900 2 min 2 s / 2 min 32 s"
    assert row == [*words.split(), str(path.with_suffix(".html"))]


def test_without_teacher_stages_or_page_there_are_dashes(tmp_path, capsys):
    compare([written(tmp_path, "digits_ce")])
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("digits_ce"))
    assert " ".join(row[9:]) == "– 24,000 216 – 2 min 2 s / 2 min 32 s –"


def test_negative_savings_keep_their_sign(tmp_path):
    path = written(tmp_path, budget__teacher_forwards_saved=-6000)
    assert "9,100 / -6,000" in rendered(entries_of(path))


def test_only_the_best_is_bold(tmp_path):
    best, worse = written(tmp_path, "digits_ed", 0.02), written(tmp_path, "digits_kd")
    elsewhere = written(tmp_path, "digits_ce", -0.2, inputs__partition="9" * 16)
    body = rendered(entries_of(best, worse, elsewhere)).split("───")[-1]
    assert "\x1b[1m90.50 ± 1.00\x1b[0m" in body
    assert body.count("\x1b[1m") == 1


def test_equal_setups_give_no_warning(tmp_path, capsys):
    paths = [written(tmp_path, f"digits_{name}") for name in ("ed", "kd", "ce")]
    assert warnings_of(entries_of(*paths)) == []
    compare(paths)
    assert not re.search("(datasets|partitions|budgets|students) differ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"inputs__partition": "9" * 16},
            "partitions differ, so forgetting cannot be compared: fedcba9876543210 (digits_ed); "
            "9999999999999999 (digits_kd)",
        ),
        ({"budget__images_seen": 30_000}, "budgets differ: images seen: 24,000 (digits_ed); 30,000 (digits_kd)"),
        ({"setup__student__model": "resnet14"}, "students differ: resnet8 (digits_ed); resnet14 (digits_kd)"),
    ],
)
def test_differences_are_named_below_the_table(tmp_path, capsys, change, line):
    compare([written(tmp_path), written(tmp_path, "digits_kd", -0.01, **change)], unequal_budgets=True)
    assert line in capsys.readouterr().out.splitlines()


# What is refused


@pytest.mark.parametrize("words", [(), ("--unequal-budgets",)])
def test_results_of_other_datasets_are_always_refused(tmp_path, capsys, words):
    paths = written(tmp_path), written(tmp_path, "digits_kd", inputs__dataset="9" * 16)
    assert refusal_of(capsys, *paths, *words) == (
        "datasets differ: digits 0123456789abcdef of 10 classes (digits_ed); digits 9999999999999999 of 10 classes "
        "(digits_kd); top1 on other test images cannot be compared; name results of one dataset"
    )


def test_one_dataset_by_two_names_is_one(tmp_path):
    compare([written(tmp_path), written(tmp_path, "digits_kd", data__dataset="handwriting")])


def test_unequal_budgets_are_refused_unless_told_to(tmp_path, capsys):
    paths = written(tmp_path), written(tmp_path, "digits_kd", budget__images_seen=30_000)
    assert refusal_of(capsys, *paths) == (
        "budgets differ: images seen: 24,000 (digits_ed); 30,000 (digits_kd); name results of one image budget, or "
        "compare these all the same with --unequal-budgets"
    )
    lines = lines_from(capsys, *paths, "--unequal-budgets")
    assert "budgets differ: images seen: 24,000 (digits_ed); 30,000 (digits_kd)" in lines


def test_a_result_named_twice_is_refused(tmp_path, capsys):
    path = written(tmp_path)
    again = path.parent / ".." / "results" / path.name
    assert refusal_of(capsys, path, again) == f"compare: {again} is named twice; name each result once"


def test_a_seed_that_is_there_twice_is_refused(tmp_path):
    path = written(tmp_path)
    contents = read_record(path)
    contents["seeds"][2]["seed"] = 1
    write_record(path, contents)
    with pytest.raises(CorruptFileError, match=r"seed 1 is there 2 times; the file was altered; make it again with `"):
        compare([path])


def test_classes_that_do_not_fit_are_refused(tmp_path):
    path = with_top1(tmp_path, "digits_ed", {0: 0.5}, by_class=[0.5] * 9)
    with pytest.raises(CorruptFileError, match=r"seed 0 does not fit 10 classes; the file was altered; make it again"):
        compare([path])


# The base


@pytest.mark.parametrize(
    ("order", "expected"),
    [(("ed", "ce", "kd"), "digits_ce"), (("kd", "ed"), "digits_kd"), (("ed", "ce", "other_ce"), "digits_ed")],
)
def test_base_is_the_only_ce_or_else_the_first(tmp_path, order, expected):
    names = [name if "_" in name else f"digits_{name}" for name in order]
    entries = entries_of(*(written(tmp_path, name) for name in names))
    assert base_of(entries, None).name == expected


def test_base_may_be_named_by_experiment_or_path(tmp_path):
    paths = [written(tmp_path, f"digits_{name}") for name in ("ce", "ed")]
    for name in ("digits_ed", str(paths[1])):
        assert base_of(entries_of(*paths), name).path == paths[1]


def test_unknown_and_ambiguous_bases_are_refused(tmp_path, capsys):
    first, second = written(tmp_path), written(tmp_path / "elsewhere")
    line = refusal_of(capsys, first, written(tmp_path, "digits_kd"), "--base", "digits_cd")
    assert re.fullmatch(r"--base: 'digits_cd' is not among the results; did you mean 'digits_(kd|ed)'\?", line)
    assert refusal_of(capsys, first, second, "--base", "digits_ed") == (
        f"--base: 'digits_ed' is the experiment of 2 results ({first}, {second}); give one of the paths"
    )


def test_two_results_of_one_experiment_are_told_apart_by_path(tmp_path):
    first, second = written(tmp_path), written(tmp_path / "elsewhere")
    third = written(tmp_path, "digits_kd")
    assert [e.name for e in entries_of(first, second, third)] == [str(first), str(second), "digits_kd"]


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
    ce = with_top1(tmp_path, "digits_ce", {0: 0.80, 1: 0.82, 2: 0.81})
    kd = with_top1(tmp_path, "digits_kd", {0: 0.81, 1: 0.84, 2: 0.84, 3: 0.9})
    ed = with_top1(tmp_path, "digits_ed", {5: 0.8})
    out = tmp_path / "new" / "comparison.json"
    lines_from(capsys, ce, kd, ed, "--json", out)
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert (facts["format"], facts["format_version"], facts["base"]) == ("edpipe-comparison", 1, "digits_ce")
    assert [one["name"] for one in facts["results"]] == ["digits_kd", "digits_ce", "digits_ed"]
    assert [one["name"] for one in facts["comparisons"]] == ["digits_kd", "digits_ed"]
    paired, lonely = facts["comparisons"]
    assert paired["seeds"] == [0, 1, 2]
    assert paired["top1_differences"] == pytest.approx([0.01, 0.02, 0.03])
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


def test_a_single_seed_is_named(tmp_path):
    path = written(tmp_path, seeds=(0,))
    assert warnings_of(entries_of(path)) == ["one seed only, so no spread is known: digits_ed"]
    text = rendered(entries_of(path))
    assert "87.50" in text
    assert "±" not in text


def test_nothing_is_cut_off_in_a_pipe(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    path = written(tmp_path)
    path.with_suffix(".html").touch()
    compare([path])
    out = capsys.readouterr().out
    assert str(path.with_suffix(".html")) in out
    assert "…" not in out


def test_a_narrow_terminal_gets_two_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    compare([written(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "digits_ed" in line]) == 2


def test_halves_hold_every_column():
    assert set(HALVES[0]) | set(HALVES[1]) == set(COLUMNS)
    assert set(HALVES[0]) & set(HALVES[1]) == {"experiment"}


def test_names_are_not_read_as_markup(tmp_path):
    path = written(tmp_path, experiment="digits_ed", method="[bold]x")
    assert "[bold]x" in rendered(entries_of(path))


@pytest.mark.parametrize(("name", "what"), [("none.json", "no such file"), ("", "is a folder")])
def test_a_missing_result_is_one_line(tmp_path, name, what):
    with pytest.raises(CorruptFileError, match=rf"^\S+: {what}; name a results/<experiment>\.json$"):
        compare([tmp_path / name])


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, {"step": "evaluate"})
    with pytest.raises(CorruptFileError, match=r"record\.json: not a result"):
        compare([written(tmp_path), path])


def test_another_version_is_refused_by_the_command_in_one_line(tmp_path, capsys):
    path = written(tmp_path, format_version=7)
    assert main(["compare", str(path)]) == EXIT_MENDABLE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "digits_ed.json: result of version 7, this edpipe reads 2" in err
