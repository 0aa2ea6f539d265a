"""Where `edpipe` begins: before anything is imported, Ctrl-C is made one line.

Python would raise KeyboardInterrupt in the midst of an import, which some libraries make another error of.
"""

import os
import signal
import sys
from types import FrameType

EXIT_INTERRUPTED = 130
INTERRUPTED = b"edpipe: interrupted before it began; nothing was changed\n"


def main() -> int:
    """Runs the command of this process; returns its exit code, after Ctrl-C at start-up 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, _end)
    from edpipe.cli.handover import run

    return run()


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process at once; commands that change something have handlers of their own."""
    os.write(2, INTERRUPTED)
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
