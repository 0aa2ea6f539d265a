"""Which stream of samples and views a student sees: its seed, and one text for equal streams."""

from edpipe.params.base import canonical_json


def stage_seed(seed: int, number: int) -> int:
    """Of sample order and view choice: another for each stage, so that no stage repeats the one before."""
    return (seed << 8) + number


def stream_text(seed: int, batch_size: int, choice: str) -> str:
    """One text for equal streams: who replays a trajectory must see the same samples and views in the same batches.

    Args:
        seed: of the stage, from `stage_seed`.
        batch_size: images in one iteration.
        choice: how views follow each other, `StudentViews.choice`.
    """
    return canonical_json({"seed": seed, "batch_size": batch_size, "choice": choice})
