"""Closures of units hold all that jobs execute: traced on the probe, which has every step and method."""

import ast
import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from source_trees import copy_of_package

from edpipe.pipeline.confirmation.probe import jobs_with, make_folder, probe_jobs, read_probe, with_makers
from edpipe.storage.code.closure import closure, statements_of
from edpipe.storage.code.modules import TEMPLATE
from edpipe.storage.code.normal_form import TEXT_HOOKS, _is_field_or_validator, _is_knobs, normal_form
from edpipe.storage.code.references import Names, Place
from edpipe.storage.code.units import (
    ASIDE,
    ASIDE_MODULES,
    choices_of,
    closure_of,
    entries_of,
    place_of,
    unit_digest,
    unit_names,
)
from edpipe.storage.code.versions import HERE

SUPPORT = Path(__file__).resolve().parents[2] / "support"
NUM_EDITS, NUM_ON_DISK = 300, 3
TOKENS = "edpipe.storage.code."
"""What computes versions is in no closure: a job compares them as values."""
FOUND_BY_NAME = {"losses", "methods"}
"""Kinds of units that no step names: the registry finds what the knobs choose."""
TEMPLATES = ".jinja"
FINDERS = {f"edpipe.{module}" for module in ASIDE_MODULES}
"""Nor is what finds the classes that knobs choose."""


def run_traced(jobs, folder, what):
    """What each job executes, in order."""
    make_folder(folder, jobs)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDPIPE_", "DVC_"))}
    paths = os.pathsep.join([str(HERE.root.parent), str(SUPPORT)])
    variables = {"EDPIPE_DVC": "0", "EDPIPE_THREADS": "1", "EDPIPE_DEVICE": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-m", "traced_jobs", what, str(folder / "trace.json")],
        input=json.dumps([job.command.split()[1:] for job in jobs]),
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "trace.json").read_text(encoding="utf-8"))


def module_of(file):
    return "edpipe." + file.removesuffix(".py").replace("/", ".")


def closure_of_job(job):
    found = [closure_of(HERE, unit) for unit in job.units]
    return (
        frozenset().union(*(one.meaning for one in found)),
        frozenset().union(*(one.texts for one in found)) | {place_of(name) for name in ASIDE},
    )


def is_aside(file, qualname):
    """Whether this makes words for the page, or is the body of a class of knobs, which computes nothing."""
    module, parts = module_of(file), qualname.split(".")
    if set(parts) & set(TEXT_HOOKS) or file.endswith(TEMPLATES):
        return True
    holds_methods = module.startswith(("edpipe.methods.", "edpipe.params.plans."))
    return holds_methods and len(parts) == 1 and isinstance(HERE.module(module).definitions[parts[0]][0], ast.ClassDef)


@pytest.mark.slow
def test_every_function_that_a_job_executes_is_in_the_closure_of_its_units(tmp_path):
    jobs = probe_jobs(read_probe())
    seen = set()
    for job, executed in zip(jobs, run_traced(jobs, tmp_path / "project", "functions"), strict=True):
        meaning, texts = closure_of_job(job)
        counted = [(file, qualname) for file, qualname, _ in executed if not is_aside(file, qualname)]
        templates = {(HERE.root / file).read_text() for file, _, _ in executed if file.endswith(TEMPLATES)}
        assert templates <= {text for p in meaning if p.name == TEMPLATE for text in HERE.module(p.module).templates}
        places = {Place(module_of(file), qualname.split(".")[0]) for file, qualname in counted}
        places = {p for p in places if not p.module.startswith(TOKENS) and not p.name.startswith("<")}
        places = {p for p in places if p.module not in FINDERS}
        aside = {p for p in places if p in texts}
        assert places - aside - meaning - closure(HERE, aside).meaning == set(), job.command
        seen |= places
    assert {job.step for job in jobs} == {unit.split(".")[1] for unit in unit_names(HERE) if unit.startswith("steps.")}
    assert len(seen) > 400


def places_to_edit(tree, line):
    """Simple statements on a line, as node, field and index; the innermost last."""
    found = []
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, [])
            for index, statement in enumerate(statements if isinstance(statements, list) else []):
                is_simple = isinstance(statement, ast.stmt) and not hasattr(statement, "body")
                is_there = is_simple and statement.lineno <= line <= statement.end_lineno
                counts = not isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom)
                is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                if is_there and counts and not is_text and not isinstance(node, ast.Module):
                    found.append((node, field, index))
    return found


