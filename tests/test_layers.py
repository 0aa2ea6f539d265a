"""Imports go one way, and the core of the package touches nothing but its arguments."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "edpipe"
CORE = (
    "partition", "views", "philox", "schedule", "losses", "pixels", "certify", "metrics", "paired", "forgetting",
    "views_torch", "philox_torch", "mixing", "colour", "colour_pixels", "precisions", "fidelity", "storage_costs",
    "cost", "distill_losses", "panel", "teskd_loss", "teskd_outputs", "streams", "confusion", "difficulty",
    "agreement",
)  # fmt: skip
LAYERS = (
    (
        "errors",
        "shapes",
        "threads",
        "layout",
        "progress",
        "download",
        "sources",
        "interruption",
        "launch",
        "prefetch",
        "handover",
        "__init__",
    ),
    ("params.*",),
    CORE,
    ("models.*", "methods.*"),
    ("device", "processes", "forward"),
    ("training", "marks"),
    ("storage.*",),
    (
        "batches",
        "plain_images",
        "soft_label_batches",
        "pictures",
        "contact_sheet",
        "report_words",
        "job",
        "teacher_jobs",
        "jobs",
        "datasets.*",
    ),
    ("freshness", "evidence", "ledger"),
    ("checks", "new_entries", "tracked_jobs", "comparison", "compare", "study", "dvcsync", "snakemake_records"),
    ("workflow_hooks",),
    ("steps.*",),
    (
        "soundness",
        "soft_label_commands",
        "verify_command",
        "plan_command",
        "zoo_command",
        "new_command",
        "partition_command",
    ),
    ("tools", "__main__", "entry", "fork_server"),
)
"""From the bottom: a module imports from its own layer and from those before it."""
ALLOWED = {("params.base", "errors")}
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


def modules():
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")
    }


def tree(name):
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imported(name):
    """Modules of the package that a module imports anywhere in its text."""
    known = modules()
    for node in ast.walk(tree(name)):
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
                yield short


def layer(name):
    for number, members in enumerate(LAYERS):
        if name in members or any(m.endswith("*") and name.startswith(m[:-1]) for m in members):
            return number
    raise AssertionError(f"edpipe/{name}.py is in no layer; add it to LAYERS in its place")


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_one_way(name):
    upward = [other for other in imported(name) if layer(other) > layer(name)]
    assert not upward, f"{name} (layer {layer(name)}) imports {upward}"


def test_no_step_imports_another_but_for_what_teachers_and_dumps_share():
    shared = {"steps.teaching", "steps.asking", "steps.classroom", "steps.fitting"}
    for name in modules():
        if name.startswith("steps."):
            assert not {n for n in imported(name) if n.startswith("steps.")} - shared, name


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_pure(name):
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


@pytest.mark.parametrize(
    "name",
    [
        "metrics",
        "paired",
        "forgetting",
        "certify",
        "partition",
        "views",
        "philox",
        "mixing",
        "colour",
        "precisions",
        "fidelity",
        "confusion",
        "agreement",
    ],
)
def test_the_core_of_numbers_needs_no_torch(name):
    reached, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported(module)
    for module in reached:
        for node in ast.walk(tree(module)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in ("torch", "torchvision", "timm") for n in names), f"{name} → {module}"
