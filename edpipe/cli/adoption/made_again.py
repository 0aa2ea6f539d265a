"""Evidence for partitions and soft-label indexes: they are made again wholly, in the mirror, and compared."""

from importlib import import_module
from typing import Any

from edpipe.cli.adoption.claim import Claim, Evidence
from edpipe.cli.adoption.records import read_old_record


def show_partition(claim: Claim) -> Evidence:
    """The partition is made again and has the same classes in the same subsets.

    Raises:
        UnshownError: it has not.
        EdpipeError: it cannot be made again.
    """
    record = _compared(claim)
    classes = sum(len(subset["class_ids"]) for subset in record["subsets"])
    return Evidence(
        f"made again, all {classes} classes are in the same subsets",
        {"evidence": "made again wholly", "compared_classes": classes},
        record,
    )


def show_index(claim: Claim) -> Evidence:
    """All files of the soft labels are verified again, and the index says the same of them.

    Raises:
        UnshownError: it does not.
        VerificationError: a sampled row is not what the teacher says.
    """
    record = _compared(claim)
    return Evidence(
        f"verified again: {record['verified_rows']:,} rows of {len(record['files'])} files are the teacher's",
        {"evidence": "verified again", "compared_rows": record["verified_rows"], "files": len(record["files"])},
        record,
    )


def _compared(claim: Claim) -> dict[str, Any]:
    # In the mirror: what is overwritten is a link.
    import_module(f"edpipe.steps.{claim.job.step}").run(claim.job)
    return claim.compare(read_old_record(claim.path))
