"""`edpipe explain ARTIFACT`: what a file was made from, by which code, when and where, and what hangs on it."""

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.errors import UsageError, nearest
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.cache.places import place_of, why_gone
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state.cost_ledger import CostEntry, entry_of_present
from edpipe.pipeline.state.judgement import all_jobs
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Origin, Outcome, Verdict, assess, outcomes, title
from edpipe.results.measures.cost import duration
from edpipe.storage.job import Job

STATES = {
    Verdict.CACHED: "what would be made now; it is used as it is",
    Verdict.WAITS: "what would be made now, but an input would be made again",
    Verdict.STALE: "not what would be made now",
    Verdict.DAMAGED: "damaged",
    Verdict.ABSENT: "not there",
}
NAMED = 3
"""Readers of one step that are named one by one; more are counted."""


@dataclass(frozen=True)
class Explanation:
    """What is known of one artifact."""

    job: Job
    outcome: Outcome
    recorded: Origin | None
    """What its record says it was made from; None: it has none that can be read."""
    inputs: tuple[tuple[Path, Verdict | None], ...]
    """What its job reads, and what is to be thought of each; None: no job makes it."""
    readers: tuple[Job, ...]
    """Jobs that read it, and those that read what they make."""
    cost: CostEntry | None
    """What its making took; None where that is not known."""


def add_explain(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument(
        "artifact",
        type=Path,
        help="a file in artifacts/ or results/; or for a result an experiment, study_<study> or search_<search>",
    )
    command.add_argument("--json", action="store_true", dest="is_json", help="print it as JSON, with all knobs")
    command.set_defaults(run=explain)


def explain(artifact: Path, is_json: bool) -> None:
    """Prints what one artifact is; reads records, not the artifacts themselves.

    Raises:
        ParamsError: params.yaml is wrong.
        UsageError: params.yaml has no job that makes such a file.
    """
    params = load_params()
    found = explained(params, job_of(params, artifact))
    if is_json:
        print(json.dumps(as_json(found), indent=1, ensure_ascii=False))
        return
    for line in lines_of(found):
        print(line)


def job_of(params: Params, named: Path) -> Job:
    """The job that makes a file of the project, or the result of an experiment.

    Raises:
        UsageError: there is none.
    """
    here, known = Path.cwd().resolve(), _results_by_name(params)
    path = named.resolve().relative_to(here) if named.resolve().is_relative_to(here) else named
    path = known.get(str(named), path)
    place = place_of(path)
    if job := place.job(params):
        return job
    if place.step:
        raise UsageError(f"explain: {path}: {why_gone(place, params)}; nothing of today's params.yaml makes this file")
    raise UsageError(
        f"explain: {path} is neither an experiment nor a file that edpipe makes in artifacts/ or results/"
        f"{nearest(str(named), known)}"
    )


def _results_by_name(params: Params) -> dict[str, Path]:
    """Of experiments, and of studies and searches as other commands name them."""
    names = {name: paths.result_path(name) for name in params.experiments}
    names |= {f"{paths.STUDY_PREFIX}{name}": paths.study_path(name) for name in params.studies}
    return names | {f"{paths.SEARCH_PREFIX}{name}": paths.search_path(name) for name in params.searches}


def explained(params: Params, job: Job) -> Explanation:
    """What records and params.yaml say of the artifact of a job."""
    jobs, records = all_jobs(params), Records()
    if all(one.outputs != job.outputs for one in jobs):  # no experiment needs it
        jobs.append(job)
    states = [recorded_state(one, records) for one in jobs]
    judgements = [assess(one, state, present_origin(one, records)) for one, state in zip(jobs, states, strict=True)]
    found = outcomes(jobs, judgements, [state.missing for state in states])
    number = [one.outputs for one in jobs].index(job.outputs)
    makers = {path: one.verdict for one in found for path in one.job.outputs}
    return Explanation(
        job=jobs[number],
        outcome=found[number],
        recorded=states[number].recorded,
        inputs=tuple((path, makers.get(path)) for path in dict.fromkeys(job.all_inputs)),
        readers=tuple(_readers(job, jobs)),
        cost=entry_of_present(job),
    )


def _readers(job: Job, jobs: Sequence[Job]) -> Iterator[Job]:
    """Jobs that read what a job makes, directly or not; `jobs` have inputs before what reads them."""
    reached = set(job.outputs)
    for one in jobs:
        if not reached.isdisjoint(one.all_inputs):
            reached.update(one.outputs)
            yield one


def lines_of(found: Explanation) -> Iterator[str]:
    """What a person reads."""
    yield str(found.job.outputs[0])
    yield f"  made by     {found.job.command}"
    yield f"  state       {STATES[found.outcome.verdict]}"
    for reason in (*found.outcome.reasons, *found.outcome.notes):
        if reason != found.outcome.verdict:  # an absent one has no other reason
            yield f"              {reason}"
    if (cost := found.cost) is not None:
        again = f" in {cost.attempts} attempts" if cost.attempts > 1 else ""
        yield f"  made        {cost.ended} on {cost.host} by edpipe {cost.version}, {duration(cost.seconds)}{again}"
    if found.recorded is not None:
        yield from _list("code", [f"{unit} {version}" for unit, version in found.recorded.code.items()])
        yield from _list("libraries", [f"{name} {version}" for name, version in found.recorded.versions.items()])
    yield from _rows(
        "made from", [f"{path}{_doubt(verdict)}" for path, verdict in found.inputs] or ["params.yaml alone"]
    )
    yield from _rows("read by", list(_reader_lines(found.readers)) or ["nothing: it is a last result"])


def _list(heading: str, parts: Sequence[str]) -> list[str]:
    return [f"  {heading:<11} {', '.join(parts)}"] if parts else []


def _rows(heading: str, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {'' if number else heading:<11} {line}"


def _doubt(verdict: Verdict | None) -> str:
    return f" ({STATES[verdict]})" if verdict not in (None, Verdict.CACHED) else ""


def _reader_lines(readers: Sequence[Job]) -> Iterator[str]:
    """Each job where a step has few; else how many."""
    counts = Counter(job.step for job in readers)
    for step, count in counts.items():
        if count <= NAMED:
            yield from (title(job) for job in readers if job.step == step)
        else:
            yield f"{count} × {step}"


def as_json(found: Explanation) -> dict[str, Any]:
    """The same for programs, with what was recorded of knobs and inputs."""
    recorded, cost = found.recorded, found.cost
    return {
        "format": "edpipe-explanation",
        "format_version": 1,
        "artifact": str(found.job.outputs[0]),
        "outputs": [str(path) for path in found.job.outputs],
        "command": found.job.command,
        "verdict": str(found.outcome.verdict),
        "reasons": list(found.outcome.reasons),
        "notes": list(found.outcome.notes),
        "recorded": None
        if recorded is None
        else {
            "knobs": recorded.knobs,
            "code": recorded.code,
            "versions": recorded.versions,
            "inputs": {role: list(digests) for role, digests in recorded.inputs.items()},
        },
        "inputs": [{"path": str(path), "verdict": verdict and str(verdict)} for path, verdict in found.inputs],
        "readers": [job.command for job in found.readers],
        "cost": None if cost is None else cost.model_dump(mode="json"),
    }
