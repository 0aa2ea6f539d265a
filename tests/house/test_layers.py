"""Imports go one way, and the core of the package touches nothing but its arguments."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "edpipe"
PURE = (
    "losses.kd", "losses.logits", "losses.features", "losses.teacher_weights", "losses.teskd",
    "views.axes", "views.philox", "views.philox_torch", "views.sampling", "views.crops", "views.crops_torch",
    "views.mixing", "views.colour", "views.colour_pixels", "views.pixels",
    "datasets.partition", "training.schedule", "training.sample_stream",
    "soft_labels.encoding.softmax", "soft_labels.encoding.precisions", "soft_labels.encoding.quantisation",
    "soft_labels.encoding.fidelity", "soft_labels.encoding.costs", "soft_labels.confusion", "soft_labels.difficulty",
    "results.measures.metrics", "results.measures.agreement", "results.measures.forgetting", "results.measures.cost",
    "results.comparison.paired_test",
)  # fmt: skip
"""Values in, values out: no files, clock, environment or global generator."""
LAYERS = (
    ("errors",),
    ("params", "runtime"),
    ("storage",),
    ("datasets", "models"),
    ("views", "losses"),
    ("soft_labels", "results", "methods"),
    ("training", "pipeline"),
    ("steps", "export"),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""From the bottom: a package imports from itself and from layers below its own."""
NO_TORCH = (
    "params.load", "params.plans.curriculum", "datasets.partition", "views.spec", "views.sampling", "views.philox",
    "views.mixing", "views.colour", "soft_labels.encoding.precisions", "soft_labels.encoding.quantisation",
    "soft_labels.encoding.fidelity", "soft_labels.confusion", "results.measures.metrics",
    "results.measures.agreement", "results.measures.forgetting", "results.comparison.paired_test",
    "pipeline.jobs.graph", "pipeline.state.recorded", "export.description", "export.finished",
)  # fmt: skip
"""Modules from which no module that imports torch is reached."""
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}
IMPURE_MODULES = {
    "os",
    "sys",
    "time",
    "datetime",
    "pathlib",
    "random",
    "io",
    "tempfile",
    "subprocess",
    "socket",
    "logging",
}
GLOBAL_GENERATORS = ("np.random", "torch.random", "torch.manual_seed", "torch.rand", "torch.randn", "torch.randperm")


@cache
def modules():
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")
    }


@cache
def tree(name):
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def run_time_nodes(node):
    """All nodes but those that only type checkers read: `params` names there what later layers define."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"):
            yield from run_time_nodes(child)


@cache
def imported(name):
    """Modules of the package that a module imports anywhere in its text."""
    known = modules()
    reached = []
    for node in run_time_nodes(tree(name)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for full in found:
            short = full.removeprefix("edpipe.")
            if full.startswith("edpipe.") and short in known:
                reached.append(short)
    return tuple(reached)


def package(name):
    """The room of a module: the first part of its name."""
    return name.split(".")[0]


def layer(name):
    for number, members in enumerate(LAYERS):
        if package(name) in members:
            return number
    raise AssertionError(f"edpipe/{package(name)} is in no layer; add it to LAYERS in its place")


NAMES = sorted(name for name in modules() if name != "__init__")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_imports_go_down(name):
    others = [other for other in imported(name) if other != "__init__" and package(other) != package(name)]
    upward = [other for other in others if layer(other) >= layer(name)]
    assert not upward, f"{name} (layer {layer(name)}) imports {upward}"


def test_only_stages_import_losses():
    importers = {name for name in NAMES for other in imported(name) if package(other) == "losses"}
    assert {name for name in importers if package(name) != "losses"} <= {
        "training.stage.task",
        "models.students.hint",
        *(name for name in NAMES if package(name) == "methods"),
    }


def test_reading_params_imports_no_torch_and_no_method_does():
    read = "from edpipe.params.load import load_params; from edpipe.params.plans.curriculum import curriculum; "
    plan = "params = load_params(); [curriculum(params, name) for name in params.experiments]; "
    code = f"{read}{plan}import sys; print(sorted({{'torch', 'timm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_step_imports_another():
    for name in NAMES:
        if package(name) == "steps":
            assert not {other for other in imported(name) if package(other) in ("steps", "pipeline")}, name


def test_package_files_hold_a_docstring_alone():
    for name in modules():
        if name.endswith("__init__") and name != "__init__":
            body = tree(name).body
            assert len(body) == 1, name
            assert ast.get_docstring(tree(name)), name


def test_folders_and_files_have_a_size_that_can_be_read():
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    for folder in folders:
        entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
        most = {PACKAGE: 22, PACKAGE / "cli" / "commands": 40}  # a module for each command
        assert len(entries) <= most.get(folder, 20), folder
    for name, path in modules().items():
        assert path.read_text(encoding="utf-8").count("\n") <= 350, name


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_touches_only_its_arguments(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not {n.split(".")[0] for n in names} & IMPURE_MODULES, f"{name} imports {names}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{name} calls {node.func.id}"
        if isinstance(node, ast.Attribute):
            assert not dotted(node).startswith(GLOBAL_GENERATORS), f"{name} uses {dotted(node)}"
        if isinstance(node, ast.Global):
            raise AssertionError(f"{name} changes a global")


@pytest.mark.parametrize("name", NO_TORCH)
def test_planning_and_numbers_need_no_torch(name):
    reached, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported(module)
    for module in reached:
        for node in run_time_nodes(tree(module)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in ("torch", "torchvision", "timm") for n in names), f"{name} → {module}"
