"""Plugins: what they define is known by name, mistakes are one line, and a digest is that of the file."""

import importlib.metadata
import json

import pytest
from made_project import run_job
from method_stages import only_stage
from plugin_files import LOSS, NETWORK_AND_READER
from project import as_yaml, tiny_params

from edpipe.cli.main import main
from edpipe.errors import ParamsError
from edpipe.params.load import load_params, parse_params
from edpipe.params.plans import plugins
from edpipe.params.plans.plan import StagePlan
from edpipe.params.plans.registered import REGISTRY
from edpipe.params.stage import StageKnobs
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.results.page.words import loss_text, method_text
from edpipe.storage.code.closure import form_of
from edpipe.storage.code.units import closure_of, unit_digest, unit_names
from edpipe.storage.code.versions import HERE, token


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params_with(folder, text, module, **method):
    """Tiny params with a plugin, and an experiment `mine` that is like kd but for its method."""
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    raw = tiny_params()
    raw["experiments"]["mine"] = {**raw["experiments"]["kd"], "method": {"teacher": "general", **method}}
    return {**raw, "plugins": [f"{module}.py"]}


def refused(folder, text):
    with pytest.raises(ParamsError) as error:
        parse_params(params_with(folder, text, "wrong", name="kd"))
    return str(error.value)


def test_a_loss_is_a_method_of_its_name_and_can_teach_levels(folder):
    raw = params_with(folder, LOSS, "loss_of_mine", name="again", factor=2.0)
    raw["experiments"]["ed"]["method"]["distill"] = {"kind": "again"}
    params = parse_params(raw)
    method = params.experiments["mine"].method
    assert (method.name, method.factor, method.temperature, method.task_weight) == ("again", 2.0, 4.0, 0.3)
    stages = {
        job.arguments["experiment"]: job for job in jobs_of(params, ["mine", "ed", "kd"]) if job.step == "run_stage"
    }
    assert stages["mine"].choices["loss"] == stages["ed"].choices["loss"] == "losses.again"
    assert stages["kd"].choices["loss"] == "losses.kd"
    assert json.loads(stages["mine"].knobs_text)["plan"]["algorithm"] == {"kind": "again", "factor": 2.0}


def test_knobs_of_a_plugin_are_checked_like_all_others(folder):
    with pytest.raises(ParamsError, match=r"experiments\.mine\.method\.factor: got -1\.0; .*greater than 0"):
        parse_params(params_with(folder, LOSS, "loss_of_mine", name="again", factor=-1.0))
    with pytest.raises(ParamsError, match=r"method\.factr: unknown key; did you mean 'factor'"):
        parse_params(params_with(folder, LOSS, "loss_of_mine", name="again", factr=1.0))


