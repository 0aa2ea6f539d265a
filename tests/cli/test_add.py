"""`edpipe add`: examples come into params.yaml with all that they need, and nothing else in it is touched."""

import copy
import json

import pytest
from project import ROOT, as_yaml
from shipped import EXAMPLE_PATHS, PARAMS_PATH, shipped_and_examples

from edpipe.cli.commands import add
from edpipe.cli.commands.needed_entries import SECTIONS, needed_entries
from edpipe.cli.main import main
from edpipe.params.load import load_params, parse_params
from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.jobs.graph import experiments_named, jobs_of

SHIPPED = PARAMS_PATH.read_text(encoding="utf-8")
NAMES = [
    *dict.fromkeys(name for path in EXAMPLE_PATHS for name in load_raw(path)["experiments"]),
    *(f"study_{study}" for study in shipped_and_examples()["studies"]),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the shipped params.yaml alone."""
    (tmp_path / "params.yaml").write_text(SHIPPED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text_of(folder):
    return (folder / "params.yaml").read_bytes().decode()


def write_changed(folder, change):
    raw = copy.deepcopy(load_raw(PARAMS_PATH))
    change(raw)
    (folder / "params.yaml").write_text(as_yaml(raw), encoding="utf-8")


def lines_are_only_added(before, after):
    remaining = iter(after.splitlines(keepends=True))
    return all(line in remaining for line in before.splitlines(keepends=True))


def added(before, after):
    return {
        f"{section}.{name}"
        for section in SECTIONS
        for name in set(after.get(section, {})) - set(before.get(section, {}))
    }


def refused(capsys, *words):
    assert main(["add", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


# what is written


@pytest.mark.slow
def test_an_experiment_comes_with_what_it_needs_and_no_more(folder):
    before = load_raw()
    assert main(["add", "cifar100_ed"]) == 0
    assert added(before, load_raw()) == {
        "datasets.cifar100",
        "recipes.cifar_crd",
        "teachers.cifar100_teacher",
        "teachers.cifar100_teacher_b",
        "students.resnet20",
        "soft_labels.cifar100",
        "experiments.cifar100_ed",
    }
    assert lines_are_only_added(SHIPPED, text_of(folder))


def test_comments_of_an_entry_come_with_it(folder):
    assert main(["add", "cifar100_ed"]) == 0
    assert "  cifar_crd: # of RepDistiller (Tian et al. 2020)" in text_of(folder)
    assert "# 162 views in 6 files\n" in text_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_added_gives_the_jobs_of_the_example(folder, name, capsys):
    assert main(["add", name]) == 0
    params, wanted = load_params(), parse_params(shipped_and_examples())
    words = experiments_named(wanted, [name])
    assert jobs_of(params, words) == jobs_of(wanted, words)
    assert lines_are_only_added(SHIPPED, text_of(folder))
    assert capsys.readouterr().out.splitlines()[-1] == f"now run: snakemake --cores 2 results/{name}.json"


def test_all_examples_at_once_and_again(folder, capsys):
    assert main(["add", *NAMES]) == 0
    after = text_of(folder)
    assert load_raw() == shipped_and_examples()
    assert lines_are_only_added(SHIPPED, after)
    capsys.readouterr()
    assert main(["add", *NAMES[:2], "digits_ed"]) == 0
    assert text_of(folder) == after
    assert capsys.readouterr().out.splitlines() == [
        f"params.yaml: nothing is added, all that is needed for {NAMES[0]}, {NAMES[1]}, digits_ed is there already",
        f"now run: snakemake --cores 2 results/{NAMES[0]}.json results/{NAMES[1]}.json results/digits_ed.json",
    ]


@pytest.mark.slow
def test_one_by_one_gives_what_all_at_once_give(folder):
    names = ["cifar100_ed", "cifar10_kd", "study_fashion_mnist", "svhn_ctkd"]
    for name in names:
        assert main(["add", name]) == 0
    one_by_one = load_raw()
    (folder / "params.yaml").write_text(SHIPPED, encoding="utf-8")
    assert main(["add", *names, *names]) == 0
    assert load_raw() == one_by_one


def test_what_was_added_is_said_with_the_command_that_comes_next(folder, capsys):
    assert main(["add", "digits_aver", "study_fashion_mnist"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "params.yaml: added",
        "  teachers: digits_teacher_b",
        "  experiments: digits_aver, fashion_mnist_dkd, fashion_mnist_ed_kd, fashion_mnist_kd_sizes, "
        "fashion_mnist_kd_longer",
        "  studies: fashion_mnist",
        "now run: snakemake --cores 2 results/digits_aver.json results/study_fashion_mnist.json",
    ]


def test_windows_line_ends_are_kept(folder):
    (folder / "params.yaml").write_bytes(SHIPPED.replace("\n", "\r\n").encode())
    assert main(["add", "study_fashion_mnist"]) == 0
    text = text_of(folder)
    assert text.count("\r\n") == text.count("\n")
    assert load_params().studies.keys() == {"fashion_mnist"}


def test_where_raw_files_lie_is_the_users_own(folder):
    assert main(["add", "cifar100_ce"]) == 0
    mine = "reader: cifar100\n    root: /mine\n    download: false\n"
    (folder / "params.yaml").write_text(text_of(folder).replace("reader: cifar100\n", mine), encoding="utf-8")
    assert main(["add", "cifar100_kd"]) == 0
    assert load_params().datasets["cifar100"].root == "/mine"


def test_a_default_that_is_written_out_is_the_same(folder):
    write_changed(folder, lambda raw: raw["recipes"].update(cifar_crd=full_recipe()))
    assert main(["add", "cifar100_ce"]) == 0


def full_recipe():
    return json.loads(parse_params(shipped_and_examples()).recipes["cifar_crd"].model_dump_json())


def test_every_name_has_a_line_in_the_list_also_where_no_params_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["add", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        name for example in add.read_examples() for name in example.names()
    ]
    assert "  cifar100_ed                  ed on cifar100, student resnet20, 3 seeds" in lines
    assert "  study_fashion_mnist          6 experiments against fashion_mnist_kd at equal compute" in lines
    assert [line for line in lines if not line.startswith("  ")] == [f"examples/{path.name}" for path in EXAMPLE_PATHS]


# refusals: one line, and nothing is written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["cifar100_edd"], "add: no example is named 'cifar100_edd'; did you mean 'cifar100_ed'?"),
        (
            ["cifar100_ed", "study_fashion"],
            "add: no example is named 'study_fashion'; did you mean 'study_fashion_mnist'?",
        ),
        (["zzz"], "add: no example is named 'zzz'; `edpipe add --list` lists what can be added"),
        ([], "add: no name is given; `edpipe add --list` lists what can be added"),
    ],
)
def test_an_unknown_name_is_refused(folder, capsys, words, line):
    assert refused(capsys, *words) == f"edpipe: {line}"
    assert text_of(folder) == SHIPPED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "name", "entry", "line"),
    [
        (
            "recipes",
            "cifar_crd",
            shipped_and_examples()["recipes"]["cifar_crd"] | {"batch_size": 32},
            "recipes.cifar_crd.batch_size: is 32, but 64 in examples/cifar100.yaml; make the two equal, or give your "
            "recipes.cifar_crd another name",
        ),
        (
            "datasets",
            "cifar100",
            {"reader": "folder", "image_size": 64},
            'datasets.cifar100.reader: is "folder", but "cifar100" in examples/cifar100.yaml; make the two equal, or '
            "give your datasets.cifar100 another name",
        ),
        (
            "partitions",
            "thirds",
            {"subsets": ["primary", "middle", "university"], "ratio": [1, 1, 1], "class_order_seed": 3},
            "partitions.thirds.class_order_seed: is 3, but absent in examples/cifar100.yaml; make the two equal, or "
            "give your partitions.thirds another name",
        ),
        (
            "students",
            "resnet20",
            {"model": "timm:" + "x" * 70},
            f'students.resnet20.model: is "timm:{"x" * 53}…, but "resnet20" in examples/cifar100.yaml; make the two '
            "equal, or give your students.resnet20 another name",
        ),
    ],
)
def test_an_entry_with_other_contents_is_refused(folder, capsys, section, name, entry, line):
    write_changed(folder, lambda raw: raw[section].update({name: entry}))
    before = text_of(folder)
    assert refused(capsys, "cifar100_ed") == f"edpipe: params.yaml: {line}"
    assert text_of(folder) == before


def test_params_that_are_wrong_already_are_told_first(folder, capsys):
    (folder / "params.yaml").write_text(SHIPPED.replace("channels: 1", "channels: 2"), encoding="utf-8")
    assert main(["add", "cifar100_ed"]) == 2
    assert capsys.readouterr().err.startswith("edpipe: datasets.digits.channels: 2 is not allowed")


def test_a_section_in_one_line_is_refused(folder, capsys):
    begin, end = SHIPPED.index("students:\n"), SHIPPED.index("\n\n", SHIPPED.index("students:\n"))
    line = 'students: { resnet8: { model: resnet8 }, resnet18: { model: "timm:resnet18" } }'
    text = SHIPPED[:begin] + line + SHIPPED[end:]
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    assert refused(capsys, "cifar100_ed") == (
        "edpipe: students: its entries must stand on lines of their own to be added to; write them so"
    )
    assert text_of(folder) == text


@pytest.mark.parametrize("is_there", [True, False])
def test_a_missing_folder_of_examples_is_named(folder, capsys, monkeypatch, is_there):
    examples = folder / "examples"
    monkeypatch.setattr(add, "EXAMPLES", examples)
    if is_there:
        examples.mkdir()
    assert refused(capsys, "cifar100_ed") == (
        f"edpipe: {examples}: not found, or without .yaml files; `edpipe add` takes entries from there: install "
        "edpipe again"
    )


def test_an_example_that_is_wrong_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(add, "EXAMPLES", folder / "examples")
    (folder / "examples").mkdir()
    (folder / "examples" / "mine.yaml").write_text("a: 1\na: 2\n", encoding="utf-8")
    assert refused(capsys, "mine") == (f"edpipe: {folder}/examples/mine.yaml: line 2: key 'a' is given twice; keep one")


# what an entry needs


def test_students_that_teach_and_teachers_who_are_asked_for_confusions_are_needed():
    raw = copy.deepcopy(shipped_and_examples())
    for experiment in raw["experiments"].values():
        experiment.pop("beside", None)
    student = {"model": "resnet8", "source": "student", "experiment": "digits_teskd"}
    fitting = {"recipe": "tiny_images", "epochs": 0}
    raw["teachers"]["assistant"] = {"network": student, "fitting": fitting, "min_top1": 0.5}
    raw["partitions"]["confused"] = raw["partitions"]["thirds"] | {"confusion": {"teacher": "digits_teacher_b"}}
    raw["teachers"]["confused_specialists"] = raw["teachers"]["digits_specialists"] | {"partition": "confused"}
    raw["experiments"]["assisted"] = raw["experiments"]["digits_kd"] | {
        "method": {"name": "kd", "teacher": "assistant"}
    }
    raw["experiments"]["confused_ed"] = raw["experiments"]["digits_ed"] | {
        "partition": "confused",
        "method": {"name": "ed", "teacher": "confused_specialists"},
    }
    params = parse_params(raw)
    needed = needed_entries(params, ["assisted"])
    assert (needed["teachers"], needed["experiments"]) == (["assistant"], ["digits_teskd", "assisted"])
    needed = needed_entries(params, ["confused_ed"])
    assert needed["teachers"] == ["digits_teacher_b", "confused_specialists"]
    assert needed["partitions"] == ["confused"]
    assert needed["recipes"] == ["tiny_images"]


@pytest.mark.slow
def test_what_is_needed_is_enough():
    params = parse_params(shipped_and_examples())
    for experiment in params.experiments:
        needed = needed_entries(params, [experiment])
        raw = {s: {n: shipped_and_examples()[s][n] for n in names} for s, names in needed.items()} | {"tracked": []}
        assert jobs_of(parse_params(raw), [experiment]) == jobs_of(params, [experiment])


def test_the_examples_are_those_of_this_repository():
    assert add.EXAMPLES == ROOT / "edpipe" / "pipeline" / "project" / "examples"


def test_what_stands_beside_an_experiment_on_its_page_is_needed():
    params = parse_params(shipped_and_examples())
    assert needed_entries(params, ["digits_ed"])["experiments"] == ["digits_ed", "digits_ce", "digits_kd"]
    assert needed_entries(params, ["digits_kd"])["experiments"] == ["digits_kd", "digits_ce"]
