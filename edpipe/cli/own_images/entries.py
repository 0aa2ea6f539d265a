"""Entries of params.yaml for a folder of the user's own images: three experiments at one budget, sized to them."""

import json
from collections.abc import Mapping

from edpipe.cli.own_images.facts import FolderFacts
from edpipe.cli.own_images.sizes import FEW_IMAGES, Level, Sizes, school, subsets_for
from edpipe.cli.own_images.teacher import FetchedTeacher
from edpipe.pipeline.jobs.resources import SMALL_SIDE

GATED_VAL_IMAGES = 50
"""With fewer validation images a teacher's top1 says too little to refuse it."""
RATE = 0.05
BASELINES = {"ce": (), "kd": ("ce",), "ed": ("ce", "kd")}
"""What stands beside each experiment on its page."""


def entries_of(name: str, facts: FolderFacts, sizes: Sizes) -> dict[str, str]:
    """For each section of params.yaml the lines to add."""
    return {
        "datasets": _dataset(name, facts, sizes),
        "partitions": _partition(name, facts.num_classes),
        "recipes": _recipe(name, sizes.batch_size),
        "teachers": _teachers(name, facts, sizes),
        "students": f"{name}: {{ model: {json.dumps(sizes.student)} }}\n",
        "soft_labels": _soft_labels(name, facts.num_train, sizes.image_size),
        "experiments": _experiments(name, facts, sizes),
    }


def teacher_names(name: str, sizes: Sizes) -> tuple[str, ...]:
    """Two of different seeds where they are trained here; weights that are fetched are the same with any seed."""
    return (f"{name}_teacher",) if sizes.fetched else (f"{name}_teacher", f"{name}_teacher_b")


def gate_for(num_classes: int, num_val: int) -> float:
    """The top1 below which a teacher is refused: a tenth of the way from guessing to perfect.

    >>> gate_for(2, 100), gate_for(10, 1000), gate_for(2, 4)
    (0.55, 0.19, 0.0)
    """
    chance = 1 / num_classes
    return round(chance + 0.1 * (1 - chance), 2) if num_val >= GATED_VAL_IMAGES else 0.0


def _dataset(name: str, facts: FolderFacts, sizes: Sizes) -> str:
    lines = [f"{name}: # {facts.num_classes:,} classes, {facts.num_train:,} images to train on", "  reader: folder"]
    lines += [f"  root: {json.dumps(facts.root, ensure_ascii=False)}", f"  image_size: {sizes.image_size}"]
    lines += [f"  channels: {sizes.channels}"]
    if not sizes.is_small:
        lines += ["  encoding: jpeg", f"  stored_side: {sizes.image_size * 8 // 7} # room for random crops"]
    if facts.test_fraction is not None:
        lines += [f"  test_fraction: {facts.test_fraction:g} # of each class; only the evaluation sees these images"]
    if facts.val_fraction is not None:
        lines += [f"  val_fraction: {facts.val_fraction:g} # of the rest; teachers are judged by these"]
    return _text(lines)


def _partition(name: str, num_classes: int) -> str:
    subsets = subsets_for(num_classes)
    ratio = ", ".join("1" for _ in subsets)
    return f"{name}: {{ subsets: [{', '.join(subsets)}], ratio: [{ratio}] }}\n"


def _recipe(name: str, batch_size: int) -> str:
    return _text([f"{name}:", f"  batch_size: {batch_size}", "  schedule: cosine", "  warmup: 0.05"])


def _teachers(name: str, facts: FolderFacts, sizes: Sizes) -> str:
    gate = gate_for(facts.num_classes, facts.num_val)
    reason = "hardly better than guessing" if gate else f"{facts.num_val} validation images are too few to refuse one"
    if sizes.fetched:
        comment, network = _FETCHED[sizes.fetched.mode], _fetched_network(sizes.fetched, sizes.image_size)
        fitting = [_fetched_fitting(sizes.fetched.mode, sizes.epochs)]
        comments = [f" # {comment}: {sizes.fetched.reason}"]
    else:
        network = f"{{ model: {json.dumps(sizes.teacher)} }}"
        fitting = [f"epochs: {sizes.epochs}, learning_rate: {RATE:g}, seed: {seed}" for seed in (0, 1)]
        comments = ["", " # the same with another seed, for the panel"]
    lines = []
    for teacher, comment, fitted in zip(teacher_names(name, sizes), comments, fitting, strict=True):
        lines += [f"{teacher}:{comment}", f"  network: {network}", f"  fitting: {{ recipe: {name}, {fitted} }}"]
        lines += [f"  min_top1: {gate:g} # {reason}"]
    return _text(lines)


