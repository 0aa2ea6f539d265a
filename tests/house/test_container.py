"""The Containerfile: its versions are those of requirements.lock, its files are there, its shell parses."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if line.strip()
]


def of(word):
    return [rest for name, rest in INSTRUCTIONS if name == word]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = [line.partition(";")[0].strip() for line in LOCK.splitlines() if "==" in line]
    return {normal(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_python_is_the_one_that_the_project_supports_and_snakemake_names():
    (base,) = of("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)[1]
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])
    assert f'"docker://python:{version}"' in (ROOT / "edpipe/pipeline/snakemake/Snakefile").read_text(encoding="utf-8")


def test_nothing_is_installed_at_another_version_than_the_locked_one():
    installs = re.findall(r"pip install ([^&;]*)", " ".join(of("RUN")))
    assert len(installs) == 3
    for words in installs:
        assert words.startswith("--constraint requirements.lock ") or words.startswith("--no-deps "), words
    assert not re.search(r"[=<>]=\s*\d", TEXT.partition("\n")[2]), "versions stand in requirements.lock alone"


def test_whatever_is_needed_is_locked_at_a_version_that_fits():
    extras = set(re.findall(r'\*more\["(\w+)"\]', TEXT))
    assert extras == {"s3", "onnx"}
    needed = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    needed += [one for extra in extras for one in PROJECT["project"]["optional-dependencies"][extra]]
    for requirement in map(Requirement, needed):
        assert pins()[normal(requirement.name)] in requirement.specifier, requirement


def test_what_is_copied_is_there_and_not_ignored_and_is_the_whole_package():
    copied = {name for words in of("COPY") for name in words.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    shown = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in shown if line.startswith("!")} == copied
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= copied


def test_the_user_and_the_folder_are_those_of_the_manifest():
    page = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    (_, job) = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])["items"]
    pod = job["spec"]["template"]["spec"]
    assert of("USER") == [str(pod["securityContext"]["runAsUser"])]
    assert of("WORKDIR")[-1] == pod["containers"][0]["workingDir"]
    assert {name.partition("=")[0] for name in of("ARG")} == set(re.findall(r"--build-arg (\w+)", page)) | {"DEVICE"}


@pytest.mark.parametrize("command", of("RUN"))
def test_the_shell_can_read_every_command(command):
    done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_device_that_is_not_known_or_has_no_index_is_one_line(tmp_path):
    """The commands that choose torch, with a pip that only says what it was told."""
    (chosen,) = (command for command in of("RUN") if "TORCH_INDEX" in command)
    case = re.search(r"case .*? esac", chosen)[0]
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "pip").chmod(0o755)

    def run(**variables):
        names = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DEVICE": "cuda", "TORCH_INDEX": ""} | variables
        done = subprocess.run([shutil.which("sh"), "-c", case], env=names, capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    assert run() == (0, "")
    assert run(DEVICE="cpu") == (2, "DEVICE=cpu: give TORCH_INDEX, an index of torch's builds for CPUs")
    assert run(DEVICE="rocm") == (2, "DEVICE=rocm: must be cuda or cpu")
    assert run(DEVICE="cpu", TORCH_INDEX="there") == (
        0,
        "install --constraint requirements.lock --extra-index-url there torch torchvision",
    )
