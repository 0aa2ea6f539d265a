"""What makes a job run again: other knobs, other code of its step, or other inputs. Nothing else does.

The rules (edpipe/pipeline/snakemake/rules) hand these texts to Snakemake as `params:`, which compares them with those
of the last run. DVC compares the digest of the knobs and the versions in workflow/knobs. Both tools compare the inputs
themselves.
`pipeline.state.staleness` only foretells the answer, for `edpipe plan` and `edpipe verify`.
"""

from edpipe.params.base import canonical_json
from edpipe.storage.code.versions import tokens
from edpipe.storage.job import Job


def knobs_trigger(job: Job) -> str:
    """The job's own knobs as canonical JSON: a change of any other knob leaves the job alone."""
    return job.knobs_text


def code_trigger(job: Job) -> str:
    """Versions of the code that the job hangs on, as they were when this process first asked.

    Code that was edited and not confirmed has the digest of its meaning behind the version.
    """
    return canonical_json(tokens(job.units))
