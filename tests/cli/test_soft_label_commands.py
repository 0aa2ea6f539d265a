"""`edpipe plan soft-labels` and `edpipe verify soft-labels`, in a small project with teachers that nobody trained."""

import copy
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from project import as_yaml, tiny_params
from small_world import World, every_row

from edpipe.cli.commands import soft_label_plan
from edpipe.cli.main import main
from edpipe.datasets.dataset_file import open_dataset
from edpipe.pipeline.estimates.job_costs import TRAINING_SHARE_OF_VIEWS
from edpipe.pipeline.estimates.network_speed import NetworkSpeed, NetworkSpeeds
from edpipe.pipeline.estimates.summary import size
from edpipe.pipeline.jobs import paths
from edpipe.results.measures.cost import duration
from edpipe.soft_labels.encoding.precisions import row_bytes
from edpipe.soft_labels.file.reader import open_soft_labels
from edpipe.soft_labels.file.store import open_store
from edpipe.soft_labels.file.writer import create_soft_labels
from edpipe.storage.records import read_record, record_path

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
DATASET = paths.dataset_path("digits")
GENERAL = paths.teacher_path("digits", "general", "all")
FILES = [paths.soft_labels_path("digits", "general", "all", f"{view}-{view}") for view in (0, 1)]
SPEED = NetworkSpeed(5.0, 12.0, 1000, "cpu", ())
SUBSETS = {"kd": [("general", "all")], "ed": [("specialists", "primary"), ("specialists", "middle")]}
STORAGES = {
    "float32": {"precision": "float32"},
    "float16": {"precision": "float16"},
    "uint8": {"precision": "uint8"},
    "uint4": {"precision": "uint4", "max_kl": None},
    "top_k 2": {"precision": "top_k", "top_k": 2, "max_kl": None},
    "sampled 9": {"precision": "sampled", "draws": 9, "temperature": 4.0, "max_kl": None},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDPIPE_THREADS", "1")
        patch.setenv("EDPIPE_DEVICE", "cpu")
        patch.setenv("EDPIPE_DVC", "0")
        patch.setenv("COLUMNS", "200")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with dataset, partition, three teachers, and the general one's soft labels of two views."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_params()
        run("pack_dataset", dataset="digits")
        run("partition_dataset", dataset="digits", partition="halves")
        make_teachers(root, 0)
        dump("kd")
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of that folder, to be changed."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def here(made, monkeypatch):
    """That folder itself, not to be changed."""
    monkeypatch.chdir(made)
    return made


def write_params(storage=None, **changes):
    params = copy.deepcopy(tiny_params())
    params["partitions"]["halves"]["ratio"] = [1, 2]  # specialists of 3 and of 7 classes
    if storage:
        params["soft_labels"]["digits"]["storage"] = storage
    params["soft_labels"]["digits"]["views"] |= changes.pop("views", {})
    params["soft_labels"]["digits"]["space"] |= changes.pop("space", {})
    Path("params.yaml").write_text(as_yaml(params))


def run(step, **words):
    assert main([step, *(f"--{name}={word}" for name, word in words.items())]) == 0


def make_teachers(root, seed):
    built = root / f"built{seed}"
    world = World(built, root / DATASET, root / paths.partition_path("digits", "halves"))
    for subset in ("all", "primary", "middle"):
        world.teacher(subset, seed)
    shutil.copytree(built / "teachers", root / "artifacts" / "teachers" / "digits", dirs_exist_ok=True)
    shutil.rmtree(built)


def dump(experiment, num_views=2):
    for teacher, subset in SUBSETS[experiment]:
        for view in range(num_views):
            run("dump_soft_labels", dataset="digits", teacher=teacher, subset=subset, views=f"{view}-{view}")


def stores_of(experiment):
    folders = (paths.soft_labels_index_path("digits", *use).with_suffix("") for use in SUBSETS[experiment])
    return [open_store(sorted(folder.glob("*.h5"))) for folder in folders]


def said(capsys, *words):
    """What the command prints; it must end well."""
    capsys.readouterr()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, *words):
    """The one line of the command's refusal."""
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"edpipe: [^\n]+\n", err), err
    return err.removeprefix("edpipe: ").rstrip()


def tables(text):
    """Rows of both tables by their first cell, and that of the marked row of each."""
    found, marked = [], []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if cells[0] in ("precision", "views"):
            found.append((cells[1:], {}))
        elif len(cells) > 1 and found:
            if cells[0].endswith(" ←"):
                marked.append(cells[0][:-2])
            header, rows = found[-1]
            rows[cells[0].removesuffix(" ←")] = dict(zip(header, cells[1:], strict=True))
    (_, precisions), (_, views) = found
    return precisions, views, marked


