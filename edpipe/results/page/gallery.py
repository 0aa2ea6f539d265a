"""Single test images on a page: what they are, what students say, what the teacher says."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edpipe.datasets.dataset_file import Dataset
from edpipe.results.page.answers import Answers, Disputed
from edpipe.results.page.sample_sheet import QUALITY, tile

SHOWN = 12
"""Images of each gallery; a page grows by about 2 kB for each."""


@dataclass(frozen=True)
class Shown:
    """One image of a gallery."""

    data_uri: str
    sample_id: int
    label: str
    named: str
    confidence: float
    teacher_named: str | None


@dataclass(frozen=True)
class Galleries:
    """Test images worth a look, those first of which the students are surest."""

    num_wrong: int
    """Test images that every seed gets wrong."""
    wrong: tuple[Shown, ...]
    num_differing: int
    """Test images for which most seeds name another class than the teacher."""
    differing: tuple[Shown, ...]


def galleries(answers: Answers, dataset: Dataset) -> Galleries:
    """Images that all seeds get wrong, and images on which students and teacher differ.

    Raises:
        CorruptFileError: a stored image cannot be decoded any more.
    """
    wrong, differing = answers.always_wrong(), answers.differing()
    return Galleries(
        int(wrong.sum()),
        _shown(answers.disputed(wrong, SHOWN), dataset),
        int(differing.sum()),
        _shown(answers.disputed(np.asarray(differing), SHOWN), dataset),
    )


def _shown(found: Sequence[Disputed], dataset: Dataset) -> tuple[Shown, ...]:
    names = dataset.class_names
    return tuple(
        Shown(
            _jpeg(dataset, one.sample_id),
            one.sample_id,
            names[one.label],
            names[one.named],
            one.confidence,
            None if one.teacher_named is None else names[one.teacher_named],
        )
        for one in found
    )


def _jpeg(dataset: Dataset, sample_id: int) -> str:
    stream = io.BytesIO()
    tile(dataset, sample_id).save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
