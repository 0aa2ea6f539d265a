"""What an exported folder says of its model, in config.json: all that is needed to use the weights.

The root of config.json has the keys that the hub and timm read. What edpipe reads stands under `edpipe`, sealed as
records are.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edpipe.errors import CorruptFileError, ExportError
from edpipe.params.base import Knobs
from edpipe.params.dataset import DatasetKnobs
from edpipe.params.recipe import RecipeKnobs
from edpipe.storage.digests import digest_json
from edpipe.storage.records import SEAL, is_sealed, read_json_object, without_seal

CONFIG = "config.json"
SECTION = "edpipe"
MODEL_FORMAT = "edpipe-model"
MODEL_FORMAT_VERSION = 1
Format = Literal["safetensors", "torch", "onnx", "int8"]
FILES: dict[str, str] = {
    "safetensors": "model.safetensors",
    "torch": "model.pt2",
    "onnx": "model.onnx",
    "int8": "model_int8.onnx",
}
"""Name of the file of each format, in the order in which they are preferred."""


class Preprocessing(Knobs):
    """How an image becomes the network's input: as the data set was packed, then normalised."""

    image_size: int = Field(description="Side of the square that the network sees, pixels.")
    channels: Literal[1, 3] = Field(description="1: grey; 3: RGB.")
    encoding: Literal["raw", "jpeg"] = Field(description="jpeg: the image is first stored as JPEG, of stored_side.")
    stored_side: int | None = Field(description="jpeg alone: short side of the stored image, pixels.")
    jpeg_quality: int = Field(description="jpeg alone.")
    mean: tuple[float, ...] = Field(strict=False, description="Of each channel, pixels from 0 to 1.")
    std: tuple[float, ...] = Field(strict=False, description="Of each channel.")

    @property
    def packing(self) -> DatasetKnobs:
        """The knobs with which packing makes the same pixels of an image."""
        names = ("image_size", "channels", "encoding", "stored_side", "jpeg_quality")
        return DatasetKnobs.model_validate({"reader": "folder"} | {name: getattr(self, name) for name in names})


class ExportedFile(Knobs):
    """One file of weights in the folder, and how it was compared with the student."""

    digest: str = Field(description="First 16 hex digits of the sha256 of the file.")
    checked_images: int | None = Field(default=None, description="Images of the test split that it was compared on.")
    max_difference: float | None = Field(
        default=None,
        description="Largest difference of a logit to the student's in float32, relative to its largest logit.",
    )
    test_top1: float | None = Field(default=None, description="Of this file on the whole test split, 0 to 1.")
    calibration_images: int | None = Field(default=None, description="int8 alone: images of the train split.")


class ModelDescription(Knobs):
    """One student and the files that hold it."""

    format: Literal["edpipe-model"] = MODEL_FORMAT
    format_version: Literal[1] = MODEL_FORMAT_VERSION
    model: str = Field(description="Name of the network, as in params.yaml.")
    classes: tuple[str, ...] = Field(strict=False, description="Name of each output, in order.")
    precision: Literal["float32", "bfloat16"] = Field(description="Of the forward pass with which it was evaluated.")
    preprocessing: Preprocessing
    experiment: str
    method: str
    seed: int
    weights_digest: str = Field(description="Of the student's file in artifacts/.")
    dataset: str = Field(description="Name of the data set that taught it.")
    dataset_digest: str
    result_digest: str = Field(description="Of the result that measured it.")
    files: dict[Format, ExportedFile] = Field(default={}, description="By format.")

    @property
    def recipe(self) -> RecipeKnobs:
        """Of which a forward pass needs the precision alone."""
        return RecipeKnobs.model_validate({"precision": self.precision})


def sealed(description: ModelDescription) -> dict[str, Any]:
    """The description as plain values, with its seal."""
    plain = description.model_dump(mode="json")
    return plain | {SEAL: digest_json(plain)}


def read_description(folder: Path) -> ModelDescription:
    """What an exported folder says of its model.

    Raises:
        ExportError: the folder holds no model that edpipe exported, or one of another version.
        CorruptFileError: its config.json is damaged, or what edpipe wrote there was altered.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ExportError(f"{folder}: holds no {CONFIG}; name a folder that `edpipe export` has written")
    section = read_json_object(path).get(SECTION)
    if not isinstance(section, dict) or section.get("format") != MODEL_FORMAT:
        raise ExportError(f"{path}: no model of edpipe; name a folder that `edpipe export` has written")
    if section.get("format_version") != MODEL_FORMAT_VERSION:
        raise ExportError(
            f"{path}: format version {section.get('format_version')!r}, this edpipe reads {MODEL_FORMAT_VERSION}; "
            "export the student again"
        )
    if not is_sealed(section):
        raise CorruptFileError(f"{path}: '{SECTION}' was altered since written; export the student again")
    try:
        return ModelDescription.model_validate_json(json.dumps(without_seal(section)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, (SECTION, *first["loc"])))
        raise CorruptFileError(f"{path}: {where}: {first['msg']}; export the student again") from error
