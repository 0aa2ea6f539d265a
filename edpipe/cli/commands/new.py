"""`edpipe new`: from a folder of images to checked entries in params.yaml, sized to the images and this machine."""

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edpipe.cli.commands.params_edit import alone, checked, read_text, write_text
from edpipe.cli.own_images import summary
from edpipe.cli.own_images.entries import entries_of
from edpipe.cli.own_images.facts import FolderFacts, look_at
from edpipe.cli.own_images.sizes import BLOCKS, Sizes, Wishes, choose, smaller_sides
from edpipe.cli.own_images.teacher import MODES, FetchedTeacher, Mode, fetched_teacher
from edpipe.errors import DataError, NetworkError, ParamsError, TeacherError
from edpipe.params.load import parse_params
from edpipe.params.partition import NAME_PATTERN
from edpipe.params.text.dvc_form import in_dvc_form
from edpipe.params.text.insert import insert_entries
from edpipe.params.yaml_file import PARAMS_PATH, load_raw, parse_text
from edpipe.pipeline.estimates.network_speed import NetworkSpeeds
from edpipe.pipeline.estimates.summary import Estimate, estimated
from edpipe.pipeline.jobs.graph import jobs_of

KINDS = ("ed", "kd", "ce")


def add_new(command: ArgumentParser) -> None:
    """The command's words."""
    command.add_argument("name", help="of the dataset; the experiments are NAME_ed, NAME_kd and NAME_ce")
    command.add_argument("--root", required=True, help="folder of class folders, or of train and test that hold them")
    command.add_argument("--image-size", type=int, help="side of the network's input, pixels; default: what fits")
    command.add_argument("--channels", type=int, choices=(1, 3), help="1: grey, 3: colour; default: as the images are")
    command.add_argument(
        "--teacher",
        help="a model to train here, such as resnet56; timm:NAME, whose pretrained weights are fetched; or a file of "
        "weights; default: a model that fits",
    )
    command.add_argument("--teacher-model", help="the network that a file's weights are of")
    command.add_argument(
        "--teacher-mode",
        choices=MODES,
        help="scratch: train it here; of fetched weights, probe: train the last layer alone; finetune: train all; "
        "unchanged: use them as they are; default: by the number of images",
    )
    command.add_argument("--student", help="model, such as resnet20; default: what fits")
    command.add_argument("--epochs", type=int, help="passes over the images; default: fewer over more images")
    command.add_argument("--minutes", type=float, help="that all may take here; default: 8, more for many images")
    command.add_argument("--quick", action="store_true", help="a trial: small networks, few epochs, two seeds")
    command.set_defaults(run=new)


def new(
    name: str,
    root: str,
    image_size: int | None = None,
    channels: int | None = None,
    teacher: str | None = None,
    teacher_model: str | None = None,
    teacher_mode: Mode | None = None,
    student: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    quick: bool = False,
) -> None:
    """Adds dataset, teachers, student and three experiments to params.yaml, or changes nothing.

    Raises:
        ParamsError: the name is taken, or the result would not be sound.
        DataError: the folder does not hold images of at least two classes, or too few of one.
        NetworkError: the student cannot be grown, or a network cannot take such images.
        TeacherError: the teacher's weights cannot be used.
    """
    _check_words(name, epochs, minutes)
    parse_params(load_raw())
    facts = look_at(_folder(root))
    fetched = fetched_teacher(teacher, teacher_model, teacher_mode, facts.num_train)
    if fetched is not None:
        _check_weights(fetched, facts, channels)
    trained = None if fetched else teacher
    wishes = Wishes(image_size, channels, trained, student, epochs, minutes, quick, fetched)
    _check_free(load_raw(), name)
    before, speeds = read_text(), NetworkSpeeds()
    choice = choose(facts, wishes, lambda sizes: _estimate(before, name, facts, sizes, speeds).seconds)
    checked(insert_entries(before, _entries(name, facts, choice.sizes)), experiments_of(name))
    _check_networks(choice.sizes, facts.num_classes)
    choice = replace(choice, sizes=_fitted(choice.sizes, facts.num_classes))
    estimate = _estimate(before, name, facts, choice.sizes, speeds)
    with alone():
        _check_free(load_raw(), name)  # another command may have added it meanwhile
        text = insert_entries(read_text(), _entries(name, facts, choice.sizes))
        checked(text, experiments_of(name))
        write_text(text)
    for line in summary.lines(name, facts, wishes, choice, estimate):
        print(line)


