"""Commands of steps write the curves that params.yaml asks for, and no job hangs on them."""

import copy
import json
from pathlib import Path

import pretended
import pytest
from project import as_yaml, tiny_params

from edpipe.cli.main import main
from edpipe.params.load import load_params
from edpipe.pipeline.jobs.rerun_triggers import knobs_trigger
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.runtime import loggers
from edpipe.runtime.loggers import LOGGER_VARIABLE

WORDS = ["train_teacher", "--dataset", "digits", "--teacher", "general", "--subset", "all"]
CURVE = Path("logs/curves/teachers/digits/general/all.json")
WEIGHTS = Path("artifacts/teachers/digits/general/all.safetensors")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder in which a dataset is packed."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(tiny_params())
        assert main(["pack_dataset", "--dataset", "digits"]) == 0
    return folder


@pytest.fixture
def folder(packed, monkeypatch):
    """The same folder without a teacher."""
    monkeypatch.chdir(packed)
    for name, value in {"EDPIPE_THREADS": "1", "EDPIPE_DEVICE": "cpu", "EDPIPE_DVC": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(LOGGER_VARIABLE, raising=False)
    for path in (WEIGHTS, CURVE):
        path.unlink(missing_ok=True)
    return packed


def write(raw):
    Path("params.yaml").write_text(as_yaml(raw), encoding="utf-8")


@pytest.mark.slow
def test_a_teacher_is_the_same_with_any_curve(folder):
    made = {}
    for curves in ({"points": 3, "validation_images": 5}, {"points": 0}, None):
        write(tiny_params() | ({"curves": curves} if curves else {}))
        assert main(WORDS) == 0
        made[str(curves)] = WEIGHTS.read_bytes(), WEIGHTS.with_suffix(".json").read_bytes()
        rows = json.loads(CURVE.read_text(encoding="utf-8")) if CURVE.exists() else []
        assert len(rows) == (min(20, rows[-1]["iteration"]) if curves is None else curves["points"])
        assert all((row["val_top1"] is not None) == bool(curves) for row in rows)
        CURVE.unlink(missing_ok=True)
    assert len(set(made.values())) == 1


def test_a_logger_that_is_not_there_stops_the_step_before_it_begins(folder, monkeypatch, capsys):
    write(tiny_params() | {"logger": "wandb"})
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    assert main(WORDS) == 2
    assert capsys.readouterr().err == (
        "edpipe: logger: 'wandb': not installed here; `pip install wandb`, or leave it out with EDPIPE_LOGGER=none\n"
    )
    assert not WEIGHTS.exists()


def test_no_job_hangs_on_curves_or_logger(folder):
    raw = copy.deepcopy(pretended.raw_params())
    found = []
    for more in ({}, {"curves": {"points": 7, "validation_images": 3}, "logger": "mlflow"}):
        write({name: value for name, value in raw.items() if name not in ("curves", "logger")} | more)
        found.append([(job.command, knobs_trigger(job), job.all_inputs) for job in all_jobs(load_params())])
    assert found[0] == found[1]


def test_dvc_yaml_does_not_name_them():
    text = (Path(__file__).resolve().parents[2] / "dvc.yaml").read_text(encoding="utf-8")
    assert "curves" not in text
    assert "logger" not in text
