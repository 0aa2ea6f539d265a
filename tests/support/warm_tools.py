"""`edpipe`, `snakemake` and `python` for many short calls: each is forked from one process that has imported torch.

The process is edpipe's own fork server; here it also runs the two other programs, as a new process would.
"""

import os
import runpy
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from edpipe.pipeline.jobs.step_table import STEPS
from edpipe.pipeline.snakemake.fork_server_launch import modules_of

TOOLS = ("edpipe", "snakemake", "python")
FRONT_END = """#!{python}
import sys
from edpipe.cli.handover import run
sys.exit(run())
"""
IMPORTED = (*modules_of({step.name for step in STEPS}), "timm", "snakemake.cli", "edpipe.cli.commands.plan")


@contextmanager
def warm_tools(folder, environment):
    """The environment in which these tools are warm; they end with the block.

    Args:
        folder: a new one, for their front-ends; its path must be short enough for a socket.
        environment: of the server, and of all that it runs.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for tool in TOOLS:
        (bin_folder / tool).write_text(FRONT_END.format(python=sys.executable), encoding="utf-8")
        (bin_folder / tool).chmod(0o755)
    path = folder / "socket"
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        words = [sys.executable, "-P", str(Path(__file__)), str(listener.fileno()), str(reading), *IMPORTED]
        server = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # as that of its children, so that their streams know that they cannot seek
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(), reading),
            start_new_session=True,
        )
    os.close(reading)
    try:
        yield environment | {
            "EDPIPE_SERVER": str(path),
            "EDPIPE_FORK_SERVER": "0",
            "PATH": os.pathsep.join([str(bin_folder), environment["PATH"]]),
        }
    finally:
        os.close(writing)
        server.communicate()


def _run_program():
    """In a child: what the program of this name does."""
    tool = Path(sys.argv[0]).name
    try:
        if tool == "snakemake":
            from snakemake.cli import main

            return main()
        if tool == "python":
            return _run_python(sys.argv[1:])
        from edpipe.cli.main import main as edpipe

        return edpipe()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)


def _run_python(words):
    sys.path.insert(0, os.getcwd())
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
    return 0


def main():
    from edpipe.cli import fork_server

    fork_server._code_of_main = _run_program
    fork_server.main()


if __name__ == "__main__":
    main()
