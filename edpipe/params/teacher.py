"""Knobs of `teachers:`: which network, where its weights come from, how it is fitted and gated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from edpipe.params.base import Knobs
from edpipe.params.partition import Name
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.soft_labels import Augment, StorageKnobs, StudentViews

Source = Literal["train", "timm", "torchvision", "file", "url", "student"]
FROM_ELSEWHERE = ("timm", "torchvision", "file", "url")
"""Sources of networks that were trained on other data, perhaps for other classes."""
SAVED = ("file", "url")
SCHEMES = ("https", "http", "file")
"""Of addresses."""
BY_ORDER: Literal["by_order"] = "by_order"
IMAGENET: Literal["imagenet"] = "imagenet"
Renaming = Literal["by_order"] | dict[str, str | None]
ClassNames = Literal["imagenet"] | Annotated[tuple[str, ...], Field(min_length=2, strict=False)]


class NetworkKnobs(Knobs):
    """Which network, and where its weights come from."""

    model: str = Field(
        description="resnet8…resnet110, resnet8x4, wrn_40_2, vgg8…vgg19, mobilenetv2, shufflenetv1, shufflenetv2, "
        "cifar_resnet18, 34 or 50, 'timm:<name>' or 'torchvision:<name>'; `edpipe zoo` lists them."
    )
    source: Source = Field(
        "train",
        description="train: from scratch; timm, torchvision: pretrained; file, url: weights with sha256; student: the "
        "last student of an experiment, of seed fitting.seed.",
    )
    location: str | None = Field(
        None, description="file: a path; url: an address; torchvision: a weights name or absent."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="file and url: the weights must have this sha256."
    )
    weights_key: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="file and url: which state_dict of a checkpoint that holds several, such as state_dict_ema; nested "
        "keys are joined by dots. Absent: the only one, or the only one under a usual key such as state_dict.",
    )
    rename: Renaming | None = Field(
        None,
        description="file and url: by_order, where the weights have other names but the same order; or what each "
        "beginning of a name becomes (null leaves it aside).",
    )
    mean: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="file and url: the network sees (pixel/255 - mean) / std; absent: the dataset's."
    )
    std: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="file and url: goes with mean."
    )
    class_names: ClassNames | None = Field(
        None,
        description="Fetched networks: the classes of their outputs, in order, or imagenet; those of the dataset are "
        "picked by name. Absent: as many outputs as classes are the dataset's, in its order; else new ones are drawn.",
    )
    class_map: dict[str, str] = Field(
        {}, description="With class_names: the network's names of the classes that the dataset calls otherwise."
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        None, description="Side, in pixels, that its images are resized to after their view; absent: the dataset's."
    )
    experiment: Name | None = Field(None, description="student: one of experiments, on the dataset that it teaches.")

    @model_serializer(mode="wrap")
    def _without_absent_key(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Left out where it is absent, so that teachers made before this knob existed are not made again."""
        return {name: value for name, value in dump(self).items() if name != "weights_key" or value is not None}

    @model_validator(mode="after")
    def _source_is_complete(self) -> "NetworkKnobs":
        if self.source in ("file", "url") and not (self.location and self.sha256):
            raise ValueError(f"source: {self.source} needs location and sha256")
        if self.source in ("timm", "torchvision") and not self.model.startswith(f"{self.source}:"):
            raise ValueError(f"source: {self.source} needs a model '{self.source}:<name>', got '{self.model}'")
        if self.source in ("train", "timm", "student") and (self.location or self.sha256):
            raise ValueError(f"source: {self.source} takes neither location nor sha256")
        if self.source == "student" and self.experiment is None:
            raise ValueError("source: student needs experiment, whose last student it is")
        if self.source != "student" and self.experiment is not None:
            raise ValueError(f"source: {self.source} takes no experiment; use source: student, or remove it")
        return self

    @model_validator(mode="after")
    def _fits_other_data(self) -> "NetworkKnobs":
        of_file = [name for name in ("weights_key", "rename", "mean", "std") if getattr(self, name) is not None]
        if of_file and self.source not in SAVED:
            raise ValueError(f"source: {self.source} takes no {of_file[0]}; it belongs to source: file and url")
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std go together, with a number for each channel")
        if self.class_names is not None and self.source not in FROM_ELSEWHERE:
            raise ValueError(f"source: {self.source} takes no class_names; its outputs are the dataset's classes")
        if self.class_map and self.class_names is None:
            raise ValueError("class_map needs class_names, which it refers to")
        names = () if self.class_names in (None, IMAGENET) else self.class_names
        if twice := next((name for name in names or () if names.count(name) > 1), None):
            raise ValueError(f"class_names has {twice!r} twice; the name of each output must be its own")
        return self


class FittingKnobs(Knobs):
    """How a teacher is trained or, when fetched, fine-tuned."""

    recipe: Name = Field(description="One of recipes.")
    epochs: Annotated[float, Field(ge=0, le=100_000)] = Field(
        description="Passes over the subset; 0 keeps fetched weights as they are."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.05, description="At the peak of the schedule.")
    layers: Literal["all", "classifier"] = Field(
        "all",
        description="Fetched networks: all = fine-tuning; classifier = a linear probe, all but the last layer stays.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of initial weights, sample order and views.")


class TeacherKnobs(Knobs):
    """One teacher, or one specialist for each subset of a partition."""

    partition: Name | None = Field(
        None, description="One specialist per subset of this partition; absent: all classes."
    )
    network: NetworkKnobs = Field(description="Which network, and where its weights come from.")
    fitting: FittingKnobs = Field(description="How it is trained or fine-tuned.")
    min_top1: Annotated[float, Field(ge=0, le=1)] = Field(
        description="No soft labels are dumped from a teacher whose top1 on its own classes is lower."
    )

    @model_validator(mode="after")
    def _trained_at_all(self) -> "TeacherKnobs":
        if self.network.source == "train" and self.fitting.epochs == 0:
            raise ValueError("source: train needs fitting.epochs > 0")
        if self.network.source == "train" and self.fitting.layers == "classifier":
            raise ValueError("source: train cannot train the classifier alone; use layers: all, or fetch the network")
        if self.fitting.layers == "classifier" and self.fitting.epochs == 0:
            raise ValueError("layers: classifier needs fitting.epochs > 0")
        if self.network.source == "student" and self.partition is not None:
            raise ValueError("source: student gives one teacher of all classes; remove partition")
        return self


@dataclass(frozen=True)
class TeacherJobKnobs:
    """Knobs of one teacher, trained or fetched."""

    network: NetworkKnobs
    fitting: FittingKnobs
    recipe: RecipeKnobs
    augment: Augment


@dataclass(frozen=True)
class TrajectoryKnobs:
    """Knobs of one recording of a teacher that trains on what students see."""

    network: NetworkKnobs
    fitting: FittingKnobs
    recipe: RecipeKnobs
    views: StudentViews
    storage: StorageKnobs