def shown(num_bytes):
    return f"{num_bytes} B" if num_bytes < 1000 else f"{num_bytes / 1000:.3g} kB"


# plan


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("experiment", ["kd", "ed"])
def test_sizes_and_forwards_are_those_of_the_real_files(project, capsys, experiment, name):
    write_params(STORAGES[name])
    dump(experiment)
    precisions, views, marked = tables(said(capsys, "plan", "soft-labels", experiment))
    stores = stores_of(experiment)
    num_bytes = sum(store.num_bytes for store in stores)
    assert marked == [name, "2"]
    assert precisions[name]["size"] == views["2"]["size"] == shown(num_bytes)
    assert precisions[name]["bytes/row"] == str(min(row_bytes(store.precision) for store in stores))
    records = [read_record(record_path(file.path)) for store in stores for file in store.files]
    assert views["2"]["teacher forwards"] == str(sum(record["teacher_forwards"] for record in records))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("hint", [None, {"feature_stage": 2, "side": 3}])
def test_what_lies_beside_the_logits_is_priced_as_the_real_files_have_it(project, capsys, attention, hint):
    storage = {"precision": "uint8", "attention": attention} | ({"hint": hint} if hint else {})
    write_params(storage)
    dump("kd")
    precisions, views, marked = tables(said(capsys, "plan", "soft-labels", "kd"))
    files = stores_of("kd")[0].files
    num_bytes = sum(part.nbytes for labels in files for part in labels.parts.values())
    features = attention * 2 * (8 * 8 + 4 * 4 + 2 * 2) + bool(hint) * 2 * 32 * 3 * 3
    assert marked == ["uint8", "2"]
    assert precisions["uint8"]["bytes/row"] == str(10 + 4 + features)
    assert precisions["uint8"]["size"] == views["2"]["size"] == shown(num_bytes)


@pytest.mark.parametrize("name", STORAGES)
def test_every_precision_is_named_once_and_has_its_errors(project, capsys, name):
    write_params(STORAGES[name])
    precisions, _, _ = tables(said(capsys, "plan", "soft-labels", "kd"))
    assert list(precisions) == list(dict.fromkeys(["float32", "float16", "uint8", "uint4", "top_k 3", name]))
    for precision, row in precisions.items():
        errors = [row[column] for column in ("mean KL", "largest KL", "certified")]
        if precision == "sampled 9":
            assert errors == ["–"] * 3
        else:
            mean, largest, certified = map(float, errors)
            assert mean <= largest <= certified
            assert (largest == 0) == (precision == "float32")


def test_the_errors_shown_are_of_the_size_that_the_dump_measured(here, capsys):
    row = tables(said(capsys, "plan", "soft-labels", "kd"))[0]["uint8"]
    # 120 samples are all tried, on one of their two views each.
    worst = max(file.seal.statistics["measured_max_kl"] for file in stores_of("kd")[0].files)
    assert worst / 4 < float(row["largest KL"]) <= worst * 1.06


