"""Starts the processes that train one network together, on one node or several, by torch's own launcher.

On each node one process, the launcher, starts EDPIPE_PROCESSES others and waits for them. When one of them ends badly,
all are ended, on every node.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import CDLL
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edpipe.errors import EXIT_LATER, EdpipeError, LostProcessError, TrainingError
from edpipe.runtime.nodes import RENDEZVOUS_VARIABLE, rendezvous, start_on_each_node
from edpipe.runtime.signals import SIGNALS, Interrupted
from edpipe.runtime.threads import THREAD_VARIABLES, is_started_by_torchrun, num_nodes, num_processes, num_threads

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig

PATIENCE_S = 30
"""For the other processes to end in order when one has ended."""
LATEST_NODE_S = 300
"""So long the first node waits for the others to arrive."""
INTERRUPTED = tuple(128 + number for number in SIGNALS)
PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when the one that started it is gone."""


def is_to_be_shared() -> bool:
    """Whether this call is to be run by several processes, and is not yet one of them."""
    return num_processes() * num_nodes() > 1 and not is_started_by_torchrun()


def run_together(arguments: Sequence[str]) -> None:
    """Runs `edpipe ARGUMENTS…` in EDPIPE_PROCESSES processes on each of EDPIPE_NODES nodes; waits for this node's.

    The processes of a node divide up its threads. In a batch job of Slurm with several nodes this process becomes
    `srun`, which starts the same on each of them.

    Raises:
        TrainingError: one of them failed; it has said why.
        LostProcessError: one of them was killed, or another node is gone; the same call goes on from the last
            checkpoint.
        Interrupted: SIGTERM or Ctrl-C came; they have ended in order.
        EdpipeError: more processes than threads, EDPIPE_DEVICE names a single GPU, or it is not said where the nodes
            meet.
    """
    count, nodes = num_processes(), num_nodes()
    _check_device(count)
    _check_threads(count)
    if nodes > 1 and not os.environ.get(RENDEZVOUS_VARIABLE):
        start_on_each_node(nodes, arguments)
    _divide_threads(count)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is imported: it shows its stack as a warning
    from torch.distributed.launcher.api import elastic_launch

    with _errors_in_one_line(count * nodes), TemporaryDirectory(prefix="edpipe-") as folder:
        config = _config(count, nodes, arguments, folder)
        elastic_launch(config, sys.executable)("-m", "edpipe", *arguments)


def end_with_launcher() -> None:
    """This process, which a launcher has started, is told to end when the launcher is killed."""
    CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _config(count: int, nodes: int, arguments: Sequence[str], folder: str) -> "LaunchConfig":
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        # Nodes that meet by mistake, of other trainings, have another one.
        run_id=" ".join(arguments) if nodes > 1 else str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous() if nodes > 1 else "localhost:0",
        rdzv_configs={"join_timeout": LATEST_NODE_S},
        max_restarts=0,
        shutdown_timeout=PATIENCE_S,
    )


@contextmanager
def _errors_in_one_line(world: int) -> Iterator[None]:
    """What the launcher raises, as errors of this package."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.disable()  # it tells of process ids and signals; the processes say what a person needs
    try:
        yield
    except ChildFailedError as error:
        raise _failure(error, world) from error
    except SignalException as error:
        raise Interrupted(error.sigval) from error
    except (RendezvousError, DistError) as error:
        raise LostProcessError(
            f"EDPIPE_RENDEZVOUS={os.environ.get(RENDEZVOUS_VARIABLE, '')}: another node is gone, or did not come; "
            "the same command goes on from the last checkpoint; if none began, see that each node reaches this address"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _failure(error: "ChildFailedError", world: int) -> BaseException:
    """What the ends of this node's processes mean: one that was killed counts more than those that lost it."""
    rank, failure = min(error.failures.items(), key=lambda item: (item[1].exitcode >= 0, item[1].timestamp))
    code = failure.exitcode
    if code in INTERRUPTED:
        return Interrupted(code - 128)
    line = f"process {rank} of {world}: {_end(code)}; the others were ended"
    if code < 0 or code == EXIT_LATER:
        return LostProcessError(f"{line}; the same command goes on from the last checkpoint")
    return TrainingError(line)


def _check_device(count: int) -> None:
    named = os.environ.get("EDPIPE_DEVICE", "")
    if count > 1 and (named.startswith("cuda:") or named == "mps"):
        raise EdpipeError(
            f"EDPIPE_DEVICE={named!r}: {count} processes need as many GPUs; use cuda or cpu, leave it unset, or set "
            "EDPIPE_PROCESSES=1"
        )


def _check_threads(count: int) -> None:
    threads = num_threads()
    if threads < count:
        raise EdpipeError(
            f"EDPIPE_PROCESSES={count}: more than the {threads} threads that this job has; give it more threads "
            f"(EDPIPE_THREADS), or fewer processes"
        )


def _divide_threads(count: int) -> None:
    threads = num_threads()
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads // count)


def _end(exit_code: int) -> str:
    return f"ended with exit code {exit_code}" if exit_code >= 0 else f"was killed by signal {-exit_code}"
