"""The package as people install it: a wheel in an environment of its own, far from this repository."""

import json
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from project import ROOT

from edpipe.params.yaml_file import load_raw
from edpipe.pipeline.project.files import OWN, TEMPLATES

pytestmark = pytest.mark.slow
SMALLER = {
    "image_size: 8\n": "image_size: 8\n    max_per_class: 12\n",
    "images: 24000": "images: 64",
    "epochs: 20": "epochs: 1",
    "min_top1: 0.95": "min_top1: 0",
    "    - 0\n    - 1\n    - 2\n": "    - 0\n",
}
"""Edits of a new project's params.yaml: what takes seconds."""


def environment_with_wheel(folder):
    """The Python of a virtual environment that has the wheel, and the packages of this one besides."""
    source, wheels, venv = folder / "source", folder / "wheels", folder / "venv"
    for name in ("edpipe", "snakemake_logger_plugin_edpipe"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    call(folder, *pip, "wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
    call(folder, sys.executable, "-m", "venv", "--without-pip", venv)
    python, (wheel,) = venv / "bin" / "python", wheels.glob("*.whl")
    call(folder, *pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # A .pth file adds the folder of the other packages, but not what their own .pth files add: this repository.
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    return python


def call(folder, *words):
    """Runs a command as from a fresh shell; its output."""
    words = list(map(str, words))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDPIPE", "PYTHON", "PYTEST"))}
    kept |= {"EDPIPE_THREADS": "1", "EDPIPE_DEVICE": "cpu", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_editable_install_puts_the_logger_plugin_where_snakemake_looks(tmp_path):
    """On Python's path itself: it does not look where the finders of other editable installs do."""
    source = tmp_path / "source"
    for name in ("edpipe", "snakemake_logger_plugin_edpipe"):
        (source / name).mkdir(parents=True)
        shutil.copy(ROOT / name / "__init__.py", source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    call(
        source, sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".pth")]
    assert [text.strip() for text in texts] == [str(source)]
    found = {module.name for module in pkgutil.iter_modules([str(source)]) if module.ispkg}
    assert found == {"edpipe", "snakemake_logger_plugin_edpipe"}


def test_a_wheel_makes_a_project_and_a_result(tmp_path):
    python = environment_with_wheel(tmp_path)
    where = call(tmp_path, python, "-c", "import edpipe, sys; print(edpipe.__file__, *sys.path, sep='\\n')").split("\n")
    assert where[0].startswith(str(tmp_path / "venv"))
    assert str(ROOT) not in where
    edpipe, project = python.with_name("edpipe"), tmp_path / "photos"
    call(tmp_path, edpipe, "init", project)
    assert all((project / path).is_file() for path in OWN)
    assert load_raw(project / "params.yaml") == load_raw(TEMPLATES / "params.yaml")
    text = (project / "params.yaml").read_text()
    for before, after in SMALLER.items():
        assert before in text
        text = text.replace(before, after)
    (project / "params.yaml").write_text(text)
    ran = call(project, python, "-m", "snakemake", "--cores", "1", "results/digits_kd.json")
    assert "edpipe: " not in ran, "nothing to be said of a new project"
    assert " done    result: result of digits_kd" in ran, "Snakemake finds its logger plugin"
    assert json.loads((project / "results/digits_kd.json").read_text())["experiment"] == "digits_kd"
    assert "cifar100_ed" in call(project, edpipe, "add", "--list")
