"""What `edpipe new` says: the images, what was chosen and why, what it takes, and the commands that come next."""

from collections.abc import Iterator

from edpipe.cli.own_images.facts import FolderFacts
from edpipe.cli.own_images.sizes import BLOCKS, FEW_IMAGES, Choice, Sizes, Wishes, school
from edpipe.params.yaml_file import PARAMS_PATH
from edpipe.pipeline.estimates.summary import Estimate, parallel, size
from edpipe.pipeline.jobs.resources import SMALL_SIDE
from edpipe.results.measures.cost import duration


def lines(name: str, facts: FolderFacts, wishes: Wishes, choice: Choice, estimate: Estimate) -> Iterator[str]:
    """One thought a line."""
    sizes = choice.sizes
    yield (
        f"{PARAMS_PATH}: added {name}: {facts.num_classes:,} classes, {facts.num_train:,} train, {facts.num_val:,} val "
        f"and {facts.num_test:,} test images"
    )
    if facts.left_aside:
        yield f"left aside in {facts.root}: {facts.left_aside}"
    yield f"image size {sizes.image_size}: {_why_side(facts, wishes, sizes)}"
    yield f"teacher {_teacher(sizes)}, student {sizes.student}: {_why_networks(wishes, choice)}"
    yield from _budget_lines(facts, sizes)
    yield from _estimate_lines(choice, estimate)
    cores = f"--cores {estimate.cores}"
    yield f"now run: snakemake {cores} results/{name}_ed.json"
    results = f"results/{name}_{{ed,kd,ce}}.json"
    yield f"and to compare: snakemake {cores} {results} && edpipe compare results/{name}_*.json"


def _why_side(facts: FolderFacts, wishes: Wishes, sizes: Sizes) -> str:
    if wishes.image_size is not None:
        return "as --image-size says"
    found = f"half of the images are {facts.short_side:,} pixels or more on their short side"
    if sizes.image_size * 2 > facts.short_side:
        return found
    if wishes.is_quick:
        return f"{found}, --quick takes small ones"
    if sizes.image_size == SMALL_SIDE and facts.num_train < FEW_IMAGES:
        return f"{found}, but {facts.num_train:,} training images are too few for more"
    return f"{found}; larger ones would take too long"


def _teacher(sizes: Sizes) -> str:
    if sizes.fetched is None:
        return sizes.teacher
    where = "timm's weights" if sizes.fetched.source == "timm" else f"weights of {sizes.fetched.location}"
    doing = {"probe": "last layer trained", "finetune": "fine-tuned", "unchanged": "unchanged"}[sizes.fetched.mode]
    return f"{sizes.teacher} ({where}, {doing}: {sizes.fetched.reason})"


def _why_networks(wishes: Wishes, choice: Choice) -> str:
    if choice.larger is not None and choice.larger_s:
        larger, limit = choice.larger, f"the limit is {duration(choice.limit_s)}; --minutes sets another"
        return (
            f"{larger.teacher} and {larger.student} at {larger.image_size} pixels would take ~"
            f"{duration(choice.larger_s)}, {limit}"
        )
    if wishes.teacher and wishes.student:
        return "as --teacher and --student say"
    if choice.seconds is not None and choice.seconds > choice.limit_s:
        return f"the smallest, and still more than the limit of {duration(choice.limit_s)}"
    return "small ones, as --quick says" if wishes.is_quick else "the largest of those that are tried"


def _budget_lines(facts: FolderFacts, sizes: Sizes) -> Iterator[str]:
    batch = sizes.batch_size
    levels = school(sizes.epochs * facts.num_train, sizes.image_size, sizes.has_sizes)
    images = sum(level.compute for level in levels)
    yield (
        f"each student gets the compute of {images:,} images: {sizes.epochs} epochs, {-(-images // batch):,} "
        f"iterations of {batch}"
    )
    sides = ", ".join(str(side) for side in dict.fromkeys(level.image_size or sizes.image_size for level in levels))
    yield f"levels of ed: one block, two, then all of {BLOCKS}, with images of {sides} pixels"


def _estimate_lines(choice: Choice, estimate: Estimate) -> Iterator[str]:
    if estimate.unknown:
        yield "estimate: none, a network could not be tried here"
        return
    yield (
        f"estimate: {parallel(estimate)} for all three, ~{duration(estimate.total_s)} one after the other; "
        f"~{size(estimate.num_bytes)}"
    )
    if estimate.parallel_s > choice.limit_s:
        yield (
            f"warning: that is more than {duration(choice.limit_s)}; --quick, fewer --epochs or a smaller --image-size "
            f"take less"
        )
