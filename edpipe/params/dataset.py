"""Knobs of `datasets:`: which images, and how they are packed."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edpipe.params.base import Knobs
from edpipe.params.plans.reader_names import KnownReader

FETCHED = ("caltech101", "caltech256", "cifar10", "cifar100", "fashion_mnist", "food101", "svhn", "tiny_imagenet")
"""Readers whose files anybody may download from one address."""


class HuggingFaceKnobs(Knobs):
    """Which image set of the library `datasets`, and which of its columns and splits are meant."""

    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Name on the hub; absent: root is a folder written by save_to_disk."
    )
    config: str | None = Field(default=None, description="Configuration of that data set, where it has several.")
    revision: str | None = Field(default=None, description="Commit or tag on the hub, for always the same images.")
    image: str | None = Field(default=None, description="Column of the images; absent: the only one that holds images.")
    label: str | None = Field(
        default=None, description="Column of the classes; absent: the only one of classes, or else `label` or `labels`."
    )
    train: str | None = Field(default=None, description="Split to train on; absent: train, or all there is.")
    val: str | None = Field(default=None, description="Split to judge on; absent: validation, valid, val or dev.")
    test: str | None = Field(default=None, description="Test split; absent: test, else that of val.")


class DatasetKnobs(Knobs):
    """Which images are read, how they are split, and how they are packed into one file."""

    reader: Annotated[str, KnownReader()] = Field(
        description="Which layout the raw files have; 'folder' is any folder of class folders."
    )
    root: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Folder of the raw files; by default data/raw/<dataset>."
    )
    download: bool = Field(
        True, description="Fetch missing raw files where the reader can; else say where to put them."
    )
    mirror: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None, description="Address of a folder with the published files, to fetch from instead; their MD5 still holds."
    )
    extra: bool = Field(False, description="svhn only: the 531,131 easier images are training images too.")
    background: bool = Field(
        False, description="caltech101 and caltech256 only: BACKGROUND_Google or 257.clutter is a class too."
    )
    huggingface: HuggingFaceKnobs = Field(
        HuggingFaceKnobs(), description="huggingface only: which image set, its columns and splits."
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] = Field(description="Side of the square a network sees, pixels.")
    channels: Literal[1, 3] = Field(3, description="1 packs grey images, 3 packs colour.")
    encoding: Literal["raw", "jpeg"] = Field(
        "raw", description="raw: squares of image_size; jpeg: short side stored_side, aspect kept, decoded when read."
    )
    stored_side: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None, description="jpeg only: short side of the stored image, pixels; image_size when absent."
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="jpeg only: quality of re-encoding.")
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1, description="Share of each class's training images set aside to judge teachers and to tune knobs."
    )
    test_fraction: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.2, description="Share of each class that becomes the test split, for readers without an official one."
    )
    max_per_class: Annotated[int, Field(ge=2)] | None = Field(
        None, description="At most so many images a class and split, the first in reading order; absent: all."
    )
    unreadable: Literal["error", "leave_aside"] = Field(
        "error",
        description="What becomes of a file that holds no image which can be packed: packing ends and names it, or it "
        "is left aside, counted, and listed in the record.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of the splits that are drawn here.")

    @field_validator("channels", mode="before")
    @classmethod
    def _is_number(cls, value: object) -> object:
        # To Python True equals 1, and 3.0 equals 3; the packed file would tell them apart.
        if isinstance(value, bool | float):
            raise ValueError(f"{value!r} is not allowed; allowed: 1 or 3")
        return value

    @model_validator(mode="after")
    def _belongs_to_reader(self) -> "DatasetKnobs":
        readers = {
            "mirror": FETCHED,
            "extra": ("svhn",),
            "background": ("caltech101", "caltech256"),
            "huggingface": ("huggingface",),
        }
        for name, allowed in readers.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.reader not in allowed:
                raise ValueError(f"{name} belongs to reader {', '.join(allowed)}; leave it out for {self.reader}")
        return self

    @model_validator(mode="after")
    def _stored_side_fits(self) -> "DatasetKnobs":
        if self.encoding == "raw" and self.stored_side is not None:
            raise ValueError("stored_side belongs to encoding: jpeg; leave it out for raw")
        if self.stored_side is not None and self.stored_side < self.image_size:
            raise ValueError(f"stored_side {self.stored_side} is smaller than image_size {self.image_size}")
        return self


@dataclass(frozen=True)
class PackKnobs:
    """Knobs of one packing."""

    dataset: DatasetKnobs
