"""`edpipe plan [EXPERIMENT …]`: what `snakemake` would make and why, what it takes, and what comes from the cache."""

from argparse import REMAINDER, ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from edpipe.errors import UsageError, nearest
from edpipe.params.load import load_params
from edpipe.params.schema import Params
from edpipe.pipeline.estimates import summary
from edpipe.pipeline.estimates.network_speed import NetworkSpeeds
from edpipe.pipeline.estimates.summary import estimated, seconds_taken
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.graph import experiments_named, jobs_named, searches_named
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.recorded import Records, present_origin, recorded_state
from edpipe.pipeline.state.staleness import Outcome, Verdict, assess, outcomes, title, version_lines
from edpipe.results.measures.cost import duration
from edpipe.storage.job import Job


def _soft_labels(words: Sequence[str]) -> None:
    from edpipe.cli.commands.soft_label_plan import plan

    plan(words)


FORMS: dict[str, Callable[[Sequence[str]], None]] = {"soft-labels": _soft_labels}
"""Other meanings of the first word, with what follows it; no experiment can have a name with a hyphen."""
NO_ESTIMATE = "--no-estimate"
LISTED = 3
"""So many absent jobs of one step are named one by one; more are counted."""


def add_plan(command: ArgumentParser) -> None:
    """The command's words."""
    # The words are told apart here, not by subparsers: those would take every experiment for an unknown subcommand.
    command.add_argument(
        "words",
        nargs=REMAINDER,
        metavar="EXPERIMENT",
        help="names in params.yaml, or study_<study>: all of a study's, or search_<search>; none: those that "
        "params.yaml lists as tracked, else all; or: soft-labels EXPERIMENT",
    )
    command.add_argument(
        NO_ESTIMATE,
        action="store_false",
        dest="is_estimated",
        help="leave out what jobs that never ran would take; it tries each network for a second the first time",
    )
    command.set_defaults(run=run)


def run(words: Sequence[str], is_estimated: bool = True) -> None:
    """Does what the words say."""
    if words and words[0] in FORMS:
        FORMS[words[0]](words[1:])
    else:
        plan([word for word in words if word != NO_ESTIMATE], is_estimated and NO_ESTIMATE not in words)


def plan(experiments: Sequence[str], is_estimated: bool = True) -> None:
    """Prints what would be made for the pages of these experiments and studies, and for searches; what that takes.

    Reads records, and tries each network that would run for the first time for a second.

    Raises:
        ParamsError: params.yaml is wrong, or an experiment is not there.
        UsageError: an unknown option.
    """
    options = [word for word in experiments if word.startswith("-")]
    if options:
        raise UsageError(f"plan: unknown option '{options[0]}'{nearest(options[0], (NO_ESTIMATE, '--help'))}")
    params = load_params()
    found = planned(params, list(experiments or params.tracked or params.experiments))
    for line in lines_of(found):
        print(line)
    if is_estimated:
        _print_estimate(params, [outcome.job for outcome in found if outcome.is_run])


def _print_estimate(params: Params, running: Sequence[Job]) -> None:
    """Nothing where all that would run ran here before: its time stands in the line above."""
    if all(seconds_taken(job) is not None for job in running):
        return
    speeds = NetworkSpeeds()
    found = estimated(params, running, speeds)
    for line in summary.lines_of(found, running, speeds):
        print(line)


def planned(params: Params, words: Sequence[str]) -> list[Outcome]:
    """What would become of every job of these experiments, studies and searches, inputs before what reads them.

    Raises:
        ParamsError: no such experiment.
    """
    jobs, searches = jobs_named(params, words), searches_named(params, words)
    records, checked = Records(), CheckedArtifacts()
    found = [checked.completed(recorded_state(job, records), job.outputs[0]) for job in jobs]
    judgements = [assess(job, one, present_origin(job, records)) for job, one in zip(jobs, found, strict=True)]
    others = [word for word in words if not searches_named(params, [word])]
    targets = frozenset(
        [
            *(paths.report_path(name) for name in experiments_named(params, others)),
            *(paths.search_path(name) for name in searches),
        ]
    )
    return outcomes(jobs, judgements, [one.missing for one in found], targets)


def lines_of(found: Sequence[Outcome]) -> list[str]:
    """What a person reads: jobs that run by themselves, those that wait, the rest, counts of each step, the sum."""
    running = [outcome for outcome in found if outcome.is_run]
    return [
        *_changed_lines(running),
        *_absent_lines(running),
        *_waiting_lines(running),
        *_step_lines(found),
        *version_lines([o for o in found if not o.is_run]),
        _sum_line(found),
    ]


def _changed_lines(running: Iterable[Outcome]) -> list[str]:
    kinds = (Verdict.STALE, Verdict.DAMAGED)
    return [f"would run  {title(o.job)}: {'; '.join(o.reasons)}" for o in running if o.verdict in kinds]


def _absent_lines(running: Iterable[Outcome]) -> list[str]:
    steps: dict[str, list[Job]] = {}
    for outcome in running:
        if outcome.verdict is Verdict.ABSENT:
            steps.setdefault(outcome.job.step, []).append(outcome.job)
    lines: list[str] = []
    for step, jobs in steps.items():
        if len(jobs) <= LISTED:
            lines += [f"would run  {title(job)}: absent" for job in jobs]
        else:
            lines.append(f"would run  {len(jobs)} × {step}: absent, the first is {jobs[0].outputs[0]}")
    return lines


def _waiting_lines(running: Iterable[Outcome]) -> list[str]:
    groups: dict[str, Counter[str]] = {}
    for outcome in running:
        if outcome.verdict is Verdict.WAITS:
            groups.setdefault(outcome.reasons[0], Counter())[outcome.job.step] += 1
    return [
        f"would run  {', '.join(f'{count} × {step}' for step, count in steps.items())}: {cause}"
        for cause, steps in groups.items()
    ]


def _step_lines(found: Iterable[Outcome]) -> list[str]:
    """For each step, how many of its jobs would run."""
    all_of, running = Counter(o.job.step for o in found), Counter(o.job.step for o in found if o.is_run)
    width = max(map(len, all_of), default=0)
    return [f"{step:<{width}}  {running[step]:>5} of {count:>5} would run" for step, count in all_of.items()]


def _sum_line(found: Sequence[Outcome]) -> str:
    running = [outcome.job for outcome in found if outcome.is_run]
    resting = Counter(outcome.verdict for outcome in found if not outcome.is_run)
    line = f"{len(running)} of {len(found)} jobs would run, {resting[Verdict.CACHED]} come from the cache"
    if resting[Verdict.ABSENT]:
        line += f"; absent and not needed: {resting[Verdict.ABSENT]}"
    return line + _expected(running)


def _expected(running: Sequence[Job]) -> str:
    known = [seconds for job in running if (seconds := seconds_taken(job)) is not None]
    if not known:
        return ""
    share = "" if len(known) == len(running) else f" for the {len(known)} that ran before"
    return f"; about {duration(sum(known))}{share}, one after the other"
