"""docs/builtin.md: what params.yaml may name without a plugin, from the registry that checks it."""

from collections.abc import Iterator
from inspect import getmodule

from pydantic import BaseModel

from edpipe.datasets.readers.by_name import READERS
from edpipe.params.plans.loss import TeacherLoss
from edpipe.params.plans.plugins import load_built_in
from edpipe.params.plans.registered import REGISTRY

HEADER = """# What is built in: methods, losses, readers, networks

Written by `python docs/site/reference.py`; do not edit. [plugins.md](plugins.md) says how to add your own.
[methods.md](methods.md) has papers and departures, [params.md](params.md) the knobs with their ranges,
[datasets.md](datasets.md) the files that readers want.
"""
COMMON = {"name", "kind"}
"""Knobs that are the name itself."""


def builtin_page() -> str:
    """The page, in Markdown."""
    load_built_in()
    return "".join([HEADER, *_methods(), *_losses(), *_readers(), *_networks()])


def _first_line(described: object) -> str:
    return (described.__doc__ or "").strip().partition("\n")[0].removesuffix(".")


def _knobs(model: type[BaseModel]) -> str:
    return ", ".join(f"`{name}`" for name in model.model_fields if name not in COMMON) or "–"


def _methods() -> Iterator[str]:
    yield "\n## Methods: `method: {name: …}`\n\n| name | what the student learns by | knobs |\n|---|---|---|\n"
    for name, model in sorted(REGISTRY.methods.items()):
        described = REGISTRY.losses.get(name, model)
        yield f"| `{name}` | {_first_line(described)} | {_knobs(model)} |\n"


def _losses() -> Iterator[str]:
    yield "\n## Losses: `distill: {kind: …}`\n\nOf a level of `ed`, and of methods of several teachers.\n"
    yield "\n| kind | loss | stored besides logits | weight, if none is given | knobs |\n|---|---|---|---|---|\n"
    for name, loss in sorted(REGISTRY.losses.items()):
        if not (issubclass(loss, TeacherLoss) and loss.for_levels):
            continue
        stored = ", ".join(f"`{one}`" for one in sorted(loss.stored)) or "–"
        weight = "1 − `task_weight`" if loss.default_weight is None else f"{loss.default_weight:g}"
        yield f"| `{name}` | {_first_line(loss)} | {stored} | {weight} | {_knobs(loss)} |\n"


def _readers() -> Iterator[str]:
    yield "\n## Readers: `datasets.<name>.reader`\n\n| reader | what it reads |\n|---|---|\n"
    for name, read in sorted(READERS.items()):
        yield f"| `{name}` | {_first_line(getmodule(read))} |\n"


def _networks() -> Iterator[str]:
    yield "\n## Networks: `model`\n\n[networks.md](networks.md) lists the networks for small images, as\n"
    yield "`edpipe zoo --markdown` prints them. Every network of timm is `timm:<name>`, every one of torchvision\n"
    yield "`torchvision:<name>`.\n"
