"""Results side by side: order, numbers, the base, and what forbids the comparison."""

import io
import re

import pytest
from comparable_results import lines_from, refusal_of, with_top1, written
from examples import evaluation, rewrite_result, write_result
from rich.console import Console

from edpipe.cli.commands.compare import COLUMNS, HALVES, compare, table_of
from edpipe.cli.main import EXIT_MENDABLE, main
from edpipe.errors import CorruptFileError
from edpipe.results.comparison.comparison import base_of, ranked, read_entries, warnings_of
from edpipe.storage.records import read_record, write_record


def entries_of(*paths):
    return read_entries(paths)


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
    record = evaluation()
    for stage in record["stages"]:
        for use in stage["soft_labels"]:
            use["teacher_forwards"] = 10_000
    assert "30,000 / -6,000" in rendered(entries_of(write_result(tmp_path, [record])))


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
        "budgets differ: images seen: 24,000 (digits_ed); 30,000 (digits_kd); name results of one budget of images or "
        "of compute, or compare these all the same with --unequal-budgets"
    )
    lines = lines_from(capsys, *paths, "--unequal-budgets")
    assert "budgets differ: images seen: 24,000 (digits_ed); 30,000 (digits_kd)" in lines


@pytest.mark.parametrize(("macs", "is_equal"), [(1_000_000, True), (985_000, True), (970_000, False)])
def test_budgets_of_equal_compute_are_compared_and_the_images_named(tmp_path, capsys, macs, is_equal):
    base = written(tmp_path, "digits_kd", budget__training_macs=1_000_000)
    other = written(tmp_path, "digits_ed", budget__training_macs=macs, budget__images_seen=30_000)
    if is_equal:
        lines = lines_from(capsys, base, other)
        assert any(line.startswith("budgets differ: images seen: ") for line in lines)
    else:
        assert refusal_of(capsys, base, other).startswith("budgets differ: images seen")


def test_a_result_named_twice_is_refused(tmp_path, capsys):
    path = written(tmp_path)
    again = path.parent / ".." / "results" / path.name
    assert refusal_of(capsys, path, again) == f"compare: {again} is named twice; name each result once"


def test_a_seed_that_is_there_twice_is_refused(tmp_path):
    path = written(tmp_path)
    contents = read_record(path)
    contents["seeds"][2]["seed"] = 1
    rewrite_result(path, contents)
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


def test_smaller_images_of_earlier_stages_are_named(tmp_path):
    path = written(tmp_path)
    contents = read_record(path)
    for plan, size in zip(contents["setup"]["stages"], (4, 4, None), strict=True):
        plan["budget"]["image_size"] = size
    rewrite_result(path, contents)
    assert warnings_of(entries_of(path, written(tmp_path, "digits_kd"))) == [
        "after their earlier stages these were measured on smaller images, so their forgetting includes the gain of "
        "full size: digits_ed (4 pixels)"
    ]


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
    assert len([line for line in lines if line.startswith(" digits_ed ")]) == 2


def test_the_last_line_says_how_to_get_a_student(tmp_path, capsys):
    assert lines_from(capsys, written(tmp_path))[-1].startswith(
        "`edpipe export digits_ed` writes the student of an exp"
    )


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
    assert "digits_ed.json: result of version 7, this edpipe reads 5" in err
