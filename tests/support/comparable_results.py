"""Results to be compared, and what `edpipe compare` says of them."""

from examples import evaluation, rewrite_result, write_result

from edpipe.cli.main import EXIT_MENDABLE, main
from edpipe.storage.records import read_record


def written(folder, experiment="digits_ed", shift=0.0, seeds=(0, 1, 2), **changes):
    """A result of three seeds that differ by plain amounts; then its keys `changes` (as a__b=value) are set."""
    return _written(folder, [evaluation(seed, experiment, shift) for seed in seeds], experiment, changes)


def _written(folder, records, experiment, changes):
    """Sums over the stages, as the budget has them, are changed where they come from: in the last stage."""
    changes = dict(changes)
    for name in ("images_seen", "training_macs"):
        wanted = changes.pop(f"budget__{name}", None)
        for record in records if wanted is not None else ():
            change_sum(record["stages"], name, wanted)
    return altered(write_result(folder, records, experiment), **changes)


def change_sum(stages, name, wanted):
    """Makes this number of all stages add up to what is wanted."""
    for stage in stages:
        stage[name] = 0
    stages[-1][name] = wanted


def altered(path, **changes):
    """The result with these keys changed."""
    contents = read_record(path)
    for name, value in changes.items():
        *outer, last = name.split("__")
        part = contents
        for key in outer:
            part = part[key]
        part[last] = value
    return rewrite_result(path, contents)


def with_top1(folder, experiment, top1_by_seed, by_class=None, **changes):
    """A result with these top1, and for each seed the same top1 of each class."""
    records = [evaluation(0, experiment) | {"seed": seed} for seed in top1_by_seed]
    for record in records:
        record["metrics"]["top1"] = top1_by_seed[record["seed"]]
        record["metrics"]["top1_by_class"] = by_class or record["metrics"]["top1_by_class"]
    return _written(folder, records, experiment, changes)


def lines_from(capsys, *words):
    """What the command printed; every table row as its words."""
    assert main(["compare", *map(str, words)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def row_after(lines, heading, name):
    """The first row of this name below the line that begins with the heading."""
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    return next(line for line in lines[start:] if line.startswith(name + " "))


def refusal_of(capsys, *words):
    """The one line that the command ended with, before anything was printed."""
    assert main(["compare", *map(str, words)]) == EXIT_MENDABLE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("edpipe: ").rstrip()
