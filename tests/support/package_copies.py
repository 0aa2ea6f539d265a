"""Copies of the package and the workflow for folders of tests, in which real commands are run.

Their modules are compiled once, and their units digested, so that no command of a test does it again. Compiled modules
hold a digest of their source, by which Python knows one that a test edits.
"""

import atexit
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("edpipe", "snakemake_logger_plugin_edpipe", "workflow")


def copy_package(root):
    """The package and the workflow as they are, in the folder `root`."""
    for name in FOLDERS:
        shutil.copytree(_template() / name, Path(root) / name)


def copy_compiled(package, other):
    """Gives a package of the same texts, such as a clone's, what is compiled of this one."""
    for folder in package.rglob("__pycache__"):
        shutil.copytree(folder, other / folder.relative_to(package), dirs_exist_ok=True)


def import_no_steps(package):
    """Where steps are played, the fork server need not import them, nor torch, which takes seconds of every run."""
    path = package / "pipeline/snakemake/fork_server_launch.py"
    text = path.read_text(encoding="utf-8")
    imports = '        found += [*step.preloads, f"edpipe.steps.{step.name}"]\n'
    assert text.count(imports) == 1
    path.write_text(text.replace(imports, "        pass\n"), encoding="utf-8")


def compile_package(root):
    """Compiles what lies there."""
    compileall.compile_dir(root / "edpipe", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


def writing_compiled(environment):
    """The environment, in which Python keeps what it compiles: folders of tests are thrown away."""
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


@cache
def _template():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    compile_package(folder)
    environment = writing_compiled(os.environ) | {"PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-m", "edpipe.storage.code.preloaded"], env=environment, cwd=folder, check=True)
    return folder
