"""Entries of params.yaml for a folder of the user's own images: three experiments at one budget, sized to them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edpipe.pipeline.jobs.resources import SMALL_SIDE

USUAL_IMAGES = 100_000
"""Each student sees about as many, repeats counted: minutes for small networks on a CPU."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 100
LARGEST_BATCH, SMALLEST_BATCH = 64, 8
GATED_VAL_IMAGES = 50
"""With fewer validation images a teacher's top1 says too little to refuse it."""
FEW_IMAGES = 5_000
RATE = 0.05
EARLY_SHARES = {"primary": 0.02, "middle": 0.03}
"""Of the budget: short early levels, as in the shipped fashion_mnist_ed."""


@dataclass(frozen=True)
class FolderFacts:
    """What is known of a folder of images before they are packed."""

    root: str
    num_classes: int
    num_train: int
    num_val: int
    test_fraction: float | None
    """None: the folder has its own test images."""
    val_fraction: float | None
    """None: the folder has its own validation images."""


@dataclass(frozen=True)
class Choices:
    """What the user chose; None: what fits the images."""

    image_size: int
    channels: int
    teacher: str | None
    student: str | None
    is_pretrained: bool
    epochs: int | None

    @property
    def is_small(self) -> bool:
        """Whether networks of the CIFAR family fit."""
        return self.image_size <= SMALL_SIDE

    @property
    def teacher_model(self) -> str:
        """As chosen, or what fits."""
        return self.teacher or ("resnet56" if self.is_small else "timm:resnet34")

    @property
    def student_model(self) -> str:
        """As chosen, or what fits."""
        return self.student or ("resnet20" if self.is_small else "timm:resnet18")


def entries_of(name: str, facts: FolderFacts, choices: Choices) -> dict[str, str]:
    """For each section of params.yaml the lines to add."""
    epochs = epochs_for(facts.num_train) if choices.epochs is None else choices.epochs
    return {
        "datasets": _dataset(name, facts, choices),
        "partitions": _partition(name, facts.num_classes),
        "recipes": _recipe(name, facts.num_train),
        "teachers": _teachers(name, facts, choices, epochs),
        "students": f"{name}: {{ model: {json.dumps(choices.student_model)} }}\n",
        "soft_labels": _soft_labels(name, facts.num_train, choices.image_size),
        "experiments": _experiments(name, facts, epochs),
    }