@pytest.mark.slow
def test_a_loss_that_is_kd_written_anew_gives_the_students_of_kd_bit_for_bit(folder, monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    raw = params_with(folder, LOSS, "loss_of_mine", name="again")
    (folder / "params.yaml").write_text(as_yaml(raw), encoding="utf-8")
    for job in jobs_of(load_params(), ["kd", "mine"]):
        if job.step not in ("evaluate_teacher", "evaluate", "result", "report"):
            run_job(job)
    records = [
        json.loads((folder / f"artifacts/students/{name}/seed0/1_only.json").read_text()) for name in ("kd", "mine")
    ]
    assert records[0]["weights_digest"] == records[1]["weights_digest"]
    assert records[1]["code"]["losses.again"].startswith("0+")
    assert "losses.kd" not in records[1]["code"]


@pytest.mark.slow
def test_a_network_and_a_reader_of_a_plugin_go_through_a_school(folder, monkeypatch):
    monkeypatch.setenv("EDPIPE_THREADS", "1")
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")
    raw = params_with(folder, NETWORK_AND_READER, "shapes_of_mine", name="kd")
    raw["datasets"]["digits"] = {"reader": "squares", "image_size": 8, "channels": 1}
    raw["students"]["resnet8"]["model"] = "two_convolutions"
    (folder / "params.yaml").write_text(as_yaml(raw), encoding="utf-8")
    assert main(["check"]) == 0
    jobs = jobs_of(load_params(), ["ed"])
    for job in jobs:
        if job.step not in ("result", "report"):
            run_job(job)
    evaluation = json.loads((folder / "artifacts/evaluations/ed/seed0.json").read_text())
    assert evaluation["data"]["class_names"] == [f"side_{side}" for side in range(1, 5)]
    units = {unit for job in jobs for unit in job.units}
    assert {"networks.two_convolutions", "readers.squares"} <= units


def test_the_digest_of_a_plugin_is_that_of_what_it_computes(folder):
    digests = []
    edits = [
        ("loss_a", LOSS),
        ("loss_b", LOSS.replace("of each sample", "of every sample").replace("def scaled", "# Why.\ndef scaled")),
        ("loss_c", LOSS.replace('description="Of the loss."', 'description="Of it."')),
        ("loss_d", LOSS.replace("else factor * losses", "else factor * losses * 2")),
    ]
    for name, text in edits:
        unit_digest.cache_clear()
        closure_of.cache_clear()
        parse_params(params_with(folder, text, name, name="again"))
        assert token("losses.again") == f"0+{unit_digest(HERE, 'losses.again')}"
        digests.append(_digest_without_module(name))
        plugins._forget(name)
    assert digests[0] == digests[1] == digests[2]
    assert digests[3] != digests[0]


def _digest_without_module(name):
    """What the unit's definitions mean, but for the name of their module."""
    places = closure_of(HERE, "losses.again").meaning
    return {str(p).replace(name, "m"): form_of(HERE, p).replace(name, "m") for p in places if p.module == name}


def test_units_of_plugins_are_listed_after_those_of_the_package(folder):
    before = unit_names(HERE)
    parse_params(params_with(folder, NETWORK_AND_READER, "shapes_of_mine", name="kd"))
    assert unit_names(HERE) == (*before, "networks.two_convolutions", "readers.squares")


def test_what_is_wrong_with_a_plugin_is_one_line(folder):
    where = "plugins: wrong.py"
    assert refused(folder, "import absent_module") == (
        f"{where}: line 1: ModuleNotFoundError: No module named 'absent_module'; correct the file"
    )
    assert refused(folder, "x = (\n").startswith(f"{where}: line 1: SyntaxError: ")
    assert refused(folder, "def f():\n    raise ValueError('no')\nf()") == (
        f"{where}: line 2: ValueError: no; correct the file"
    )
    assert refused(folder, "x = 1") == (
        f"{where}: defines no method, loss, network or reader; see docs/plugins.md, or remove it from plugins"
    )
    assert refused(folder, LOSS.replace('"again"', '"kd"')) == (
        f"{where}: there is a loss named 'kd' already, in edpipe.methods.kd; rename this one"
    )
    assert refused(folder, LOSS.replace('"again"', '"Again"')) == (
        f"{where}: 'Again' must be lower-case letters, digits and _, beginning with a letter"
    )
    assert refused(folder, LOSS.replace("def losses(", "def loses(")) == (
        f"{where}: 'again' (Again) defines no losses(self, …); add it, see docs/plugins.md"
    )
    assert refused(folder, NETWORK_AND_READER.replace('"squares"', '"digits"')) == (
        f"{where}: the package has a reader named 'digits' already; rename this one"
    )


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (
            ["absent.py"],
            "plugins: absent.py: there is no such file; correct the path, which is relative to params.yaml",
        ),
        (["notes.txt"], "plugins: notes.txt: must be a Python file with a name of letters, digits and _"),
        (["json.py"], "plugins: json.py: 'json' is the name of another Python module; rename the file"),
        (
            ["one/same.py", "two/same.py"],
            "plugins: two/same.py: has the same name as one/same.py; rename one of the two",
        ),
        ("mine.py", "plugins: got 'mine.py'; input should be a list"),
        ([3], "plugins.0: got 3; input should be a text"),
    ],
)
def test_lists_of_plugins_that_cannot_be_are_one_line(folder, paths, said):
    for name in ("json.py", "notes.txt", "one/same.py", "two/same.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(LOSS.replace("again", f"again_{(folder / name).parent.name[:3]}"))
    with pytest.raises(ParamsError) as error:
        parse_params({**tiny_params(), "plugins": paths})
    assert said in str(error.value)


def test_a_network_with_the_name_of_one_of_the_package_is_refused(folder, capsys):
    text = NETWORK_AND_READER.replace('"two_convolutions"', '"resnet20"')
    (folder / "params.yaml").write_text(as_yaml(params_with(folder, text, "shapes_of_mine", name="kd")))
    assert main(["check"]) == 2
    assert capsys.readouterr().err == (
        "edpipe: plugins: the package has a network named 'resnet20' already; rename that of the plugin\n"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "gave int; it must give a torch.nn.Module"),
        ("raise KeyError('x')", "its plugin failed: KeyError: 'x'"),
    ],
)
def test_a_network_that_fails_is_one_line(folder, capsys, body, said):
    name = f"broken_{len(body)}"
    text = f"from edpipe import network\n\n@network('{name}')\ndef build(num_classes, channels):\n    {body}\n"
    raw = params_with(folder, text, "broken_of_mine", name="kd")
    raw["students"]["resnet8"]["model"] = name
    (folder / "params.yaml").write_text(as_yaml(raw))
    assert main(["check"]) == 2
    assert said in capsys.readouterr().err


