# What all rules share: the checked params, and the inputs, knobs and code of a job.
from edpipe.pipeline.jobs import data, rerun_triggers, resources, searches, students, teachers
from edpipe.pipeline.snakemake import hooks
from edpipe.pipeline.snakemake.fork_server_launch import start_fork_server

hooks.put_command_on_path()
PARAMS = hooks.load(workflow, config)
check_before_first_job = hooks.check_before_first_job
share_resources = hooks.share_resources
tell_view = hooks.tell_view
pass_sigterm_on = hooks.pass_sigterm_on
hand_over_to_dvc = hooks.hand_over_to_dvc
draw_index = hooks.draw_index
explain_failures = hooks.explain_failures

NAME = r"[a-z][a-z0-9_]*"
TRAINED = [name for name, teacher in PARAMS.teachers.items() if teacher.network.source == "train"]
FETCHED = [name for name in PARAMS.teachers if name not in TRAINED]
CONFUSED = [name for name, partition in PARAMS.partitions.items() if partition.confusion is not None]
GIVEN = [name for name in PARAMS.partitions if name not in CONFUSED]


def one_of(names):
    """A pattern for exactly these names; for none of them, one that fits nothing."""
    return "|".join(names) or r"(?!)"


wildcard_constraints:
    dataset="|".join(PARAMS.datasets),
    partition="|".join(PARAMS.partitions),
    teacher="|".join(PARAMS.teachers),
    subset=NAME,
    views=r"\d+-\d+",
    experiment="|".join(PARAMS.experiments),
    study=one_of(PARAMS.studies),
    search=one_of(PARAMS.searches),
    seed=r"\d+",
    number=r"\d+",
    stage=NAME,


def job_of(make, wildcards):
    """The job that these wildcards name; `number` is in the path only, and must be that of the stage."""
    words = {name: int(value) if name in ("seed", "number") else value for name, value in wildcards.items()}
    return hooks.job_of(make, PARAMS, words)


def inputs_of(make):
    """Input function: artifacts by role."""

    def inputs(wildcards):
        return {role: [str(path) for path in paths] for role, paths in job_of(make, wildcards).inputs.items()}

    return inputs


def knobs_of(make):
    """Params function: the job's own knobs as one canonical text, so that only their change re-runs it."""
    return lambda wildcards: rerun_triggers.knobs_trigger(job_of(make, wildcards))


def knobs_digest_of(make):
    """Params function: digest of the knobs as they are now; the step refuses if params.yaml says others by then."""
    return lambda wildcards: hooks.knobs_digest(job_of(make, wildcards), is_main=workflow.is_main_process)


def code_of(make):
    """Params function: versions of the code that the job hangs on; an edit that was not confirmed has its digest."""
    return lambda wildcards: rerun_triggers.code_trigger(job_of(make, wildcards))


def threads_of(make):
    """Threads function: as many as the step would take by itself."""
    return lambda wildcards: resources.threads_of(PARAMS, job_of(make, wildcards))


# Several processes may train one network: each has a GPU, where there are any, and as many threads as one alone.
PROCESSES = hooks.processes_per_training()
# And several nodes of a cluster, each with as many; GPUs, threads and memory are asked for of each node.
NODES = hooks.nodes_per_training()


def gpus(wildcards):
    """Resources function: GPUs of a job that runs a network. The executor is not known before jobs are looked at."""
    return hooks.gpus_per_job(workflow)


def training_gpus(wildcards):
    """Resources function: the same for all processes that train together."""
    return PROCESSES * gpus(wildcards)


def training_threads_of(make):
    """Threads function: those of all processes that train together."""
    return lambda wildcards: PROCESSES * threads_of(make)(wildcards)
