"""Which jobs run again after an edit of the code: by file text, as it was, and by meaning, as it is.

    python benchmarks/code_edits.py experiments…  > edits.md

Edits a copy of the package, one edit at a time, and counts the jobs of these experiments (by default digits_ed) that
would run again by themselves. By file text a job hangs on every file that its step's module imports.
"""

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from code_history import text_digest

from edpipe.params.load import load_params
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.units import unit_digest
from edpipe.storage.code.versions import HERE
from edpipe.storage.job import Job

Edit = tuple[str, str, str, str]
EDITS: tuple[Edit, ...] = (
    ("a comment in a reader that is not used", "datasets/readers/food101.py", "def ", "# A comment.\ndef "),
    ("a comment in errors.py", "errors.py", "class ", "# A comment.\nclass "),
    ("a docstring of the training loop", "training/loop.py", '"""', '"""Edited. '),
    ("an annotation in the store's reader", "soft_labels/file/reader.py", ") -> SoftLabels:", "):"),
    ("the text of an error in atomic.py", "storage/atomic.py", "cannot be written:", "was not written:"),
    ("the text of every remedy in errors.py", "errors.py", "make it again", "make it anew"),
    ("a reader that is not used: its code", "datasets/readers/svhn.py", "    return ", "    pass\n    return "),
    ("a loss that is not used: its arithmetic", "losses/logits.py", "alpha * target + beta", "target * alpha + beta"),
    ("the kd loss: its arithmetic", "losses/kd.py", "temperature**2", "temperature**3"),
    ("a network that is not used", "models/zoo/wrn.py", "    def forward", "    extra = 1\n\n    def forward"),
    ("the networks of digits", "models/zoo/resnet.py", "    def forward", "    extra = 1\n\n    def forward"),
    (
        "how a view is cropped",
        "views/pixels.py",
        "def apply_pad_crop",
        "SIDE = 1\n\n\n@(lambda f: f)\ndef apply_pad_crop",
    ),
    ("the reader of digits", "datasets/readers/digits.py", "    return ", "    pass\n    return "),
)
"""What it is, the file, the text, and what it becomes where it stands first."""


def edited(edit: Edit, folder: Path) -> SourceTree:
    """A copy of the package with one edit.

    Raises:
        ValueError: the text does not stand there.
    """
    _, name, old, new = edit
    root = folder / PACKAGE
    shutil.copytree(HERE.root, root, ignore=shutil.ignore_patterns("__pycache__"))
    text = (root / name).read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{name}: has no {old!r}")
    (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    return SourceTree(root)


def by_text(tree: SourceTree, jobs: Sequence[Job]) -> list[Job]:
    """Jobs whose step imports an edited file."""
    steps = {job.step for job in jobs}
    changed = {step for step in steps if text_digest(tree, step) != text_digest(HERE, step)}
    return [job for job in jobs if job.step in changed]


def by_meaning(tree: SourceTree, jobs: Sequence[Job]) -> list[Job]:
    """Jobs that hang on a unit that means something else."""
    units = {unit for job in jobs for unit in job.units}
    changed = {unit for unit in units if unit_digest(tree, unit) != unit_digest(HERE, unit)}
    return [job for job in jobs if changed & set(job.units)]


def shown(jobs: Sequence[Job]) -> str:
    """How many there are, by step."""
    counts = Counter(job.step for job in jobs)
    return f"{len(jobs)}: " + ", ".join(f"{count} {step}" for step, count in counts.items()) if jobs else "0"


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=["digits_ed"])
    params = load_params()
    jobs = jobs_of(params, parser.parse_args().experiments)
    ways: tuple[Callable[[SourceTree, Sequence[Job]], list[Job]], ...] = (by_text, by_meaning)
    print(f"| edit | before (file text), of {len(jobs)} jobs | now (meaning) |\n|---|---|---|")
    for edit in EDITS:
        with tempfile.TemporaryDirectory() as folder:
            tree = edited(edit, Path(folder))
            print(f"| {edit[0]} | " + " | ".join(shown(way(tree, jobs)) for way in ways) + " |")


if __name__ == "__main__":
    main()
