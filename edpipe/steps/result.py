"""Gathers the seeds of one experiment into results/<experiment>.json, its accuracy matrix and its main numbers."""

from collections.abc import Sequence
from pathlib import Path

from edpipe.params.experiment import ResultKnobs
from edpipe.results.gathering import gathered
from edpipe.results.measures.cost import CostPart, sum_costs
from edpipe.results.measures.seeds import curve_csv, metrics_json
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, write_record


def run(job: Job[ResultKnobs], costs: Sequence[CostPart]) -> None:
    """Runs a job of this step; `costs` are of everything that the experiment needed."""
    experiment, method = str(job.arguments["experiment"]), job.knobs.method
    result(experiment, method, job.inputs["evaluations"], costs, *job.outputs)


def result(
    experiment: str,
    method: str,
    evaluation_paths: tuple[Path, ...],
    costs: Sequence[CostPart],
    out_path: Path,
    curve_path: Path,
    metrics_path: Path,
) -> None:
    """Writes the result, the table of its accuracy matrix, and the few numbers that DVC shows.

    `costs` are of everything that the experiment needed; two equal runs may differ in them and in the seal
    over them, and in nothing else.

    Raises:
        CorruptFileError: an evaluation is damaged.
        MismatchError: seeds that were measured on different data, or taught differently, or by different teachers.
    """
    inputs, facts = gathered(experiment, method, evaluation_paths)
    contents = make_record("result", {}, inputs, **facts)
    write_text_atomically(curve_path, curve_csv(contents))
    write_text_atomically(metrics_path, metrics_json(contents))
    write_record(out_path, contents | {"digest": digest_json(contents), "cost": sum_costs(costs)})
