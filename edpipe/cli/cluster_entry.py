"""What profiles for clusters call: `edpipe-cluster submit`, `edpipe-cluster status`.

Snakemake asks after each job by itself, so that these import little.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edpipe.errors import EXIT_MENDABLE, EdpipeError

USAGE = (
    "edpipe-cluster: Snakemake calls this, as a profile says: `edpipe-cluster submit SETTINGS JOBSCRIPT` and "
    "`edpipe-cluster status NAME`; `edpipe cluster` shows the jobs"
)


def main() -> int:
    """`edpipe-cluster`: submits a job or tells its status; returns the exit code."""
    try:
        return _run(sys.argv[1:])
    except (EdpipeError, OSError) as error:
        for line in str(error).splitlines():
            print(f"edpipe: {line}", file=sys.stderr)
        return EXIT_MENDABLE


def _run(words: Sequence[str]) -> int:
    match words:
        case ["submit", settings, jobscript]:
            from edpipe.pipeline.cluster.submission import submit

            print(submit(Path(settings), Path(jobscript)))
        case ["status", name]:
            print(_status(name))
        case _:
            raise EdpipeError(USAGE)
    return 0


def _status(name: str) -> str:
    """What fails here is asked again: Snakemake would end the whole run, and leave its jobs alone."""
    from edpipe.pipeline.cluster.status import RUNNING, status

    try:
        return status(name)
    except (EdpipeError, OSError, subprocess.SubprocessError) as error:
        print(f"edpipe: {name}: its status is not known for now: {error}", file=sys.stderr)
        return RUNNING


if __name__ == "__main__":
    sys.exit(main())
