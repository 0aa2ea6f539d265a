"""Starts the processes that train one network together: EDPIPE_PROCESSES of them, by torch's own launcher."""

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from edpipe.errors import EdpipeError, TrainingError
from edpipe.runtime.signals import Interrupted
from edpipe.runtime.threads import THREAD_VARIABLES, is_started_by_torchrun, num_processes, num_threads

PATIENCE_S = 30
"""For the other processes to end in order when one has ended."""


def is_to_be_shared() -> bool:
    """Whether this call is to be run by several processes, and is not yet one of them."""
    return num_processes() > 1 and not is_started_by_torchrun()


def run_together(arguments: Sequence[str]) -> None:
    """Runs `edpipe ARGUMENTS…` in EDPIPE_PROCESSES processes, which divide up the threads; waits for them.

    Raises:
        TrainingError: one of them failed; it has said why.
        Interrupted: SIGTERM or Ctrl-C came; they have ended in order.
        EdpipeError: more processes than threads, or EDPIPE_DEVICE names a single GPU.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count = num_processes()
    _check_device(count)
    _divide_threads(count)
    logging.disable()  # it tells of process ids and signals; the processes say what a person needs
    try:
        with TemporaryDirectory(prefix="edpipe-") as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                logs_specs=DefaultLogsSpecs(log_dir=folder),
                run_id=str(uuid.uuid4()),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                shutdown_timeout=PATIENCE_S,
            )
            elastic_launch(config, sys.executable)("-m", "edpipe", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise TrainingError(f"process {rank} of {count}: {_end(failure.exitcode)}; the others were ended") from error
    except SignalException as error:
        raise Interrupted(error.sigval) from error
    finally:
        logging.disable(logging.NOTSET)


def _check_device(count: int) -> None:
    named = os.environ.get("EDPIPE_DEVICE", "")
    if named.startswith("cuda:") or named == "mps":
        raise EdpipeError(
            f"EDPIPE_DEVICE={named!r}: {count} processes need as many GPUs; use cuda or cpu, leave it unset, or set "
            "EDPIPE_PROCESSES=1"
        )


def _divide_threads(count: int) -> None:
    threads = num_threads()
    if threads < count:
        raise EdpipeError(
            f"EDPIPE_PROCESSES={count}: more than the {threads} threads that this job has; give it more threads "
            f"(EDPIPE_THREADS), or fewer processes"
        )
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads // count)


def _end(exit_code: int) -> str:
    return f"ended with exit code {exit_code}" if exit_code >= 0 else f"was killed by signal {-exit_code}"
