"""A loaded teacher, and its outputs for given views: logits, attention maps, hints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from edpipe.datasets.dataset_file import Dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import MismatchError, remake
from edpipe.models.forward import forward
from edpipe.models.resize import resize_images
from edpipe.models.splitting.attention_maps import attention_taps
from edpipe.models.splitting.taps import hint_taps
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import HintKnobs
from edpipe.soft_labels.file.format import ATTENTION, HINT, Provenance
from edpipe.storage.weights import read_weights
from edpipe.views.axes import SampleIds, Views
from edpipe.views.batches import ViewBatches
from edpipe.views.pixels import normalise
from edpipe.views.spec import ViewRange

DUMP_BATCH = 256
"""Images that go through a teacher together."""


@dataclass(frozen=True)
class TeacherFiles:
    """Where one teacher's inputs lie, and what it is called."""

    teacher: str
    subset: str
    dataset_path: Path
    partition_path: Path | None
    weights_path: Path

    @classmethod
    def of_job(cls, arguments: Mapping[str, object], inputs: Mapping[str, tuple[Path, ...]]) -> "TeacherFiles":
        """From what a job of this teacher is told and reads."""
        partition = inputs["partition"][0] if inputs["partition"] else None
        names = str(arguments["teacher"]), str(arguments["subset"])
        return cls(*names, inputs["dataset"][0], partition, inputs["teacher"][0])


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher, ready to be asked."""

    files: TeacherFiles
    network: nn.Module
    class_ids: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: RecipeKnobs
    digest: str
    dataset_digest: str
    partition_digest: str
    """Empty for a teacher of all classes."""
    top1: float
    top1_split: str

    def provenance(self, batches: ViewBatches, views: ViewRange) -> Provenance:
        """What soft labels of these views are made from."""
        ids = batches.dataset.sample_ids("train", self.class_ids)
        return Provenance(
            teacher=self.files.teacher,
            subset=self.files.subset,
            teacher_digest=self.digest,
            dataset_digest=self.dataset_digest,
            partition_digest=self.partition_digest,
            view_spec=batches.spec.canonical(),
            pixel_canary=batches.canary(ids, views.first, views.num_views),
        )


def load_teacher(files: TeacherFiles, dataset: Dataset) -> Teacher:
    """The teacher, after its record has been compared with the dataset and the partition.

    Raises:
        CorruptFileError: its weights or its record are damaged.
        MismatchError: it was made from another dataset or partition than the one at hand.
    """
    weights, record = read_weights(files.weights_path)
    partition_digest = read_partition(files.partition_path, dataset).digest if files.partition_path else ""
    _check_inputs(files, record, {"dataset": dataset.digest, "partition": partition_digest})
    knobs = record["knobs"]["network"]
    network = build_network(knobs["model"], len(record["class_ids"]), dataset.channels, 0)
    resize_images(network, knobs.get("image_size"))
    network.load_state_dict(weights)
    return Teacher(
        files=files,
        network=network,
        class_ids=tuple(record["class_ids"]),
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        recipe=RecipeKnobs.model_validate(record["knobs"]["recipe"]),
        digest=record["weights_digest"],
        dataset_digest=dataset.digest,
        partition_digest=partition_digest,
        top1=record["top1"],
        top1_split=record["top1_split"],
    )


def _check_inputs(files: TeacherFiles, record: dict[str, Any], present: dict[str, str]) -> None:
    for name, digest in present.items():
        if record["inputs"][name] != digest:
            raise MismatchError(
                f"{files.weights_path}: this teacher was made from {name} {record['inputs'][name]!r}, at hand is "
                f"{digest!r}; {remake(files.weights_path)}"
            )


class TeacherForward:
    """A teacher on its device, asked about views; use through `teacher_forward`."""

    def __init__(self, teacher: Teacher, batches: ViewBatches, features: Callable[[], dict[str, Tensor]]) -> None:
        self._teacher, self._batches, self._beside = teacher, batches, features

    def outputs(
        self, sample_ids: SampleIds, views: Views
    ) -> tuple[Float32[np.ndarray, "row class"], dict[str, Float32[np.ndarray, "row ..."]]]:
        """Logits of any number of rows, and what is tapped beside them by the column's name.

        Rows go through in batches of `DUMP_BATCH`, in the given order.
        """
        cuts = range(DUMP_BATCH, len(sample_ids), DUMP_BATCH)
        found = [
            self._batch_outputs(*pair) for pair in zip(np.split(sample_ids, cuts), np.split(views, cuts), strict=True)
        ]
        logits = torch.cat([batch for batch, _ in found]).cpu().numpy()
        return logits, {
            name: torch.cat([features[name] for _, features in found]).cpu().numpy() for name in found[0][1]
        }

    def _batch_outputs(
        self, sample_ids: SampleIds, views: Views
    ) -> tuple[Float[Tensor, "row class"], dict[str, Float[Tensor, "row ..."]]]:
        teacher = self._teacher
        images = normalise(self._batches.views(sample_ids, views), teacher.mean, teacher.std)
        return forward(teacher.network, images, teacher.recipe), self._beside()


@contextmanager
def teacher_forward(
    teacher: Teacher, batches: ViewBatches, attention: bool = False, hint: HintKnobs | None = None
) -> Iterator[TeacherForward]:
    """The teacher on the batches' device, in evaluation mode.

    Raises:
        NetworkError: attention maps or a hint are asked of a network that has no such feature stages.
    """
    with _tapped(teacher.network, attention, hint) as features:
        teacher.network.to(batches.device).to(memory_format=torch.channels_last).eval()
        with torch.inference_mode():
            yield TeacherForward(teacher, batches, features)


@contextmanager
def _tapped(
    network: nn.Module, attention: bool, hint: HintKnobs | None
) -> Iterator[Callable[[], dict[str, Float[Tensor, "row ..."]]]]:
    """What the latest forward pass gave beside its logits, by the name of the column that stores it."""
    with ExitStack() as stack:
        maps = stack.enter_context(attention_taps(network)) if attention else []
        hints = stack.enter_context(hint_taps(network, hint.feature_stage, hint.side)) if hint else []
        names = [*(f"{ATTENTION}{level}" for level, _ in enumerate(maps, start=1)), *(HINT for _ in hints)]
        yield lambda: dict(zip(names, [*maps, *hints], strict=True))
