"""`edpipe verify soft-labels FILE`: the teacher is asked again about rows of a file."""

import os
from collections.abc import Sequence
from pathlib import Path

from edpipe.cli.arguments import CommandParser, whole_from
from edpipe.errors import ParamsError
from edpipe.params.load import load_params
from edpipe.pipeline.jobs import paths, teachers


def verify(words: Sequence[str]) -> None:
    """Asks the teacher again about rows drawn from one file, and prints how far they are apart.

    Raises:
        ParamsError: not the path of a file of soft labels of this project.
        CorruptFileError, MismatchError, VerificationError: the file is not what it must be.
    """
    text = (verify.__doc__ or "").partition("\n")[0]
    parser = CommandParser(prog="edpipe verify soft-labels", description=text)
    parser.add_argument("file", type=Path, help="artifacts/soft_labels/…/views_A-B.h5")
    parser.add_argument("--rows", type=whole_from(1), default=1000, help="drawn from the file (default 1000)")
    parser.add_argument("--seed", type=whole_from(0), default=0, help="of the draw (default 0)")
    options = parser.parse_args(list(words))
    params = load_params()
    job = teachers.verify_soft_labels(params, *_names(options.file))
    from edpipe.soft_labels.teacher_outputs import TeacherFiles
    from edpipe.soft_labels.verification import verify_file

    files = TeacherFiles.of_job(job.arguments, job.inputs)
    print(f"{options.file}: {verify_file(files, options.file, options.rows, options.seed).say()}")


def _names(path: Path) -> tuple[str, str, str]:
    """Dataset, teacher and subset of a file's path."""
    try:
        # Links are not followed: a file may be one to an object of DVC's cache.
        parts = Path(os.path.abspath(path)).relative_to(Path.cwd()).parts
    except ValueError:
        parts = ()
    if len(parts) != 6 or path.suffix != ".h5" or Path(*parts[:2]) != paths.ARTIFACTS / "soft_labels":
        raise ParamsError(
            f"{path}: not a file of soft labels of this project; name one such as "
            f"{paths.soft_labels_path('DATASET', 'TEACHER', 'SUBSET', '0-7')}"
        )
    return parts[2], parts[3], parts[4]