def epochs_for(num_train: int) -> int:
    """Passes over so many images: few over many, many over few.

    >>> epochs_for(20), epochs_for(4000), epochs_for(1_000_000)
    (100, 25, 20)
    """
    return min(max(USUAL_IMAGES // num_train, FEWEST_EPOCHS), MOST_EPOCHS)


def batch_for(num_train: int) -> int:
    """A power of two, at most a quarter of the images where there are few.

    >>> batch_for(20), batch_for(100), batch_for(10_000)
    (8, 16, 64)
    """
    batch = SMALLEST_BATCH
    while batch < LARGEST_BATCH and 8 * batch <= num_train:
        batch *= 2
    return batch


def gate_for(num_classes: int, num_val: int) -> float:
    """The top1 below which a teacher is refused: a tenth of the way from guessing to perfect.

    >>> gate_for(2, 100), gate_for(10, 1000), gate_for(2, 4)
    (0.55, 0.19, 0.0)
    """
    chance = 1 / num_classes
    return round(chance + 0.1 * (1 - chance), 2) if num_val >= GATED_VAL_IMAGES else 0.0


def levels_for(num_classes: int) -> tuple[str, ...]:
    """School levels: each needs a class of its own."""
    return ("primary", "middle", "university") if num_classes >= 3 else ("primary", "university")


def budgets(num_images: int, levels: tuple[str, ...]) -> dict[str, int]:
    """Images of each level, which add up to all; an early one has a small batch at least, where there are so many.

    >>> budgets(10_000, ("primary", "middle", "university"))
    {'primary': 200, 'middle': 300, 'university': 9500}
    >>> budgets(48, ("primary", "university"))
    {'primary': 8, 'university': 40}
    """
    fewest = max(1, min(SMALLEST_BATCH, num_images // (2 * len(levels))))
    early = {level: max(fewest, round(EARLY_SHARES[level] * num_images)) for level in levels[:-1]}
    return early | {levels[-1]: num_images - sum(early.values())}


def _dataset(name: str, facts: FolderFacts, choices: Choices) -> str:
    lines = [f"{name}: # {facts.num_classes:,} classes, {facts.num_train:,} images to train on", "  reader: folder"]
    lines += [f"  root: {json.dumps(facts.root, ensure_ascii=False)}", f"  image_size: {choices.image_size}"]
    lines += [f"  channels: {choices.channels}"]
    if not choices.is_small:
        lines += ["  encoding: jpeg", f"  stored_side: {choices.image_size * 8 // 7} # room for random crops"]
    if facts.test_fraction is not None:
        lines += [f"  test_fraction: {facts.test_fraction:g} # of each class; only the evaluation sees these images"]
    if facts.val_fraction is not None:
        lines += [f"  val_fraction: {facts.val_fraction:g} # of the rest; teachers are judged by these"]
    return _text(lines)


def _partition(name: str, num_classes: int) -> str:
    levels = levels_for(num_classes)
    ratio = ", ".join("1" for _ in levels)
    return f"{name}: {{ subsets: [{', '.join(levels)}], ratio: [{ratio}] }}\n"


def _recipe(name: str, num_train: int) -> str:
    return _text([f"{name}:", f"  batch_size: {batch_for(num_train)}", "  schedule: cosine", "  warmup: 0.05"])


def _teachers(name: str, facts: FolderFacts, choices: Choices, epochs: int) -> str:
    source = ", source: timm" if choices.is_pretrained else ""
    network = f"{{ model: {json.dumps(choices.teacher_model)}{source} }}"
    # Pretrained weights are near a good place: fewer passes at a lower rate.
    passes, rate = (max(epochs // 4, 5), RATE / 5) if choices.is_pretrained else (epochs, RATE)
    gate = gate_for(facts.num_classes, facts.num_val)
    reason = "hardly better than guessing" if gate else f"{facts.num_val} validation images are too few to refuse one"
    lines = []
    for suffix, seed, comment in (("teacher", 0, ""), ("teacher_b", 1, " # the same with another seed, for the panel")):
        lines += [f"{name}_{suffix}:{comment}", f"  network: {network}"]
        lines += [f"  fitting: {{ recipe: {name}, epochs: {passes}, learning_rate: {rate:g}, seed: {seed} }}"]
        lines += [f"  min_top1: {gate:g} # {reason}"]
    return _text(lines)


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


def _experiments(name: str, facts: FolderFacts, epochs: int) -> str:
    images, levels = epochs * facts.num_train, levels_for(facts.num_classes)
    panels = {level: [f"{name}_teacher"] for level in levels} | {levels[-1]: [f"{name}_teacher", f"{name}_teacher_b"]}
    rates = dict.fromkeys(levels, RATE / 5) | {levels[-1]: RATE}
    school = budgets(images, levels)
    ed = ["  method:", "    name: ed", "    classes: all", "    distill: { kind: dkd }", "    task_weight: 1"]
    ed += [
        "    distill_weight: 1",
        "    teachers:",
        *(f"      {level}: [{', '.join(panels[level])}]" for level in levels),
    ]
    stages = {level: f"{{ images: {school[level]}, learning_rate: {rates[level]:g} }}" for level in levels}
    only = {"only": f"{{ images: {images}, learning_rate: {RATE:g} }}"}
    kd = [f"  method: {{ name: kd, teacher: {name}_teacher }}"]
    return "".join(
        [
            _experiment(name, "ed", f" # {epochs} passes over the {facts.num_train:,} training images", ed, stages),
            _experiment(name, "kd", " # as many images, one teacher, no school", kd, only),
            _experiment(name, "ce", " # as many images, no teacher", ["  method: { name: ce }"], only),
        ]
    )


def _experiment(name: str, kind: str, comment: str, method: list[str], stages: Mapping[str, str]) -> str:
    lines = [f"{name}_{kind}:{comment}"]
    lines += [f"  {what}: {name}" for what in ("dataset", "partition", "student")]
    lines += [*method, f"  recipe: {name}", "  seeds: [0, 1, 2]", "  stages:"]
    return _text([*lines, *(f"    {stage}: {budget}" for stage, budget in stages.items())])


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