def test_an_installed_package_adds_by_its_entry_points(folder, monkeypatch):
    (folder / "others_package").mkdir()
    (folder / "others_package/__init__.py").write_text("")
    (folder / "others_package/losses.py").write_text(LOSS.replace("again", "installed"))
    monkeypatch.syspath_prepend(folder)
    point = importlib.metadata.EntryPoint("mine", "others_package.losses", "edpipe.methods")
    plugins._load_entry_point("edpipe.methods", point)
    assert REGISTRY.methods["installed"].__module__ == "others_package.losses"
    assert token("losses.installed").startswith("0+")
    broken = importlib.metadata.EntryPoint("mine", "others_package.absent", "edpipe.methods")
    with pytest.raises(
        ParamsError, match=r"entry point 'mine' of edpipe\.methods: others_package\.absent cannot be loaded"
    ):
        plugins._load_entry_point("edpipe.methods", broken)


def test_the_schema_and_the_page_of_knobs_hold_a_plugins_knobs(folder, capsys):
    raw = params_with(folder, LOSS, "loss_of_mine", name="again")
    (folder / "params.yaml").write_text(as_yaml(raw))
    assert main(["schema"]) == 0
    assert '"factor"' in capsys.readouterr().out
    assert main(["knobs"]) == 0
    assert "| `experiments.<name>.method.factor` | number | `1` | > 0 | Of the loss. |" in capsys.readouterr().out


def test_plans_of_plugins_that_are_not_here_are_read_and_written_as_they_are():
    """As in a result that somebody else made."""
    plan = only_stage(StageKnobs(images=64), name="kd", teacher="general").model_dump(mode="json")
    plan |= {"algorithm": {"kind": "theirs", "power": 2.0}, "own_loss": {"kind": "theirs", "sizes": [1, 2]}}
    read = StagePlan.model_validate(plan)
    assert read.model_dump(mode="json") == plan
    assert StagePlan.model_validate(read.model_dump()) == read
    assert loss_text(read.model_copy(update={"own_loss": None})) == "0.3 task + 0.7 theirs at temperature 4"
    assert loss_text(read) == "theirs"
    assert method_text("theirs", [read]) == "Method theirs."