_FETCHED = {
    "probe": "its last layer alone is trained",
    "finetune": "all of its weights are trained on",
    "unchanged": "its weights stay as they are",
}
"""What becomes of fetched weights."""


def _fetched_network(fetched: FetchedTeacher, image_size: int) -> str:
    fields = {"model": fetched.model, "source": fetched.source}
    fields |= {"location": fetched.location, "sha256": fetched.sha256} if fetched.source == "file" else {}
    parts = [f"{field}: {json.dumps(value, ensure_ascii=False)}" for field, value in fields.items()]
    if fetched.image_size and image_size < fetched.image_size:
        parts.append(f"image_size: {fetched.image_size}")
    return f"{{ {', '.join(parts)} }}"


def _fetched_fitting(mode: str, epochs: int) -> str:
    # Such weights are near a good place: fewer passes, and at a lower rate where all of them move.
    passes = max(epochs // 4, 5)
    if mode == "unchanged":
        return "epochs: 0, seed: 0"
    if mode == "probe":
        return f"epochs: {passes}, learning_rate: {RATE:g}, layers: classifier, seed: 0"
    return f"epochs: {passes}, learning_rate: {RATE / 5:g}, seed: 0"


def _soft_labels(name: str, num_train: int, image_size: int) -> str:
    crop = f"kind: pad_crop, padding: {max(image_size // 8, 1)}" if image_size <= SMALL_SIDE else "kind: resized_crop"
    views = 16 if num_train < FEW_IMAGES else 8
    return _text(
        [
            f"{name}:",
            f"  space: {{ augment: {{ {crop}, flip: true }} }}",
            f"  views: {{ number: {views} }} # of each image; a teacher is asked about each once",
            "  storage: { precision: uint8 }",
        ]
    )


def _experiments(name: str, facts: FolderFacts, sizes: Sizes) -> str:
    images = sizes.epochs * facts.num_train
    levels = school(images, sizes.image_size, sizes.has_sizes)
    stages = {level.name: _stage(level) for level in levels}
    only = {"only": f"{{ compute: {sum(level.compute for level in levels)}, learning_rate: {RATE:g} }}"}
    kd = [f"  method: {{ name: kd, teacher: {name}_teacher }}"]
    passes = f" # the compute of {sizes.epochs} passes over the {facts.num_train:,} training images"
    return "".join(
        [
            _experiment(name, "ed", passes, _ed(levels, teacher_names(name, sizes)), stages, sizes.seeds),
            _experiment(name, "kd", " # as much compute, one teacher, no school", kd, only, sizes.seeds),
            _experiment(name, "ce", " # as much compute, no teacher", ["  method: { name: ce }"], only, sizes.seeds),
        ]
    )


def _stage(level: Level) -> str:
    size = f", image_size: {level.image_size}" if level.image_size else ""
    return f"{{ compute: {level.compute}, learning_rate: {RATE:g}{size} }}"


def _ed(levels: tuple[Level, ...], teachers: tuple[str, ...]) -> list[str]:
    """The method's lines: the second teacher joins in the last level."""
    panels = {level.name: teachers[:1] for level in levels} | {levels[-1].name: teachers}
    lines = ["  method:", "    name: ed", "    classes: all", "    rate_schedule: carried", "    levels:"]
    return [
        *lines,
        *(f"    - {{ name: {level.name}, blocks: {level.blocks} }}" for level in levels),
        "    distill: { kind: dkd, beta: 2 }",
        "    task_weight: 1",
        "    distill_weight: 1",
        "    teachers:",
        *(f"      {level}: [{', '.join(panel)}]" for level, panel in panels.items()),
    ]


def _experiment(
    name: str, kind: str, comment: str, method: list[str], stages: Mapping[str, str], seeds: tuple[int, ...]
) -> str:
    lines = [f"{name}_{kind}:{comment}"]
    lines += [f"  {what}: {name}" for what in ("dataset", "partition", "student")]
    lines += [*method, f"  recipe: {name}"]
    beside = [f"{name}_{other}" for other in BASELINES[kind]]
    lines += [f"  beside: [{', '.join(beside)}]"] if beside else []
    lines += [f"  seeds: {list(seeds)}", "  stages:"]
    return _text([*lines, *(f"    {stage}: {budget}" for stage, budget in stages.items())])


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
