"""Measures the students of a search's trials on the validation split: results/search_<search>.json, and a table.

The test split is not read.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from edpipe.datasets.dataset_file import Dataset, open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.params.searches.knobs import SearchJobKnobs
from edpipe.results.comparison.search_table import search_cost, search_facts, search_table
from edpipe.results.measures.cost import CostPart
from edpipe.results.measures.evaluation_inputs import check_chain, load_student
from edpipe.results.measures.validation import measure_on_validation
from edpipe.runtime.progress import announce
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_json
from edpipe.storage.job import Job
from edpipe.storage.records import make_record, write_record


def run(job: Job[SearchJobKnobs], costs: Mapping[Path, CostPart]) -> None:
    """Runs a job of this step; `costs` are of every stage of every student, by its weights."""
    paths = [path for path in job.inputs["students"] if path.suffix != ".json"]
    search = Search(str(job.arguments["search"]), job.knobs, job.input("dataset"), job.inputs["partitions"])
    search.write(paths, costs, *job.outputs)


class Search:
    """A search whose students are there."""

    def __init__(self, name: str, knobs: SearchJobKnobs, dataset: Path, partitions: tuple[Path, ...]) -> None:
        self._name, self._knobs = name, knobs
        self._dataset: Dataset = open_dataset(dataset)
        self._partitions = [read_partition(path, self._dataset) for path in partitions]

    def write(self, students: list[Path], costs: Mapping[Path, CostPart], out_path: Path, table_path: Path) -> None:
        """Writes all numbers of the search and the table, both in the order of mean top1 on the validation split.

        Two equal searches may differ in the costs and in the seal over them, and in nothing else.

        Raises:
            CorruptFileError: a file is damaged.
            DataError: the data set has no validation images.
            MismatchError: a student of another dataset, partition or seed, or one that grew from another.
        """
        chains = self._chains(students)
        digests: list[str] = []
        rows = {
            trial: [self._measure(trial, seed, chain, digests) for seed, chain in chains[trial]] for trial in chains
        }
        inputs: dict[str, object] = {"dataset": self._dataset.digest, "students": digests}
        inputs["partitions"] = [partition.digest for partition in self._partitions]
        facts = search_facts(self._name, self._knobs, rows)
        contents = make_record("search", self._knobs, inputs, **facts)
        parts = {trial: [costs[path] for _, chain in chains[trial] for path in chain] for trial in chains}
        contents |= {"digest": digest_json(contents), "cost": search_cost(parts)}
        write_text_atomically(table_path, search_table(contents))
        write_record(out_path, contents)

    def _chains(self, students: list[Path]) -> dict[str, list[tuple[int, tuple[Path, ...]]]]:
        """By trial: each seed with its student after every stage."""
        paths: Iterator[Path] = iter(students)
        return {
            trial.name: [(seed, tuple(islice(paths, trial.num_stages))) for seed in self._knobs.search.seeds]
            for trial in self._knobs.trials
        }

    def _measure(self, name: str, seed: int, chain: tuple[Path, ...], digests: list[str]) -> dict[str, object]:
        partition = self._partitions[next(trial.partition for trial in self._knobs.trials if trial.name == name)]
        stages = [load_student(path, self._dataset, partition) for path in chain]
        check_chain(chain, stages, seed)
        digests += [stage.record["weights_digest"] for stage in stages]
        row = measure_on_validation(seed, stages, self._dataset)
        announce(f"{name} seed {seed}: top1 {row['val_top1']:.4f} on the validation split")
        return row
