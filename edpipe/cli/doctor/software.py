"""What is installed, against what the package's own metadata demands."""

import importlib.metadata
import pkgutil
import platform
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import edpipe
from edpipe.cli.doctor.findings import Finding, fault, ok, warning

PACKAGE = "edpipe"
PLUGIN = "snakemake_logger_plugin_edpipe"
SHOWN = ("torch", "torchvision", "timm", "h5py", "snakemake", "dvc")
"""Have a line of their own."""


def check_python() -> Iterator[Finding]:
    """Python's version, and which copy of edpipe runs."""
    wanted = SpecifierSet(_python())
    version = platform.python_version()
    if wanted.contains(version, prereleases=True):
        yield ok("python", f"{version} on {platform.platform(terse=True)}")
    else:
        yield fault("python", f"{version}, edpipe needs {wanted}", "make a virtual environment with a newer Python")
    yield ok("edpipe", f"{edpipe.__version__}, from {Path(edpipe.__file__).parent}")


def check_packages() -> Iterator[Finding]:
    """Every package that edpipe needs, by lower and upper bounds."""
    texts = _requires()
    if texts is None:
        yield warning(
            "packages",
            "edpipe is not installed, so that nobody knows what it needs",
            "`pip install -e .` in its folder",
        )
        return
    wanted = [Requirement(text) for text in texts]
    fine = []
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        finding = _of_package(one)
        if finding.level == "ok" and one.name not in SHOWN:
            fine.append(one.name)
        else:
            yield finding
    yield ok("packages", f"{len(fine)} more as required")


def check_plugin() -> Iterator[Finding]:
    """Whether Snakemake finds the logger plugin that the profile of a project names; without it, it refuses to run."""
    if any(module.ispkg and module.name == PLUGIN for module in pkgutil.iter_modules()):
        yield ok("view", "snakemake finds the logger plugin edpipe")
    else:
        yield fault(
            "view",
            f"{PLUGIN} is not on Python's path: snakemake refuses `logger: [edpipe]` of workflow/profiles/default",
            "install edpipe again, `pip install -e .` in its folder",
        )


def _of_package(wanted: Requirement) -> Finding:
    version = _version(wanted.name)
    remedy = f"`pip install '{wanted.name}{wanted.specifier}'`"
    if version is None:
        return fault(wanted.name, f"not installed, edpipe needs {wanted.specifier or 'it'}", remedy)
    if not wanted.specifier.contains(version, prereleases=True):
        return fault(wanted.name, f"{version}, edpipe needs {wanted.specifier}", remedy)
    return ok(wanted.name, f"{version} ({wanted.specifier})" if wanted.specifier else version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requires() -> list[str] | None:
    try:
        return importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> str:
    """The versions of Python that edpipe runs with; empty where it is not installed."""
    try:
        return importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ""
