"""Sizes and budgets that fit a folder of images and this machine, and why."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from edpipe.cli.own_images.facts import FolderFacts
from edpipe.cli.own_images.teacher import FetchedTeacher
from edpipe.pipeline.jobs.resources import SMALL_SIDE

SIDES = (16, 24, 32, 48, 64, 96, 128, 160, 192, 224)
"""Image sizes to choose from, pixels."""
SMALLEST_USEFUL_SIDE = 32
"""Smaller images are taken only where those of the folder are."""
FEW_IMAGES = 5_000
"""From so few, larger images than SMALL_SIDE teach a network from scratch no more."""
USUAL_IMAGES, QUICK_IMAGES = 100_000, 20_000
"""Each student sees about as many, repeats counted."""
EPOCHS, QUICK_EPOCHS = (20, 100), (5, 30)
"""Fewest and most."""
LEAST_MINUTES, QUICK_MINUTES = 8.0, 2.0
IMAGES_A_MINUTE = 100
"""Of the training set: more images may take longer."""
LARGEST_BATCH, SMALLEST_BATCH = 64, 8
BLOCKS = 3
"""Into which students are split."""
EARLY_SHARES = (0.004, 0.006)
"""Of the compute: levels with one block and with two, as in the shipped fashion_mnist_ed."""
SMALLER, SHARES = (Fraction(1, 2), Fraction(5, 7), Fraction(6, 7)), (0.14, 0.25, 0.3)
"""Of the full size and of the compute: levels of the whole student with smaller images; the last level has the rest."""
SMALL_NETWORKS = (("resnet20", "resnet8"), ("resnet56", "resnet20"))
"""Teacher and student, the smallest first."""
LARGE_NETWORKS = (("timm:resnet34", "timm:resnet18"),)


@dataclass(frozen=True)
class Wishes:
    """What the user chose; None: what fits."""

    image_size: int | None = None
    channels: int | None = None
    teacher: str | None = None
    """A model to train, where it is not fetched."""
    student: str | None = None
    epochs: int | None = None
    minutes: float | None = None
    is_quick: bool = False
    fetched: FetchedTeacher | None = None


@dataclass(frozen=True)
class Sizes:
    """What the entries are made with."""

    image_size: int
    channels: int
    teacher: str
    student: str
    epochs: int
    batch_size: int
    seeds: tuple[int, ...] = (0, 1, 2)
    fetched: FetchedTeacher | None = None
    has_sizes: bool = True
    """Whether the student takes images of other sizes, too."""

    @property
    def is_small(self) -> bool:
        """Whether networks of the CIFAR family fit."""
        return self.image_size <= SMALL_SIDE


@dataclass(frozen=True)
class Choice:
    """The sizes that were chosen, with their estimate, and those that were too large."""

    sizes: Sizes
    seconds: float | None
    """On all cores of this machine; None: not known."""
    limit_s: float
    larger: Sizes | None
    """The next larger one, that did not fit."""
    larger_s: float


def choose(facts: FolderFacts, wishes: Wishes, seconds_of: Callable[[Sizes], float | None]) -> Choice:
    """The largest candidate that takes no longer than it may; else the smallest, in fewer epochs.

    They are tried from the smallest on, up to the first that takes too long.

    Args:
        facts: of the folder.
        wishes: of the user.
        seconds_of: an estimate of the three experiments together, None where there is none.
    """
    limit_s = 60 * minutes_for(facts.num_train, wishes)
    best: tuple[Sizes, float | None] | None = None
    for sizes in candidates(facts, wishes):
        seconds = seconds_of(sizes)
        if seconds is not None and seconds > limit_s:
            return _chosen(best, (sizes, seconds), limit_s) if best else _shortened(sizes, wishes, seconds_of, limit_s)
        best = sizes, seconds
    assert best is not None  # there is always a candidate
    return Choice(*best, limit_s, None, 0.0)


def _chosen(best: tuple[Sizes, float | None], larger: tuple[Sizes, float], limit_s: float) -> Choice:
    return Choice(*best, limit_s, *larger)


def _shortened(smallest: Sizes, wishes: Wishes, seconds_of: Callable[[Sizes], float | None], limit_s: float) -> Choice:
    """The smallest candidate in as few epochs as fit, if the user leaves them open, but no fewer than teach."""
    fewest = (QUICK_EPOCHS if wishes.is_quick else EPOCHS)[0]
    sizes = smallest
    while wishes.epochs is None and sizes.epochs // 2 >= fewest and (seconds_of(sizes) or 0) > limit_s:
        sizes = replace(sizes, epochs=sizes.epochs // 2)
    return Choice(sizes, seconds_of(sizes), limit_s, None, 0.0)


def minutes_for(num_train: int, wishes: Wishes) -> float:
    """How long the three experiments may take.

    >>> minutes_for(223, Wishes()), minutes_for(60_000, Wishes()), minutes_for(223, Wishes(is_quick=True))
    (8.0, 600.0, 2.0)
    """
    if wishes.minutes is not None:
        return wishes.minutes
    return QUICK_MINUTES if wishes.is_quick else max(LEAST_MINUTES, num_train / IMAGES_A_MINUTE)


def candidates(facts: FolderFacts, wishes: Wishes) -> Iterator[Sizes]:
    """From the smallest to the largest; what the user chose is the same in all."""
    for side in _sides(facts, wishes):
        for teacher, student in _networks(side, wishes):
            yield Sizes(
                image_size=side,
                channels=wishes.channels or (1 if facts.is_grey else 3),
                teacher=wishes.fetched.model if wishes.fetched else teacher,
                student=student,
                epochs=wishes.epochs or epochs_for(facts.num_train, wishes.is_quick),
                batch_size=batch_for(facts.num_train),
                seeds=(0, 1) if wishes.is_quick else (0, 1, 2),
                fetched=wishes.fetched,
            )


def _sides(facts: FolderFacts, wishes: Wishes) -> list[int]:
    if wishes.image_size is not None:
        return [wishes.image_size]
    natural = max([side for side in SIDES if side <= facts.short_side], default=SIDES[0])
    top = SMALL_SIDE if facts.num_train < FEW_IMAGES else SIDES[-1]
    top = min(natural, SMALLEST_USEFUL_SIDE if wishes.is_quick else top)
    return [side for side in SIDES if min(SMALLEST_USEFUL_SIDE, natural) <= side <= top]


def _networks(side: int, wishes: Wishes) -> list[tuple[str, str]]:
    pairs = SMALL_NETWORKS if side <= SMALL_SIDE else LARGE_NETWORKS
    chosen = pairs[:1] if wishes.is_quick else pairs
    return list(dict.fromkeys((wishes.teacher or teacher, wishes.student or student) for teacher, student in chosen))


def epochs_for(num_train: int, is_quick: bool = False) -> int:
    """Passes over so many images: few over many, many over few.

    >>> epochs_for(20), epochs_for(4000), epochs_for(1_000_000), epochs_for(223, is_quick=True)
    (100, 25, 20, 30)
    """
    fewest, most = QUICK_EPOCHS if is_quick else EPOCHS
    return min(max((QUICK_IMAGES if is_quick else USUAL_IMAGES) // num_train, fewest), most)


def batch_for(num_train: int) -> int:
    """A power of two, at most an eighth of the images where there are few: small sets need the iterations.

    >>> batch_for(20), batch_for(223), batch_for(10_000)
    (8, 16, 64)
    """
    batch = SMALLEST_BATCH
    while batch < LARGEST_BATCH and 16 * batch <= num_train:
        batch *= 2
    return batch


def subsets_for(num_classes: int) -> tuple[str, ...]:
    """Of the partition: each needs a class of its own."""
    return ("primary", "middle", "university") if num_classes >= 3 else ("primary", "university")


@dataclass(frozen=True)
class Level:
    """One level of ed."""

    name: str
    blocks: int
    compute: int
    """Of so many images of full size, through the whole student."""
    image_size: int | None
    """None: full size."""


def school(num_images: int, side: int, has_sizes: bool = True) -> tuple[Level, ...]:
    """Levels as those of the shipped fashion_mnist_ed, which have the compute of `num_images` together.

    Args:
        num_images: that the other methods' students see.
        side: of images of full size.
        has_sizes: whether the student takes images of other sizes.

    >>> [(level.name, level.compute, level.image_size) for level in school(1000, 32)][:3]
    [('primary', 4, 16), ('middle', 6, 16), ('university_16', 140, 16)]
    """
    sides = smaller_sides(side) if has_sizes else ()
    shares: dict[int, float] = {}
    for each, share in zip(sides, SHARES, strict=False):
        shares[each] = shares.get(each, 0) + share
    first = sides[0] if sides else None
    early = [(name, k + 1, EARLY_SHARES[k], first) for k, name in enumerate(("primary", "middle"))]
    early += [(f"university_{each}", BLOCKS, share, each) for each, share in shares.items()]
    levels = [Level(name, blocks, max(2, round(num_images * share)), each) for name, blocks, share, each in early]
    left = num_images - sum(level.compute for level in levels)
    return (*levels, Level("university", BLOCKS, max(2, left), None))


def smaller_sides(side: int) -> tuple[int, ...]:
    """Parts of the full size, in whole fours of pixels, or twos of small images; none of an image that is too small.

    >>> smaller_sides(32), smaller_sides(8), smaller_sides(4)
    ((16, 24, 28), (4, 6, 6), ())
    """
    step = 4 if side >= 16 else 2
    sides = (max(4, min(step * round(side * part / step), side - 1)) for part in SMALLER)
    return tuple(each for each in sides if each < side)
