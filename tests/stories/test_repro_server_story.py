"""Steps under a process called `dvc`: the third is forked from a server, which ends with that process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from made_project import make_folder, params_with_ctkd, write_params
from watching import TIMEOUT_S

from edpipe.params.load import load_params
from edpipe.pipeline.dvc.code_file import write_code
from edpipe.pipeline.dvc.lists import write_tracked_jobs
from edpipe.pipeline.jobs.graph import jobs_of
from edpipe.runtime.repro_server import FOLDER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can watch another's process"),
]
DVC = """\
import os, subprocess, sys
for command in sys.argv[1:]:
    done = subprocess.run(command, shell=True, env=os.environ | {"DVC_STAGE": "evaluate_teacher@x"})
    print(done.returncode, flush=True)
input()
"""


def servers_here():
    """Fork servers at work in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        try:
            if "edpipe.cli.fork_server" in words and process.cwd() == str(Path.cwd()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(is_so):
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of DVC's stages in a folder in which everything before is made."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_STAGE", "EDPIPE_FORK_SERVER", "EDPIPE_SERVER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("EDPIPE_THREADS", "1"), ("EDPIPE_DEVICE", "cpu")):
        monkeypatch.setenv(name, value)
    write_params(params_with_ctkd() | {"tracked": ["ed", "kd"]})
    params = load_params()
    write_tracked_jobs(params)
    write_code()
    python = f"{sys.executable} -P -m edpipe.cli.entry"
    found = [job for job in jobs_of(params, params.tracked) if job.step == "evaluate_teacher"]
    return {job.outputs[0]: job.command.replace("edpipe", python, 1) for job in found}


def test_the_third_step_is_forked_from_a_server_that_ends_with_dvc(commands):
    Path("dvc").write_text(DVC)
    paths, words = list(commands), list(commands.values())
    assert len(words) == 3
    with subprocess.Popen(
        [sys.executable, "dvc", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as dvc:
        assert [dvc.stdout.readline().split()[0] for _ in words] == ["0"] * 3
        assert all(path.exists() for path in paths)
        (server,) = servers_here()
        # Its own imports, and a child for the second step and the third, which end before their front-ends do.
        assert server.cpu_times().children_user > 0
        assert len(list(FOLDER.iterdir())) == 1
        dvc.communicate("\n", timeout=TIMEOUT_S)
    wait_until(lambda: not servers_here())
    wait_until(lambda: not list(FOLDER.iterdir()))
