"""The job of a search. The students of its trials are made by the jobs of `pipeline.jobs.students`, as all others."""

from edpipe.params.plans.curriculum import curriculum
from edpipe.params.schema import Params, entry
from edpipe.params.searches.knobs import SearchJobKnobs, SearchKnobs, TrialKnobs
from edpipe.params.searches.trials import Trial
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.choices import network_choice
from edpipe.pipeline.jobs.paths import with_record
from edpipe.storage.job import Job


def search(params: Params, search: str) -> Job[SearchJobKnobs]:
    """Measures the students of all trials on the validation split, and puts the trials in order."""
    knobs: SearchKnobs = entry(params, "searches", search)
    trials, dataset = params.trials[search], params.experiments[knobs.experiment].dataset
    partitions = tuple(dict.fromkeys(trial.experiment.partition for trial in trials))
    stages = {trial.name: _stages(params, trial) for trial in trials}
    return Job(
        step="search",
        arguments={"search": search},
        knobs=SearchJobKnobs(
            knobs,
            tuple(
                TrialKnobs(t.name, t.values, len(stages[t.name]), partitions.index(t.experiment.partition))
                for t in trials
            ),
        ),
        inputs={
            "dataset": (paths.dataset_path(dataset),),
            "partitions": tuple(paths.partition_path(dataset, partition) for partition in partitions),
            "students": tuple(
                path
                for trial in trials
                for seed in knobs.seeds
                for stage in stages[trial.name]
                for path in with_record(paths.student_path(trial.name, seed, *stage))
            ),
        },
        outputs=(paths.search_path(search), paths.search_table_path(search)),
        keys=(f"searches.{search}",),
        choices=_network_choices(params, trials),
    )


def _stages(params: Params, trial: Trial) -> list[tuple[int, str]]:
    """Number and name of each."""
    return [(plan.number, plan.name) for plan in curriculum(params.with_trials, trial.name)]


def _network_choices(params: Params, trials: tuple[Trial, ...]) -> dict[str, str]:
    """The units of all networks that are measured."""
    models = dict.fromkeys(params.students[trial.experiment.student].model for trial in trials)
    return {f"network {model}": network_choice("search", model)["network"] for model in models}
