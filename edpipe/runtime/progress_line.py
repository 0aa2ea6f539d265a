"""The line that a step writes into its log while it runs: how many images are done, at which speed, what is left."""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<title>.*?): (?P<done>\d[\d,]*)/(?P<total>\d[\d,]*) images, "
    r"(?P<rate>\d[\d,]*) images/s, (?P<left>\d+) s left  "
    r"(?P<text>.*)"
)
_LOSS = re.compile(r"\bloss (\S+?)(?:,|$)")


@dataclass(frozen=True)
class ProgressLine:
    """One line of progress; `str` writes it, `parse` reads it again."""

    title: str
    """Of what runs."""
    done: int
    """Images."""
    total: int
    rate: float
    """Images a second; written without its fraction."""
    left_s: float
    """Seconds; written without their fraction."""
    text: str
    """What is said besides, such as the loss."""

    def __str__(self) -> str:
        return (
            f"{self.title}: {self.done:,}/{self.total:,} images, {self.rate:,.0f} images/s, "
            f"{self.left_s:.0f} s left  {self.text}"
        )

    @classmethod
    def parse(cls, line: str) -> "ProgressLine | None":
        """The line of progress in this text; None: it is another line.

        >>> ProgressLine.parse("pack digits: 900/1,797 images, 300 images/s, 3 s left  ")
        ProgressLine(title='pack digits', done=900, total=1797, rate=300.0, left_s=3.0, text='')
        """
        found = _FORM.fullmatch(line)
        if found is None:
            return None
        done, total, rate, left_s = (int(found[name].replace(",", "")) for name in ("done", "total", "rate", "left"))
        return cls(found["title"], done, total, float(rate), float(left_s), found["text"])

    @property
    def loss(self) -> str:
        """The loss as it is written; empty where none is."""
        found = _LOSS.search(self.text)
        return found[1] if found else ""
