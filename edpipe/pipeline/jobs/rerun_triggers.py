"""What makes a job run again: other knobs, other code of its step, or other inputs. Nothing else does.

The rules hand these texts to Snakemake (`params:` in workflow/rules), which compares them with those of the last run.
DVC compares the knobs in params.yaml and the digests in workflow/code.yaml. Both tools compare the inputs themselves.
`pipeline.state.staleness` only foretells the answer, for `edpipe plan` and `edpipe verify`.
"""

from functools import cache

from edpipe.storage.job import Job
from edpipe.storage.records import code_digest


def knobs_trigger(job: Job) -> str:
    """The job's own knobs as canonical JSON: a change of any other knob leaves the job alone."""
    return job.knobs_text


@cache
def code_trigger(step: str) -> str:
    """Digest of the step's source files when it was first asked for: all jobs of this run have the same."""
    return code_digest(step)
