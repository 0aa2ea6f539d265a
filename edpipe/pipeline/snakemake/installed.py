"""Where the rules lie: beside this module, so that every project takes those of the package that it runs."""

from pathlib import Path

SNAKEFILE = str(Path(__file__).with_name("Snakefile"))
"""A project's own workflow/Snakefile includes it."""
