"""Throw-away project folders in which the pipeline's own commands are run, as a user runs them.

A folder holds a copy of the package and of the workflow, and its own params.yaml. The copy, not the installed package,
is what the steps import. DVC stays out of it, nothing is downloaded, and every step has one thread.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import yaml
from package_copies import copy_package, writing_compiled

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NOWHERE = "http://127.0.0.1:9"
"""A proxy where nothing listens: a download fails at once and reaches nobody."""
TIMEOUT_S = 900
AS_SNAKEMAKE_SAYS = ("--logger-edpipe-view", "snakemake")
"""For tests that look for numbers and outputs of jobs, which only Snakemake's own output has."""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    rc: int
    out: str
    err: str

    @property
    def text(self):
        """All that was said; a dry run speaks on standard output, a real one on standard error."""
        return self.out + self.err

    @property
    def said(self):
        """Lines that are the package's own words."""
        return [line for line in self.text.splitlines() if line.startswith("edpipe: ")]

    @property
    def last_line(self):
        return self.text.rstrip().splitlines()[-1]


@dataclass(frozen=True)
class Project:
    """A project folder."""

    root: Path

    def snakemake(self, *arguments, cores=2, **environment):
        """Runs snakemake with so many cores."""
        return self.run("snakemake", "--cores", str(cores), *arguments, **environment)

    def edpipe(self, *arguments, **environment):
        """Runs one command of the package."""
        return self.run("edpipe", *arguments, **environment)

    def edpipe_here(self, *arguments, **environment):
        """Runs one command of the package in this process: where the process itself is not what is tested."""
        from edpipe.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        variables = patch.dict(os.environ, self.environment(**environment), clear=True)
        with chdir(self.root), variables, redirect_stdout(out), redirect_stderr(err):
            rc = main(arguments)
        return Ran(rc, out.getvalue(), err.getvalue())

    def run(self, tool, *arguments, **environment):
        """Runs a tool of the virtual environment in the folder, to its end."""
        done = subprocess.run(
            [BIN / tool, *arguments],
            cwd=self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, tool, *arguments, **environment):
        """Starts a tool in a process group of its own; what it says goes to the file `<tool>.out`."""
        with (self.root / f"{tool}.out").open("wb") as stream:
            return subprocess.Popen(
                [BIN / tool, *arguments],
                cwd=self.root,
                env=self.environment(**environment),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self, **more):
        """This process's environment without what would reach into the folder; None takes a variable away."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EDPIPE_", "SNAKEMAKE_", "DVC_", "PYTEST_"))}
        kept = writing_compiled(kept)
        kept |= {
            "EDPIPE_DVC": "0",
            "EDPIPE_THREADS": "1",
            "EDPIPE_DEVICE": "cpu",
            "HF_HUB_OFFLINE": "1",
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
            "PYTHONPATH": str(self.root),
            "XDG_CACHE_HOME": str(self.root / ".cache"),
        }
        kept |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
        kept |= more
        return {name: str(value) for name, value in kept.items() if value is not None}

    def write_params(self, params):
        (self.root / "params.yaml").write_text(as_yaml(params), encoding="utf-8")

    def read_json(self, path):
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def files(self, *folders):
        """Every file below these folders, as sorted paths from the project folder."""
        found = [path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.root).as_posix() for path in found)


def as_yaml(params):
    """Params as YAML; values that stand in several places are written out at each, since aliases are refused."""
    return yaml.safe_dump(json.loads(json.dumps(params)), default_flow_style=False, sort_keys=False)


def make_project(root, params=None):
    """A project folder with these params; without any, with those that are shipped."""
    root = Path(root)
    copy_package(root)
    project = Project(root)
    if params is None:
        shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    else:
        project.write_params(params)
    return project


def tiny_params():
    """Digits in two school levels, all three methods, one seed, seconds of work."""
    recipe = {"batch_size": 32}
    fitting = {"recipe": "tiny", "epochs": 2, "learning_rate": 0.1}
    common = {"dataset": "digits", "partition": "halves", "student": "resnet8", "recipe": "tiny", "seeds": [0]}
    return {
        "datasets": {"digits": {"reader": "digits", "image_size": 8, "channels": 1, "max_per_class": 12}},
        "partitions": {"halves": {"subsets": ["primary", "middle"], "ratio": [1, 1]}},
        "recipes": {"tiny": recipe},
        "teachers": {
            "general": {"network": {"model": "resnet8"}, "fitting": fitting, "min_top1": 0.0},
            "specialists": {
                "partition": "halves",
                "network": {"model": "resnet8"},
                "fitting": dict(fitting),
                "min_top1": 0.0,
            },
        },
        "students": {"resnet8": {"model": "resnet8"}},
        "soft_labels": {
            "digits": {
                "space": {"augment": {"kind": "pad_crop", "padding": 1, "flip": False}},
                "views": {"number": 2, "per_file": 1},
                "storage": {"precision": "uint8"},
            }
        },
        "experiments": {
            "ce": {**common, "method": {"name": "ce"}, "stages": {"only": {"images": 96}}},
            "kd": {**common, "method": {"name": "kd", "teacher": "general"}, "stages": {"only": {"images": 96}}},
            "ed": {
                **common,
                "method": {"name": "ed", "teacher": "specialists"},
                "stages": {"primary": {"images": 96}, "middle": {"images": 96}},
            },
        },
        "tracked": ["ed"],
    }


def without_cost(path):
    """What two equal runs have in common: all of a file but what the making took, which results and pages tell,
    and the seal over it."""
    contents = path.read_bytes()
    if path.suffix == ".html":
        told = rb'<tr><th[^>]*>(Time of|Most memory).*|<p>Time and memory.*|<meta name="edpipe-result".*'
        told += rb'|<td class="number">[\d.,]+ (s|min|h)</td>'  # of the page of all results
        return re.sub(told, b"", contents)
    if path.suffix != ".json":
        return contents
    return {key: value for key, value in json.loads(contents).items() if key not in ("cost", "file_digest")}


def copy_of(project, root):
    """The same folder at another place, with modification times kept."""
    shutil.copytree(project.root, root)
    return Project(root)