@pytest.mark.slow
def test_random_edits_of_executed_lines_change_the_digest_of_the_step(tmp_path):
    """A digest is that of the forms of definitions; a few edits are made on disk, to see the digest itself."""
    jobs = probe_jobs(read_probe())
    chain = with_makers(jobs, [job for job in jobs if job.step == "report" and job.arguments["experiment"] == "ed"])
    executed = run_traced(chain, tmp_path / "project", "lines")
    rng = random.Random(20261129)
    candidates = sorted(
        {
            (number, file, line)
            for number, lines in enumerate(executed)
            for file, line in lines
            if is_counted(file, line)
        }
    )
    rng.shuffle(candidates)
    edited, only_texts = 0, lines_that_only_make_texts()
    beside = closure(HERE, map(place_of, ASIDE)).meaning  # such as learning curves, which no artifact holds
    for number, file, line in candidates:
        if (file, line) in only_texts or not (edit := edit_of(file, line, rng)):
            continue
        place, before, after, text = edit
        meaning = frozenset().union(*(closure_of(HERE, unit).meaning for unit in chain[number].units))
        if place in beside - meaning:
            continue
        assert place in meaning, (chain[number].command, file, line)
        names = Names.within(HERE, HERE.module(place.module), before)
        if is_compared_by_value(names, before, line):
            continue
        assert normal_form(names, before) != normal_form(names, after), (file, line)
        if edited < NUM_ON_DISK:
            tree = copy_of_package(tmp_path / f"edit{edited}")
            (tree.root / file).write_text(text, encoding="utf-8")
            assert any(unit_digest(tree, u) != unit_digest(HERE, u) for u in chain[number].units), (file, line)
        edited += 1
        if edited == NUM_EDITS:
            return
    raise AssertionError(f"only {edited} lines could be edited")


def edit_of(file, line, rng):
    """Takes out a statement on a line: the definition, its statement before and after, and the module's text then."""
    text = (HERE.root / file).read_text(encoding="utf-8")
    parsed = ast.parse(text)
    places = places_to_edit(parsed, line)
    name, number = definition_on(file, line)
    if not places or name is None:
        return None
    node, field, index = places[-1]
    getattr(node, field)[index] = ast.parse("raise RuntimeError()" if rng.random() < 0.5 else "pass").body[0]
    before = HERE.module(module_of(file)).definitions[name][number]
    [after] = [s for s in ast.walk(parsed) if isinstance(s, type(before)) and is_same_place(s, before)]
    return Place(module_of(file), name), before, after, ast.unparse(parsed)


def is_compared_by_value(names, definition, line):
    """Whether a line is in a validator of knobs, or in what a method says on the page: both are in no meaning."""
    members = definition.body if isinstance(definition, ast.ClassDef) and _is_knobs(names, definition) else []
    [member] = [m for m in members if m.lineno <= line <= m.end_lineno] or [None]
    return member is not None and _is_field_or_validator(member)


def definition_on(file, line):
    """The name of the definition that a line is in, and which of its statements."""
    for name, statements in HERE.module(module_of(file)).definitions.items():
        for number, statement in enumerate(statements):
            if statement.lineno <= line <= statement.end_lineno:
                return name, number
    return None, 0


def is_same_place(one, other):
    return (one.lineno, one.col_offset) == (other.lineno, other.col_offset)


def is_counted(file, line):
    module = module_of(file)
    if module in FINDERS or module.startswith((TOKENS, "edpipe.runtime.progress")) or file.endswith(TEMPLATES):
        return False
    functions = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]
    return not any(f.name in TEXT_HOOKS and f.lineno <= line <= f.end_lineno for f in functions)


@cache
def parsed(file):
    return ast.parse((HERE.root / file).read_text(encoding="utf-8"))


def lines_that_only_make_texts():
    """(file, line) of every line of a definition that is in no meaning."""
    closures = [closure_of(HERE, unit) for unit in unit_names(HERE)]
    texts = frozenset().union(*(one.texts for one in closures)) - frozenset().union(*(one.meaning for one in closures))
    return {
        (HERE.file_of(place.module).relative_to(HERE.root).as_posix(), line)
        for place in texts
        for statement in statements_of(HERE, place)
        for line in range(statement.lineno, statement.end_lineno + 1)
    }


def test_each_step_reaches_only_kinds_of_choices_that_its_jobs_name():
    kinds = {unit.split(".")[0] for unit in choices_of(HERE)}
    named = {}
    for job in probe_jobs(read_probe()):
        for unit in job.units[1:]:
            named.setdefault(job.step, set()).add(unit.split(".")[0])
    for step in {job.step for job in probe_jobs(read_probe())}:
        cut = closure_of(HERE, f"steps.{step}").cut
        assert {kind for kind in kinds if cut & entries_of(HERE, kind)} == named.get(step, set()) - FOUND_BY_NAME, step


def test_every_choice_but_readers_of_published_sets_is_used_by_the_probe():
    jobs = probe_jobs(read_probe())
    unused = {unit for unit in unit_names(HERE) if not jobs_with(jobs, [unit])}
    assert all(unit.startswith("readers.") for unit in unused)
    assert not unused & {"readers.digits", "readers.folder"}
