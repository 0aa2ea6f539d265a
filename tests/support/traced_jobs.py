"""Runs jobs of a project folder in one process and writes down which functions or lines of the package each executes.

python -m traced_jobs functions|lines OUT < a JSON list of command lines
"""

import json
import sys
import threading
from pathlib import Path


class Trace:
    """What was executed while it was on: pairs of file and function, or of file and line."""

    def __init__(self, root, lines):
        self.root, self.lines = str(root) + "/", lines
        self.found = set()
        self._others = {}

    def start(self):
        threading.settrace(self._call)
        sys.settrace(self._call)

    def stop(self):
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame, event, argument):
        code = frame.f_code
        if id(code) in self._others:
            return None
        if not code.co_filename.startswith(self.root):
            self._others[id(code)] = code  # kept, so that no other code gets its place
            return None
        name = code.co_filename.removeprefix(self.root)
        if code.co_qualname == "<module>":
            return None
        if not self.lines:
            self.found.add((name, code.co_qualname, code.co_firstlineno))
            return None
        return lambda f, e, a: self._line(name, f, e)

    def _line(self, name, frame, event):
        if event == "line":
            self.found.add((name, frame.f_lineno))
        return lambda f, e, a: self._line(name, f, e)


def main():
    import edpipe
    from edpipe.cli import run_step
    from edpipe.cli.main import main as edpipe_main

    root = Path(edpipe.__file__).parent
    executed = []
    original = run_step.import_module

    def traced(name):
        step = original(name)

        class Step:
            @staticmethod
            def run(job, **more):
                trace.start()
                try:
                    return step.run(job, **more)
                finally:
                    trace.stop()

        return Step

    run_step.import_module = traced
    for words in json.loads(sys.stdin.read()):
        trace = Trace(root, sys.argv[1] == "lines")
        assert edpipe_main(words) == 0, words
        executed.append(sorted(trace.found))
    Path(sys.argv[2]).write_text(json.dumps(executed), encoding="utf-8")


if __name__ == "__main__":
    main()
