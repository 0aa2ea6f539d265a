"""How often would users have had to make artifacts again over the project's own history?

    python benchmarks/code_history.py --last COMMIT --commits 100 [--no-runs] > history.json

For each pair of successive commits and each of four steps (dataset, teacher, soft labels, student) of a small run:
by file text, whether a source file that the step imports differs; by meaning, whether a definition that it reaches
does; by bytes, whether the artifact does when both commits run (what a confirmed version says). A step counts as made
again also where one before it is. Steps are compared by their whole modules, so that earlier layouts count alike.
"""

import argparse
import ast
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from edpipe.pipeline.confirmation.history import SAFELY
from edpipe.storage.code.closure import closure, digest_of_meaning
from edpipe.storage.code.modules import PACKAGE, SourceTree
from edpipe.storage.code.references import Place

Digests = dict[str, str] | None
STEPS = ("pack_dataset", "train_teacher", "dump_soft_labels", "run_stage")
COMMANDS = (
    "pack_dataset --dataset digits",
    "partition_dataset --dataset digits --partition halves",
    "train_teacher --dataset digits --teacher general --subset all",
    "dump_soft_labels --dataset digits --teacher general --subset all --views 0-1",
    "verify_soft_labels --dataset digits --teacher general --subset all",
    "run_stage --experiment kd --seed 0 --stage only",
)
ARTIFACTS = {
    "pack_dataset": "artifacts/datasets/digits.h5",
    "train_teacher": "artifacts/teachers/digits/general/all.safetensors",
    "dump_soft_labels": "artifacts/soft_labels/digits/general/all/views_0-1.h5",
    "run_stage": "artifacts/students/kd/seed0/1_only.safetensors",
}
PARAMS = """
datasets: {digits: {reader: digits, image_size: 8, channels: 1, max_per_class: 30}}
partitions: {halves: {subsets: [primary, middle], ratio: [1, 1]}}
recipes: {tiny: {batch_size: 32}}
teachers:
  general: {network: {model: resnet8}, fitting: {recipe: tiny, epochs: 2, learning_rate: 0.1}, min_top1: 0.0}
students: {resnet8: {model: resnet8}}
soft_labels:
  digits:
    space: {augment: {kind: pad_crop, padding: 1, flip: false}}
    views: {number: 2, per_file: 2}
    storage: {precision: uint8}
experiments:
  kd:
    dataset: digits
    partition: halves
    student: resnet8
    method: {name: kd, teacher: general}
    recipe: tiny
    seeds: [0]
    stages: {only: {images: 256}}
tracked: []
"""
RUN = """
import sys
try:
    from edpipe.cli.main import main
except ImportError:
    from edpipe.__main__ import main
for words in sys.argv[1:]:
    if code := main(words.split()):
        sys.exit(code)
"""


def git(*words: str) -> bytes:
    """What git says."""
    return subprocess.run(["git", *words], capture_output=True, check=True).stdout


def tree_of(commit: str, folder: Path) -> SourceTree:
    """The package at a commit."""
    with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", commit, "--", PACKAGE))) as files:
        files.extractall(folder / commit, **SAFELY)
    return SourceTree(folder / commit / PACKAGE)


def text_digest(tree: SourceTree, step: str) -> str:
    """Of the source files that the step's module imports, directly or not."""
    found: dict[str, str] = {}
    waiting = [f"{PACKAGE}.steps.{step}"]
    while waiting:
        module = waiting.pop()
        path = tree.file_of(module)
        if path is None or module in found:
            continue
        found[module] = hashlib.sha256(path.read_bytes()).hexdigest()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()


def meaning_digest(tree: SourceTree, step: str) -> str:
    """Of what the definitions of the step's module reach."""
    module = f"{PACKAGE}.steps.{step}"
    entries = [Place(module, name) for name in tree.module(module).definitions]
    return digest_of_meaning(tree, closure(tree, entries).meaning)


def bytes_of_run(tree: SourceTree, folder: Path) -> Digests:
    """Digest of each artifact after a run of the small project; None where this commit cannot run it."""
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDPIPE_", "DVC_"))}
    environment = kept | {"PYTHONPATH": str(tree.root.parent), "EDPIPE_DVC": "0", "EDPIPE_THREADS": "1"}
    command = [sys.executable, "-P", "-c", RUN, *COMMANDS]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return None
    return {step: hashlib.sha256((folder / path).read_bytes()).hexdigest() for step, path in ARTIFACTS.items()}


def digests_of(commit: str, folder: Path) -> dict[str, Digests]:
    """Digests of one commit by kind, each by step."""
    tree = tree_of(commit, folder)
    found: dict[str, Digests] = {}
    for kind, measure in (("text", text_digest), ("meaning", meaning_digest)):
        try:
            found[kind] = {step: measure(tree, step) for step in STEPS}
        except (KeyError, SyntaxError, ValueError) as error:
            print(f"{commit[:8]}: {kind}: {error!r}", file=sys.stderr)
            found[kind] = None
    return found


def add_bytes(found: dict[str, dict[str, Digests]], folder: Path) -> None:
    """Runs both commits of each pair whose meaning differs; where it does not, the bytes are those of before."""
    for before, now in itertools.pairwise(found):
        if found[before]["meaning"] == found[now]["meaning"] and found[now]["meaning"] is not None:
            found[now]["bytes"] = found[before].get("bytes")
            continue
        for commit in (before, now):
            if found[commit].get("bytes") is None:
                found[commit]["bytes"] = bytes_of_run(SourceTree(folder / commit / PACKAGE), folder / f"{commit}.run")
                print(f"ran {commit[:8]}", file=sys.stderr)


def is_changed(before: dict[str, Digests], now: dict[str, Digests], kind: str, step: str) -> bool | None:
    """Whether a step's digest differs; None where one side has none."""
    if kind == "bytes" and before["meaning"] == now["meaning"]:
        return False
    old, new = before.get(kind), now.get(kind)
    return None if old is None or new is None else old[step] != new[step]


def count(pairs: list[tuple[dict[str, Digests], dict[str, Digests]]], kind: str) -> dict[str, int]:
    """For each step, at how many commits it would have been made again; and how many could be compared."""
    totals = dict.fromkeys(STEPS, 0)
    compared = 0
    for before, now in pairs:
        changes = [is_changed(before, now, kind, step) for step in STEPS]
        if None in changes:
            continue
        compared += 1
        for number, step in enumerate(STEPS):
            totals[step] += any(changes[: number + 1])
    return {"compared": compared, **totals}


def main() -> None:
    """Reads the command line and prints JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--last", default="HEAD")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--no-runs", action="store_true")
    options = parser.parse_args()
    commits = git("log", "--first-parent", "--format=%H", f"-n{options.commits + 1}", options.last).decode().split()
    with tempfile.TemporaryDirectory() as folder:
        found = {commit: digests_of(commit, Path(folder)) for commit in reversed(commits)}
        if not options.no_runs:
            add_bytes(found, Path(folder))
    pairs = list(itertools.pairwise(found.values()))
    json.dump({kind: count(pairs, kind) for kind in ("text", "meaning", "bytes")}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
