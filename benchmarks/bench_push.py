"""What `dvc push` and `dvc pull` of a project cost on S3: CPU seconds of DVC, seconds, requests, bytes.

    python benchmarks/bench_push.py                some minutes
    python benchmarks/bench_push.py --jobs 3       a few jobs, to see that it runs

Each job has an artifact of 20 kB and a record of 2 kB. The stages have outputs alone, no inputs and no params. The
server is on this machine, in this process, so that its own CPU time does not count to DVC's, but the seconds hold both.

push            all of it into an empty remote
push, again     nothing is new
push, one job   two files are new
pull            all of it into a clone without a cache
pull, again     everything is there
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from s3_server import BUCKET, Store, serving_s3

ARTIFACT_BYTES, RECORD_BYTES = 20_000, 2_000
PIPELINE = """\
stages:
  job:
    foreach: [{jobs}]
    do:
      cmd: "true"
      outs: ["artifacts/${{item}}.h5", "artifacts/${{item}}.json"]
"""


def dvc(folder: Path, *words: str) -> None:
    """Runs DVC there to its end."""
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(folder.parent / "site"), "DVC_NO_ANALYTICS": "1"}
    subprocess.run(["dvc", *words, "--quiet"], cwd=folder, env=environment, check=True)


def write_job(folder: Path, number: int, seed: int) -> None:
    """The files of one job."""
    rng = random.Random(f"{number} {seed}")
    (folder / "artifacts" / f"{number}.h5").write_bytes(rng.randbytes(ARTIFACT_BYTES))
    (folder / "artifacts" / f"{number}.json").write_bytes(rng.randbytes(RECORD_BYTES))


def make_project(folder: Path, num_jobs: int, store: Store) -> None:
    """A project in which all jobs are made and committed, with the server for its remote."""
    (folder / "artifacts").mkdir(parents=True)
    dvc(folder, "init", "--no-scm")
    (folder / "dvc.yaml").write_text(PIPELINE.format(jobs=", ".join(map(str, range(num_jobs)))))
    for number in range(num_jobs):
        write_job(folder, number, 0)
    dvc(folder, "commit", "--force")
    dvc(folder, "remote", "add", "--default", "store", f"s3://{BUCKET}/{num_jobs}")
    dvc(folder, "remote", "modify", "store", "endpointurl", store.address)
    dvc(folder, "remote", "modify", "store", "verify", "true")


def clone(folder: Path, into: Path) -> None:
    """What git would give: neither cache nor artifacts."""
    ignored = shutil.ignore_patterns("artifacts", "cache", "tmp")
    shutil.copytree(folder, into, ignore=ignored)


def measured(store: Store, run: Callable[[], None]) -> dict[str, Any]:
    """What a run of DVC took."""
    store.requests.clear()
    before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    elapsed_s, after = time.perf_counter() - begun_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu_s, 1), "seconds": round(elapsed_s, 1), **dict(sorted(store.requests.items()))}


def bench(root: Path, num_jobs: int, store: Store) -> dict[str, dict[str, Any]]:
    """Figures by what was done."""
    first, second = root / "first", root / "second"
    make_project(first, num_jobs, store)
    found = {name: measured(store, lambda: dvc(first, "push")) for name in ("push", "push, again")}
    clone(first, second)
    write_job(first, 0, 1)
    dvc(first, "commit", "--force", "job@0")
    found["push, one job"] = measured(store, lambda: dvc(first, "push"))
    return found | {name: measured(store, lambda: dvc(second, "pull")) for name in ("pull", "pull, again")}


def main() -> None:
    """Prints a line of figures for each number of jobs and each thing done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1000])
    for num_jobs in parser.parse_args().jobs:
        with tempfile.TemporaryDirectory() as folder, serving_s3() as store:
            os.environ.update(store.environment)
            for name, figures in bench(Path(folder), num_jobs, store).items():
                print(
                    f"{num_jobs:>5} jobs  {name:<14}", *(f"{key} {value}" for key, value in figures.items()), flush=True
                )


if __name__ == "__main__":
    main()
