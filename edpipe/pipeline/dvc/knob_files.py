"""workflow/knobs/: for DVC, of what each tracked job is made besides its inputs; a small file for each experiment and
each teacher.

For every stage DVC reads the whole of each file that its `params:` name, and walks through all of it. In params.yaml
that grows with the square of the number of experiments. These files stay small, and hold what decides: the digest of
the job's resolved knobs, and the versions of its code.

DVC's own stage check_params writes them before all others, so that an edit of params.yaml, also one by
`dvc exp run -S`, reaches every stage within the same `dvc repro`. Any `snakemake` run and `edpipe tracked_jobs` write
them too.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edpipe.pipeline.jobs import paths
from edpipe.pipeline.state.running import knobs_digest
from edpipe.storage.atomic import remove_file, write_text_atomically
from edpipe.storage.code.versions import tokens
from edpipe.storage.job import Job


def place_of(job: Job) -> tuple[Path, str]:
    """The file that a job is in, and under which name; jobs of several seeds share an entry.

    >>> path, name = place_of(Job("run_stage", {"experiment": "ed", "seed": 0, "stage": "middle"}, {}, {}, ()))
    >>> str(path), name
    ('workflow/knobs/experiments/ed.json', 'run_stage-middle')
    """
    words = {name: str(value) for name, value in job.arguments.items() if name != "seed"}
    if "experiment" in words:
        path = paths.KNOBS / "experiments" / f"{words.pop('experiment')}.json"
    elif "teacher" in words:
        path = paths.KNOBS / "teachers" / words.pop("dataset") / f"{words.pop('teacher')}.json"
    else:
        path = paths.KNOBS / "datasets" / f"{words.pop('dataset')}.json"
    return path, "-".join([job.step, *words.values()])


def entry_of(job: Job) -> dict[str, Any]:
    """What the file says of a job."""
    entry: dict[str, Any] = {"code": tokens(job.units), "knobs": knobs_digest(job)}
    if job.step == "report":  # DVC does not see that a dependency is gone, or that the order is another.
        entry["beside"] = [path.stem for path in job.inputs["beside"]]
    return entry


def texts_of(jobs: Iterable[Job]) -> dict[Path, str]:
    """What every file must hold, by path."""
    files: dict[Path, dict[str, Any]] = {}
    for job in jobs:
        path, name = place_of(job)
        entries = files.setdefault(path, {})
        if name not in entries:
            entries[name] = entry_of(job)
    return {path: json.dumps(entries, indent=1, sort_keys=True) + "\n" for path, entries in files.items()}


def write_knob_files(jobs: Iterable[Job]) -> bool:
    """Writes the files that differ, and removes those of entries that are gone; says whether there were any."""
    wanted = texts_of(jobs)
    changed = [path for path, text in wanted.items() if not _is_as(path, text)]
    for path in changed:
        write_text_atomically(path, wanted[path])
    gone = _others(wanted)
    for path in gone:
        remove_file(path)
    return bool(changed or gone)


def are_as_wanted(jobs: Iterable[Job]) -> bool:
    """Whether the files on disk fit these jobs, and there are no others."""
    wanted = texts_of(jobs)
    return all(_is_as(path, text) for path, text in wanted.items()) and not _others(wanted)


def is_entry_as_wanted(job: Job) -> bool:
    """Whether the file on disk says of one job what it must."""
    path, name = place_of(job)
    try:
        return json.loads(path.read_text(encoding="utf-8"))[name] == entry_of(job)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _others(wanted: Iterable[Path]) -> list[Path]:
    return sorted(set(paths.KNOBS.rglob("*.json")) - set(wanted))


def _is_as(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False
