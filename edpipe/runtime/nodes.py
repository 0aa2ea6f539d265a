"""Several nodes that train one network together: where they meet, and how Slurm starts the same command on each."""

import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from edpipe.errors import EdpipeError

RENDEZVOUS_VARIABLE = "EDPIPE_RENDEZVOUS"
_ENDPOINT = re.compile(r"[^\s:]+:(\d{1,5})|\[[0-9a-fA-F:.]+\]:(\d{1,5})")


def rendezvous() -> str:
    """Where the nodes meet: EDPIPE_RENDEZVOUS, the first node and a free port of it, as "node1:29500".

    Raises:
        EdpipeError: it is not of this form.
    """
    text = os.environ[RENDEZVOUS_VARIABLE]
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match[1] or match[2]) < 2**16:
        raise EdpipeError(
            f"EDPIPE_RENDEZVOUS={text!r}: must be the name of the first node and a free port of it, as node1:29500"
        )
    return text


def start_on_each_node(nodes: int, arguments: Sequence[str]) -> NoReturn:
    """This process becomes `srun`, which starts `edpipe ARGUMENTS…` once on each node of its batch job.

    A batch job's script runs on the first node, so that the nodes meet here.

    Raises:
        EdpipeError: this is no batch job of Slurm, or one with fewer nodes.
    """
    here = os.environ.get("SLURMD_NODENAME")
    if not here:
        raise EdpipeError(
            f"EDPIPE_NODES={nodes}: this is no batch job of Slurm; set EDPIPE_RENDEZVOUS to the first node and "
            f"a free port of it, as node1:29500, and call the same on each node"
        )
    given = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if int(given) < nodes:
        raise EdpipeError(
            f"EDPIPE_NODES={nodes}: the job has {given} node{'s' * (given != '1')}; submit it with --nodes={nodes}"
        )
    os.environ[RENDEZVOUS_VARIABLE] = f"{here}:{_free_port()}"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp("srun", [*_srun(nodes), sys.executable, "-m", "edpipe", *arguments])


def _srun(nodes: int) -> list[str]:
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")  # srun has not taken it over from its job since Slurm 22.05
    each = [f"--cpus-per-task={cpus}"] if cpus else []
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", *each]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
