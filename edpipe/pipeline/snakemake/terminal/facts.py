"""What the graph of jobs says of a run, for the view that Snakemake's log is shown in."""

from typing import Any

from edpipe.errors import EdpipeError
from edpipe.params.load import load_params
from edpipe.pipeline.estimates.expected import Expected
from edpipe.pipeline.snakemake.terminal.handler import LogHandler
from edpipe.pipeline.snakemake.terminal.run import COLLECTING_RULE, RunFacts
from edpipe.pipeline.state.judgement import all_jobs


def tell_view(workflow: Any) -> None:
    """Tells our view how many jobs come from the cache, which are to run, and how long they will take."""
    manager = getattr(workflow, "logger_manager", None)
    handlers = manager.get_log_handlers() if manager is not None else []
    for handler in handlers:
        if isinstance(handler, LogHandler):
            handler.learn(lambda: facts_of(workflow.dag))


def facts_of(dag: Any) -> RunFacts:
    """What Snakemake's graph says."""
    jobs = [job for job in dag.jobs if job.rule.name != COLLECTING_RULE]
    waiting = [job for job in jobs if dag.needrun(job)]
    outputs = tuple((job.rule.name, str(next(iter(job.output), ""))) for job in waiting)
    return RunFacts(len(jobs) - len(waiting), outputs, lambda: _expected({output for _, output in outputs}))


def _expected(outputs: set[str]) -> dict[str, Expected]:
    from edpipe.pipeline.estimates.untried import expected  # it is slow to import, and its caller need not wait

    try:
        params = load_params()
    except EdpipeError:  # it was edited meanwhile, which the next step will say
        return {}
    jobs = [job for job in all_jobs(params) if str(job.outputs[0]) in outputs]
    return {str(path): found for path, found in expected(params, jobs).items()}