def _entries(name: str, facts: FolderFacts, sizes: Sizes) -> dict[str, str]:
    """The lines for each section, in the form in which DVC writes them."""
    return {section: in_dvc_form(lines) for section, lines in entries_of(name, facts, sizes).items()}


def experiments_of(name: str) -> list[str]:
    """What is added."""
    return [f"{name}_{kind}" for kind in KINDS]


def _estimate(text: str, name: str, facts: FolderFacts, sizes: Sizes, speeds: NetworkSpeeds) -> Estimate:
    """Of the three experiments; measures networks that were not measured here before."""
    params = parse_params(parse_text(insert_entries(text, _entries(name, facts, sizes))))
    jobs = jobs_of(params, experiments_of(name))
    return estimated(params, jobs, speeds, lambda _params, _dataset: facts.counts)


def _folder(root: str) -> Path:
    path = Path(root).expanduser()
    if not root or path.resolve() == Path.cwd():
        raise DataError(f"--root {root!r}: is the project's own folder; name the folder that holds the images")
    return path


def _check_words(name: str, epochs: int | None, minutes: float | None) -> None:
    # Words such as true and null are no names to YAML.
    if not re.fullmatch(NAME_PATTERN, name) or not isinstance(parse_text(f"name: {name}")["name"], str):
        raise ParamsError(
            f"{name!r}: names are lower-case letters, digits and _, beginning with a letter, and no keyword"
        )
    if epochs is not None and epochs < 1:
        raise ParamsError(f"--epochs {epochs}: must be 1 or more")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise ParamsError(f"--minutes {minutes:g}: must be more than 0")


def _check_weights(fetched: FetchedTeacher, facts: FolderFacts, channels: int | None) -> None:
    """Loads the weights of a file as the pipeline will: what does not fit would end the run."""
    if fetched.source != "file":
        return
    from edpipe.models.pretrained.fetch import WEIGHTS_FOLDER, Wanted, fetch_weights
    from edpipe.params.teacher import NetworkKnobs

    fields = {"model": fetched.model, "source": "file", "location": fetched.location, "sha256": fetched.sha256}
    names = facts.class_names
    num_channels = channels or (1 if facts.is_grey else 3)
    wanted = Wanted(f"--teacher {fetched.location}", names, names, num_channels, 0, WEIGHTS_FOLDER)
    found = fetch_weights(NetworkKnobs.model_validate(fields), wanted)
    if found.fresh_classifier and fetched.mode == "unchanged":
        raise TeacherError(
            f"--teacher-mode unchanged: {fetched.location} has other classes than the {len(names):,} of your folders; "
            f"use probe or finetune"
        )


def _fitted(sizes: Sizes, num_classes: int) -> Sizes:
    """The same, without smaller images where the student takes images of one size alone."""
    from edpipe.cli.network_description import describe

    sides = dict.fromkeys(smaller_sides(sizes.image_size))
    found = (describe(sizes.student, num_classes, sizes.channels, side) for side in sides)
    return sizes if all(one.macs is not None for one in found) else replace(sizes, has_sizes=False)


def _check_networks(sizes: Sizes, num_classes: int) -> None:
    """Tries both networks: what cannot be grown or cannot take such images would end the run after hours."""
    from edpipe.cli.network_description import describe

    student = describe(sizes.student, num_classes, sizes.channels, sizes.image_size)
    problem = student.problem
    if problem is None and len(student.stages) < BLOCKS:
        problem = f"has {len(student.stages)} feature stages, a student that grows by {BLOCKS} blocks needs as many"
    if problem is not None:
        raise NetworkError(f"--student {sizes.student}: {problem}; choose another, `edpipe zoo` lists them")
    wanted = sizes.fetched.image_size if sizes.fetched else None
    teacher = describe(sizes.teacher, num_classes, sizes.channels, max(wanted or 0, sizes.image_size))
    if teacher.macs is None:
        raise NetworkError(f"--teacher {sizes.teacher}: {teacher.problem}; choose another, or --image-size")


def _check_free(before: dict, name: str) -> None:
    sections: dict[str, Sequence[str]] = {
        **dict.fromkeys(("datasets", "partitions", "recipes", "students", "soft_labels"), (name,)),
        "teachers": (f"{name}_teacher", f"{name}_teacher_b"),
        "experiments": experiments_of(name),
    }
    taken = [f"{section}.{entry}" for section, names in sections.items() for entry in names if entry in before[section]]
    if taken:
        raise ParamsError(
            f"{PARAMS_PATH}: {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} there already; "
            f"choose another name than '{name}'"
        )
