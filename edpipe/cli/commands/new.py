"""`edpipe new`: from a folder of images to checked entries in params.yaml."""

import re
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

from edpipe.cli.commands.new_entries import Choices, FolderFacts, entries_of, levels_for
from edpipe.cli.commands.params_edit import alone, checked, read_text, write_text
from edpipe.datasets.raw import RawDataset
from edpipe.datasets.readers.folder import read
from edpipe.datasets.splits import assign_splits
from edpipe.errors import DataError, NetworkError, ParamsError
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.dvc_form import in_dvc_form
from edpipe.params.insert import insert_entries
from edpipe.params.load import parse_params
from edpipe.params.partition import NAME_PATTERN
from edpipe.params.yaml_file import PARAMS_PATH, load_raw, parse_text

USUAL_TEST, LARGER_VAL = 0.2, 0.2
FEWEST_VAL_IMAGES = 100
"""With fewer of them a larger share is set aside."""


def add_new(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("name", help="of the dataset; the experiments are NAME_ed, NAME_kd and NAME_ce")
    command.add_argument("--root", required=True, help="folder of class folders, or of train and test that hold them")
    command.add_argument("--image-size", type=int, default=64, help="side of the network's input, pixels; default: 64")
    command.add_argument("--channels", type=int, default=3, choices=(1, 3), help="1: grey, 3: colour; default: 3")
    command.add_argument("--teacher", help="model, such as timm:resnet34; default: by image size, resnet56 up to 64")
    command.add_argument("--student", help="model, such as resnet20; default: by image size, resnet20 up to 64")
    command.add_argument(
        "--pretrained", action="store_true", help="fine-tune timm's weights, fetched once; else teachers from scratch"
    )
    command.add_argument("--epochs", type=int, help="passes over the images; default: fewer over more images")
    command.set_defaults(run=new)


def new(
    name: str,
    root: str,
    image_size: int,
    channels: int,
    teacher: str | None,
    student: str | None,
    pretrained: bool,
    epochs: int | None,
) -> None:
    """Adds dataset, teachers, student and three experiments to params.yaml, or changes nothing.

    Raises:
        ParamsError: the name is taken, or the result would not be sound.
        DataError: the folder does not hold images of at least two classes, or too few of one.
        NetworkError: the student cannot be grown, or a network cannot take such images.
    """
    choices = Choices(image_size, channels, teacher, student, pretrained, epochs)
    _check_words(name, choices)
    parse_params(load_raw())
    facts = look_at(_folder(root))
    entries = {section: in_dvc_form(lines) for section, lines in entries_of(name, facts, choices).items()}
    experiments = [f"{name}_{kind}" for kind in ("ed", "kd", "ce")]
    with alone():
        _check_free(load_raw(), name)
        text = insert_entries(read_text(), entries)
        params = checked(text, experiments)
        _check_networks(choices, facts.num_classes)
        write_text(text)
    _say(name, facts, sum(stage.images or 0 for stage in params.experiments[experiments[0]].stages.values()))


def _folder(root: str) -> Path:
    path = Path(root).expanduser()
    if not root or path.resolve() == Path.cwd():
        raise DataError(f"--root {root!r}: is the project's own folder; name the folder that holds the images")
    return path


def _check_networks(choices: Choices, num_classes: int) -> None:
    """Tries both networks: what cannot be grown or cannot take such images would end the run after hours."""
    from edpipe.cli.commands.network_description import describe

    sizes = num_classes, choices.channels, choices.image_size
    student, num_levels = describe(choices.student_model, *sizes), len(levels_for(num_classes))
    problem = student.problem
    if problem is None and len(student.stages) < num_levels:
        problem = f"has {len(student.stages)} feature stages, a school of {num_levels} levels needs as many"
    if problem is not None:
        raise NetworkError(f"--student {choices.student_model}: {problem}; choose another, `edpipe zoo` lists them")
    teacher = describe(choices.teacher_model, *sizes)
    if teacher.macs is None:
        raise NetworkError(f"--teacher {choices.teacher_model}: {teacher.problem}; choose another, or --image-size")


def _check_words(name: str, choices: Choices) -> None:
    # Words such as true and null are no names to YAML.
    if not re.fullmatch(NAME_PATTERN, name) or not isinstance(parse_text(f"name: {name}")["name"], str):
        raise ParamsError(
            f"{name!r}: names are lower-case letters, digits and _, beginning with a letter, and no keyword"
        )
    if choices.epochs is not None and choices.epochs < 1:
        raise ParamsError(f"--epochs {choices.epochs}: must be 1 or more")
    if choices.is_pretrained and not choices.teacher_model.startswith("timm:"):
        raise ParamsError(
            f"--pretrained: needs a teacher of timm, got '{choices.teacher_model}'; give --teacher timm:…"
        )


def look_at(root: Path) -> FolderFacts:
    """Counts the images of a folder, without opening them, and chooses what is set aside.

    Raises:
        DataError: see `edpipe.datasets.readers.folder.read`; or there is one class only, or a class with too few
            images.
    """
    knobs = DatasetKnobs.model_validate({"reader": "folder", "image_size": 64})
    raw = read(root, knobs)
    if len(raw.class_names) < 2:
        raise DataError(f"{root}: holds one class, {''.join(raw.class_names)}; there must be two or more to tell apart")
    has_test = any(sample.split == "test" for sample in raw.samples)
    has_val = any(sample.split == "val" for sample in raw.samples)
    smallest = min(Counter(sample.label for sample in raw.samples).values())
    # A fifth of two images is none.
    knobs = knobs.model_copy(update={"test_fraction": USUAL_TEST if smallest > 2 else 0.5})
    split = _counts(assign_splits(raw, knobs))
    if not has_val and split["val"] < FEWEST_VAL_IMAGES:
        knobs = knobs.model_copy(update={"val_fraction": LARGER_VAL})
        split = _counts(assign_splits(raw, knobs))
    return FolderFacts(
        str(root),
        len(raw.class_names),
        split["train"],
        split["val"],
        None if has_test else knobs.test_fraction,
        None if has_val else knobs.val_fraction,
    )


def _counts(raw: RawDataset) -> Counter[str | None]:
    return Counter(sample.split for sample in raw.samples)


def _check_free(before: dict, name: str) -> None:
    taken = [
        f"{section}.{entry}"
        for section, names in {
            **dict.fromkeys(("datasets", "partitions", "recipes", "students", "soft_labels"), (name,)),
            "teachers": (f"{name}_teacher", f"{name}_teacher_b"),
            "experiments": (f"{name}_ed", f"{name}_kd", f"{name}_ce"),
        }.items()
        for entry in names
        if entry in before[section]
    ]
    if taken:
        raise ParamsError(
            f"{PARAMS_PATH}: {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} there already; "
            f"choose another name than '{name}'"
        )


def _say(name: str, facts: FolderFacts, num_images: int) -> None:
    print(
        f"{PARAMS_PATH}: added {name}: {facts.num_classes:,} classes, {facts.num_train:,} train and "
        f"{facts.num_val:,} val images; each student sees {num_images:,} images"
    )
    print(f"now run: snakemake --cores 2 results/{name}_ed.json")
    print(
        f"and to compare: snakemake --cores 2 results/{name}_{{ed,kd,ce}}.json && edpipe compare results/{name}_*.json"
    )
