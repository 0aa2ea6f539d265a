"""Before Snakemake builds its graph: what the artifacts' own records say is made known to it.

Snakemake goes by modification times and its metadata, DVC by digests in dvc.lock. Neither is asked whether an artifact
may be used: `snakemake --touch`, `--cleanup-metadata`, `dvc commit -f`, a copied file or a clock that was set back move
both. The record beside the artifact decides, and Snakemake is made to see what follows. A missing output is not stale.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from edpipe.errors import BusyError
from edpipe.params.schema import Params
from edpipe.pipeline.dvc import snakemake_metadata as metadata
from edpipe.pipeline.dvc.code_file import write_code
from edpipe.pipeline.dvc.lists import write_tracked_jobs
from edpipe.pipeline.dvc.record import withdraw
from edpipe.pipeline.dvc.repo import BUSY, is_busy, refuse_braces, refuse_merge_conflict
from edpipe.pipeline.state.checked_artifacts import CheckedArtifacts
from edpipe.pipeline.state.judgement import Judgement, all_jobs, judged
from edpipe.pipeline.state.running import other_runs


def reconcile(params: Params, is_dry_run: bool, has_dvc: bool) -> None:
    """Before the graph is built: artifacts that may be used are made to look current to Snakemake, and others stale.

    Where DVC is set up, a real run first brings the lists of tracked jobs in step with params.yaml and the versions of
    the code with the package, and at last takes out of dvc.lock what it vouches for wrongly.

    Raises:
        BusyError: DVC is at work here; a dry run then goes on with what Snakemake knows by itself.
        CorruptFileError: dvc.yaml or dvc.lock cannot be read.
        MismatchError: DVC cannot work in this folder.
        OverwriteError: a file belongs to somebody else.
    """
    if has_dvc and is_busy():
        if is_dry_run:
            return
        raise BusyError(BUSY)
    if has_dvc and not is_dry_run:
        refuse_braces()
        refuse_merge_conflict()
        write_tracked_jobs(params)
        write_code()
    judgements = make_known_to_snakemake(params)
    if has_dvc and not is_dry_run:
        withdraw(params, judgements)


def make_known_to_snakemake(params: Params) -> list[Judgement]:
    """Judges every artifact that lies here and makes Snakemake see the same; gives the judgements."""
    checked = CheckedArtifacts()
    judgements = judged(all_jobs(params), checked)
    in_the_making = {path for run in other_runs() for path in run.outputs}
    settled = [one for one in judgements if in_the_making.isdisjoint(map(str, one.job.outputs))]
    for one in settled:
        _mark(one)
    _Times(settled, checked).settle()
    checked.save()
    return judgements


def _mark(judgement: Judgement) -> None:
    for output in filter(os.path.lexists, map(str, judgement.job.outputs)):
        if judgement.fits:
            metadata.forget(output, metadata.UNFINISHED)
            metadata.forget_origin(output)
        elif judgement.is_unfit:
            metadata.record_unknown_params(output, judgement.job.step)
            metadata.stand_alone(output)
            metadata.set_output_time(output, metadata.LONG_AGO_NS)


class _Times:
    """Modification times of what fits, which must not decrease along the graph, nor lie in the future.

    After a checkout or a copy they are in any order. A file dated in the future would let the step that reads it
    compute to its end, before Snakemake finds the outputs older than their input and removes them.
    """

    def __init__(self, judgements: Sequence[Judgement], checked: CheckedArtifacts) -> None:
        self._judgements, self._checked = judgements, checked
        self._now_ns = time.time_ns()

    def settle(self) -> None:
        """Sets what must be another; again, where equal files are one file in DVC's cache and share their time."""
        for _ in self._judgements:
            if not self._raise_to_inputs():
                break

    def _raise_to_inputs(self) -> bool:
        newest_ns: dict[Path, int] = {}
        is_changed = False
        for judgement in self._judgements:
            # Snakemake also compares with files further up, where those between are missing.
            newest = max((newest_ns.get(path, 0) for path in judgement.job.all_inputs), default=0)
            present = [path for path in judgement.job.outputs if os.path.lexists(path)]
            for path in present if judgement.fits else ():
                is_changed |= self._is_moved(judgement.job.outputs[0], path, newest)
            newest = max([newest, *(metadata.input_time_ns(str(path)) for path in present)])
            newest_ns |= dict.fromkeys(judgement.job.outputs, newest)
        return is_changed

    def _is_moved(self, artifact: Path, path: Path, newest_ns: int) -> bool:
        """Sets the time of an output that is older than its inputs, or dated in the future; whether that was needed."""
        made_ns = metadata.output_time_ns(str(path))
        wanted_ns = min(max(made_ns, newest_ns), max(self._now_ns, newest_ns))
        if metadata.input_time_ns(str(path)) > max(self._now_ns, made_ns):  # what a link points to
            metadata.set_target_time(str(path), self._now_ns)
        elif made_ns == wanted_ns:
            return False
        metadata.set_output_time(str(path), wanted_ns)
        self._checked.note_time_set(artifact, path)
        return True
