"""A scheduler that is a shell: jobs run at once in the background; `submit SCRIPT OUTPUT`, `ask ID`, `cancel ID`.

The folder that EDPIPE_TEST_QUEUE names holds the process of each job. Environment variables do not reach the jobs.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def submit(folder, script, output):
    number = len(list(folder.glob("*.pid"))) + 1
    with open(output, "wb") as stream:
        process = subprocess.Popen(
            ["sh", script],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={
                name: os.environ[name]
                for name in ("PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS")
                if name in os.environ
            },
        )
    (folder / f"{number}.pid").write_text(str(process.pid))
    print(f"Job <{number}> is submitted.")


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def main():
    folder = Path(os.environ["EDPIPE_TEST_QUEUE"])
    folder.mkdir(parents=True, exist_ok=True)
    match sys.argv[1:]:
        case ["submit", script, output]:
            submit(folder, script, output)
        case ["ask", number]:
            print("RUN" if is_alive((folder / f"{number}.pid").read_text()) else "DONE")
        case ["cancel", number]:
            os.killpg(int((folder / f"{number}.pid").read_text()), signal.SIGTERM)


if __name__ == "__main__":
    main()