def test_other_numbers_of_views_are_priced_beside_the_chosen(here, capsys):
    _, views, _ = tables(said(capsys, "plan", "soft-labels", "kd"))
    num = len(open_dataset(DATASET).sample_ids("train", tuple(range(10))))
    assert list(views) == ["1", "2", "8", "32"]
    for count, row in views.items():
        assert row["teacher forwards"] == f"{int(count) * num:,}"
        students = -(-int(count) * num // 96)
        assert row["pays off from"] == f"{students} student{'s' * (students > 1)}"
        assert re.fullmatch(r"\d+ s", row["time"])


def test_an_exhaustive_space_is_priced_up_to_its_own_number_of_views(project, capsys):
    write_params(space={"exhaustive": True}, views={"number": None})
    assert list(tables(said(capsys, "plan", "soft-labels", "kd"))[1]) == ["1", "8", "9"]


@pytest.mark.parametrize(
    ("experiment", "line"),
    [("kd", "kd: 1 teacher, {} images in all, 96 seen"), ("ed", "ed: 2 teachers, {} images in all, 192 seen")],
)
def test_the_last_lines_count_teachers_and_images(here, capsys, experiment, line):
    *_, images, speed = said(capsys, "plan", "soft-labels", experiment).splitlines()
    num = len(open_dataset(DATASET).sample_ids("train", tuple(range(10))))
    assert images == line.format(num) + " with a teacher by each student"
    measured = (
        r"a teacher takes [\d,]+ images/s \(measured here, of one of these teachers\); asked online, \d+ s for .*"
    )
    assert re.fullmatch(measured, speed)


def test_without_a_teacher_errors_are_dashes_and_its_network_is_timed(project, capsys, monkeypatch):
    with_teacher = tables(said(capsys, "plan", "soft-labels", "kd"))
    shutil.rmtree(project / "artifacts" / "teachers")
    monkeypatch.setattr(soft_label_plan, "NetworkSpeeds", lambda: NetworkSpeeds(lambda _: SPEED))
    text = said(capsys, "plan", "soft-labels", "kd")
    precisions, views, marked = tables(text)
    assert marked == with_teacher[2]
    for name, row in precisions.items():
        assert [row[column] for column in ("mean KL", "largest KL", "certified")] == ["–"] * 3
        assert row["size"] == with_teacher[0][name]["size"]
    num = len(open_dataset(DATASET).sample_ids("train", tuple(range(10))))
    assert views["32"]["time"] == duration(32 * num / (12 / TRAINING_SHARE_OF_VIEWS))
    *_, images, speed = text.splitlines()
    assert images.endswith(
        "each student; errors, maps and hints are known once a teacher is there: `snakemake` makes it"
    )
    online = duration(96 / (12 / TRAINING_SHARE_OF_VIEWS))
    assert speed == (
        "a teacher takes 10 images/s (measured here, of networks with random weights (cpu)); "
        f"asked online, {online} for each student"
    )


def test_a_network_that_cannot_be_timed_leaves_a_dash(project, capsys, monkeypatch):
    shutil.rmtree(project / "artifacts" / "teachers")
    monkeypatch.setattr(soft_label_plan, "NetworkSpeeds", lambda: SimpleNamespace(of=lambda _: None))
    text = said(capsys, "plan", "soft-labels", "kd")
    assert {row["time"] for row in tables(text)[1].values()} == {"–"}
    assert "images/s" not in text


def test_a_given_speed_stands_above_what_is_measured(here, capsys):
    text = said(capsys, "plan", "soft-labels", "ed", "--images-per-second", "0.5")
    num = len(open_dataset(DATASET).sample_ids("train", tuple(range(10))))
    assert tables(text)[1]["2"]["time"] == duration(2 * num / 0.5)
    assert text.splitlines()[-1] == (
        f"a teacher takes 0.5 images/s (as given); asked online, {duration(192 / 0.5)} for each student"
    )


def test_more_numbers_of_views_are_priced_on_demand(here, capsys):
    _, views, _ = tables(said(capsys, "plan", "soft-labels", "kd", "--views", "5", "--views", "90"))
    assert list(views) == ["1", "2", "5", "8", "32", "90"]


def test_more_views_than_a_space_has_are_refused(project, capsys):
    write_params(space={"exhaustive": True}, views={"number": None})
    line = refused(capsys, "plan", "soft-labels", "kd", "--views", "10")
    assert line == "soft_labels.digits.space: has 9 views and no more, got --views 10; use a smaller number of views"


@pytest.mark.parametrize("rate", ["0", "-1", "inf", "nan", "fast"])
def test_a_speed_that_is_none_is_refused(here, capsys, rate):
    line = refused(capsys, "plan", "soft-labels", "kd", f"--images-per-second={rate}")
    assert line.startswith(
        f"plan soft-labels: argument --images-per-second: must be a number above 0, got '{rate}'; `edpipe "
    )


@pytest.mark.parametrize("experiment", ["kd", "ed"])
def test_before_packing_published_numbers_stand_for_the_counted_ones(project, capsys, experiment):
    # Of 1,797 digits 12 a class are taken, so that what is spread evenly is what is counted.
    shutil.rmtree(project / "artifacts" / "teachers")
    packed = said(capsys, "plan", "soft-labels", experiment, "--images-per-second=9")
    shutil.rmtree("artifacts")
    expected = said(capsys, "plan", "soft-labels", experiment, "--images-per-second=9").splitlines()
    remark = "digits is not packed and partitioned here: numbers of images are expected, evenly over classes"
    assert expected[-2] == remark
    assert [*expected[:-2], expected[-1]] == packed.splitlines()


def test_an_example_is_priced_in_a_folder_without_data_and_without_its_entries(project, capsys):
    shutil.rmtree("artifacts")
    before = Path("params.yaml").read_bytes()
    text = said(capsys, "plan", "soft-labels", "imagenet_kd", "--images-per-second", "1000")
    precisions, views, marked = tables(text)
    train = 1_281_167 - round(1_281_167 * 0.02)
    assert marked == ["uint8", "8"]
    assert views["8"]["teacher forwards"] == f"{8 * train:,}"
    assert views["8"]["time"] == duration(8 * train / 1000)
    assert precisions["uint8"]["size"] == size(8 * train * 1004)
    assert Path("params.yaml").read_bytes() == before


def test_a_second_teacher_is_asked_where_the_first_is_not_there(project, capsys):
    paths.teacher_path("digits", "specialists", "primary").unlink()
    precisions, _, _ = tables(said(capsys, "plan", "soft-labels", "ed"))
    assert precisions["uint8"]["mean KL"] != "–"


def test_nothing_is_written_by_a_plan(here, capsys):
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    said(capsys, "plan", "soft-labels", "ed")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_a_row_too_large_for_a_precision_has_dashes_there(project, capsys, monkeypatch):
    large = np.array([[7e4, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    trial = soft_label_plan.Trial(large, np.zeros(1, dtype=np.int64), 0, 1.0)
    monkeypatch.setattr(soft_label_plan, "_try_first", lambda *_: trial)
    precisions, _, _ = tables(said(capsys, "plan", "soft-labels", "kd"))
    assert {name: row["certified"] == "–" for name, row in precisions.items()} == {
        "float32": False,
        "float16": True,
        "uint8": False,
        "uint4": False,
        "top_k 3": True,
    }


def test_top_k_of_more_classes_than_a_specialist_has_is_refused(project, capsys):
    write_params({"precision": "top_k", "top_k": 5, "max_kl": None})
    assert refused(capsys, "plan", "soft-labels", "ed") == (
        "soft_labels.digits.storage: top_k 5 leaves nothing out of 3 classes; use precision: float16"
    )


@pytest.mark.parametrize(
    ("experiment", "line"),
    [
        ("ce", "experiments.ce: method 'ce' has no teacher to store"),
        ("kt", "experiments: no entry named 'kt'; known: ce, ed, kd"),
    ],
)
def test_an_experiment_without_teachers_or_of_another_name_is_refused(here, capsys, experiment, line):
    assert refused(capsys, "plan", "soft-labels", experiment) == line


def test_a_dataset_of_which_nobody_published_numbers_must_be_packed_first(project, capsys):
    params = copy.deepcopy(tiny_params())
    params["datasets"]["digits"] = {"reader": "folder", "root": "none", "image_size": 8}
    Path("params.yaml").write_text(as_yaml(params))
    DATASET.unlink()
    record_path(DATASET).unlink()
    line = refused(capsys, "plan", "soft-labels", "ed")
    assert line.startswith(f"{DATASET}: ")
    assert "snakemake" in line


def test_before_the_partition_is_made_its_sizes_are_expected(project, capsys):
    counted = said(capsys, "plan", "soft-labels", "ed", "--images-per-second=9")
    paths.partition_path("digits", "halves").unlink()
    for subset in ("primary", "middle"):
        paths.teacher_path("digits", "specialists", subset).unlink()
    expected = said(capsys, "plan", "soft-labels", "ed", "--images-per-second=9")
    assert tables(expected)[1] == tables(counted)[1]
    assert "digits is not packed and partitioned here" in expected


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_without_a_name_the_command_says_what_it_needs(here, capsys, command):
    assert refused(capsys, command, "soft-labels").startswith(f"{command} soft-labels: the following arguments are ")


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_help_speaks_to_users_only(here, capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, "soft-labels", "--help"])
    assert caught.value.code == 0
    assert "Raises" not in capsys.readouterr().out


# verify


def test_a_good_file_passes_with_its_figures(here, capsys):
    line = said(capsys, "verify", "soft-labels", str(FILES[0]))
    num = open_soft_labels(FILES[0]).num_forwards
    assert line.startswith(f"{FILES[0]}: {num} rows: 0 bad (at most ")
    assert line.count("\n") == 1


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_good_files_of_any_precision_pass(project, capsys, storage):
    write_params(storage)
    dump("ed", 1)
    path = paths.soft_labels_path("digits", "specialists", "middle", "0-0")
    assert " rows: 0 bad " in said(capsys, "verify", "soft-labels", str(path))


@pytest.mark.parametrize("words", [("--rows", "7"), ("--rows=7", "--seed=5")])
def test_as_many_rows_as_asked_for_are_looked_at(here, capsys, words):
    assert said(capsys, "verify", "soft-labels", str(FILES[1]), *words).startswith(f"{FILES[1]}: 7 rows: 0 bad")


def test_an_absolute_path_and_a_link_to_a_cache_are_files_of_the_project_as_well(project, tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    FILES[0].rename(tmp_path / "cache" / "object")
    FILES[0].symlink_to(tmp_path / "cache" / "object")
    assert " rows: 0 bad " in said(capsys, "verify", "soft-labels", str(project / FILES[0]))


def forge(path, change):
    """The file once more, sound, but with rows changed."""
    labels = open_soft_labels(path)
    rows = change(labels.logits(*every_row(labels)))
    with create_soft_labels(path, labels.header, "forged") as writer:
        for block in writer.missing:
            writer.write(block, np.ascontiguousarray(rows[block.start : block.stop]))


def test_rows_that_another_network_said_are_named_by_sample_and_view(project, capsys):
    other = open_soft_labels(FILES[1]).header
    make_teachers(project, 1)
    run("dump_soft_labels", dataset="digits", teacher="general", subset="all", views="1-1")
    labels = open_soft_labels(FILES[1])
    rows = labels.logits(*every_row(labels))
    make_teachers(project, 0)
    with create_soft_labels(FILES[1], other, "forged") as writer:
        for block in writer.missing:
            writer.write(block, np.ascontiguousarray(rows[block.start : block.stop]))
    line = refused(capsys, "verify", "soft-labels", str(FILES[1]))
    num = len(other.sample_ids)
    assert line.startswith(f"{FILES[1]}: sample {other.sample_ids[0]}, view 1 is not what the teacher says now (")
    assert f"({num} rows: {num} bad " in line
    assert line.endswith(f"dump it again with `snakemake --force {FILES[1]}`")


def test_a_single_forged_row_is_named_if_it_is_drawn(project, capsys):
    def change(rows):
        rows[33, 4] += 9
        return rows

    sample = open_soft_labels(FILES[1]).sample_ids[33]
    forge(FILES[1], change)
    line = refused(capsys, "verify", "soft-labels", str(FILES[1]))
    assert f": sample {sample}, view 1 is not what the teacher says now (" in line


def test_soft_labels_of_other_weights_are_refused(project, capsys):
    make_teachers(project, 1)
    line = refused(capsys, "verify", "soft-labels", str(FILES[0]))
    assert line.startswith(f"{FILES[0]}: was made with teacher digest '")


def test_a_file_of_another_teacher_is_refused(project, capsys):
    dump("ed", 1)
    path = paths.soft_labels_path("digits", "specialists", "primary", "0-0")
    shutil.copy(FILES[0], path)
    assert refused(capsys, "verify", "soft-labels", str(path)).startswith(f"{path}: was made with teacher 'general'")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (FILES[0].with_name("views_2-2.h5"), "no such file"),
        (record_path(FILES[0]), "not a file of soft labels of this project"),
        (FILES[0].parent, "not a file of soft labels of this project; name one such as artifacts/soft_labels/"),
        (DATASET, "not a file of soft labels of this project"),
        (Path("/dev/null"), "not a file of soft labels of this project"),
        (Path("..") / FILES[0], "not a file of soft labels of this project"),
    ],
    ids=["absent", "record", "folder", "dataset", "elsewhere", "outside"],
)
def test_a_path_that_is_no_soft_label_file_is_refused(here, capsys, path, words):
    line = refused(capsys, "verify", "soft-labels", str(path))
    assert line.startswith(f"{path}: ")
    assert words in line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("digits", "nobody", "all"), "teachers: no entry named 'nobody'"),
        (("digits", "general", "middle"), "subset of teacher 'general': 'middle' is not one of them; allowed: all"),
        (("cifar", "general", "all"), "soft_labels: no entry named 'cifar'"),
    ],
    ids=["teacher", "subset", "dataset"],
)
def test_a_path_that_names_nothing_in_the_params_is_refused(here, capsys, path, line):
    assert refused(capsys, "verify", "soft-labels", str(paths.soft_labels_path(*path, "0-0"))).startswith(line)


def test_verification_before_the_dataset_is_there_is_refused(project, capsys):
    DATASET.unlink()
    assert refused(capsys, "verify", "soft-labels", str(FILES[0])).startswith(f"{DATASET}: ")


def test_verification_without_the_teacher_is_refused(project, capsys):
    GENERAL.unlink()
    assert refused(capsys, "verify", "soft-labels", str(FILES[0])).startswith(f"{GENERAL}: ")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (("--rows", "0"), "argument --rows: must be a whole number of at least 1, got '0'"),
        (("--rows", "many"), "argument --rows: must be a whole number of at least 1, got 'many'"),
        (("--seed", "-1"), "argument --seed: must be a whole number of at least 0, got '-1'"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(here, capsys, words, end):
    line = refused(capsys, "verify", "soft-labels", str(FILES[0]), *words)
    assert line == f"verify soft-labels: {end}; `edpipe verify soft-labels --help` describes the command"
