"""The blocks of a page, run one after the other in a folder, as a reader would."""

import re
import subprocess
from pathlib import Path

from doc_pages import blocks_of, missing_lines, pages

PARAMS = "params.yaml"
SMALLER = (
    (r"\bepochs: \d+", lambda _: "epochs: 1"),
    (r"(?<!_)\bimages: (\d{4,})", lambda found: f"images: {int(found[1]) // 100}"),
    (r"\bcompute: (\d+)", lambda found: f"compute: {int(found[1]) // 4}"),
    (r"\bimage_size: (\d{2})", lambda found: f"image_size: {int(found[1]) // 2}"),
    (r"\bnumber: \d+", lambda _: "number: 2"),
    (r"\bpoints: \d+", lambda _: "points: 2"),
    (r"\btrials: \d+", lambda _: "trials: 2"),
    (r"\bseeds: \[(\d+), \d+\]", lambda found: f"seeds: [{found[1]}]"),
    (r"\bmin_top1: [\d.]+", lambda _: "min_top1: 0"),
)
"""What makes a training take a moment: text of params.yaml, and what stands there instead. Equal budgets stay equal."""
THIRD_SEED = re.compile(r"(    seeds:\n(?:    - [01]\n)+)    - 2\n")
TIMEOUT_S = 600


class PageRun:
    """A folder in which blocks are run.

    Args:
        folder: where the first block is typed.
        environment: of all commands.
    """

    def __init__(self, folder, environment):
        self.folder, self._environment = Path(folder), environment
        self._params = self._read_params()

    def run_page(self, page, is_run, is_compared):
        """Runs the blocks of a page for which `is_run` holds; compares outputs where `is_compared` does.

        Raises:
            AssertionError: a command fails, or prints other words than the page shows.
        """
        blocks = blocks_of(page, pages()[page])
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            if not is_run(block):
                continue
            printed = self.run(block)
            shown = block.printed if block.language == "console" else self._shown(page, block, after)
            if is_compared(block):
                missing = missing_lines(shown, printed)
                assert not missing, f"{block.place}: shown, but not printed: {missing}\nprinted:\n{printed}"

    def run(self, block):
        """What one block prints."""
        if block.title:
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
            return ""
        commands = block.commands
        if block.language == "python":
            (self.folder / ".block.py").write_text(block.text, encoding="utf-8")
            commands = "python .block.py"
        may_fail = any(line.startswith("edpipe: ") for line in block.printed) and block.language == "console"
        printed = self._shell(commands, block.place, may_fail)
        self.shrink()
        return printed

    def shrink(self):
        """Makes the budgets tiny in lines of params.yaml that were not there before."""
        text = self._read_params()
        if text == self._params or text is None:
            return
        known = set((self._params or "").splitlines())
        lines = [line if line in known else _smaller(line) for line in text.splitlines()]
        self._params = THIRD_SEED.sub(r"\1", "\n".join(lines) + "\n")
        (self.folder / PARAMS).write_text(self._params, encoding="utf-8")

    def _read_params(self):
        path = self.folder / PARAMS
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def _shell(self, commands, place, may_fail):
        """Types commands; the folder in which they end is that of the next block."""
        end = self.folder.parent / "end_of_block"
        words = ["bash", "-c" if may_fail else "-ec", f"set -o pipefail\n{commands}\npwd > {end}\n"]
        ran = subprocess.run(
            words,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert ran.returncode == 0, f"{place}: exit code {ran.returncode}:\n{ran.stdout[-4000:]}"
        folder = Path(end.read_text(encoding="utf-8").strip())
        if folder != self.folder:
            self.folder, self._params = folder, None
        return ran.stdout

    @staticmethod
    def _shown(page, block, after):
        """The `text` block that follows a block of commands at once: what they print."""
        if after is None or after.language != "text":
            return []
        between = pages()[page].splitlines()[block.line + block.text.count("\n") + 1 : after.line - 1]
        return [] if any(line.strip() for line in between) else after.text.splitlines()


def _smaller(line):
    for pattern, smaller in SMALLER:
        line = re.sub(pattern, smaller, line)
    return line
