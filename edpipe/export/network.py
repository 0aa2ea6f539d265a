"""A finished student as a torch module, and as what predicts: pixels in, logits out, as the pipeline evaluates."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from edpipe.errors import CorruptFileError, ExportError, MismatchError
from edpipe.export.description import ModelDescription, Preprocessing
from edpipe.export.images import pixels_of_image
from edpipe.models.forward import forward
from edpipe.models.probe import one_line
from edpipe.models.students.student import student_weights
from edpipe.models.zoo.build import build_network
from edpipe.runtime.device import prepare_device
from edpipe.views.pixels import normalise


@runtime_checkable
class Predictor(Protocol):
    """A model in some format."""

    description: ModelDescription

    def logits(self, pixels: UInt8[Tensor, "sample channel height width"]) -> Float32[np.ndarray, "sample class"]:
        """Logits of a batch of squares as `image_batches` and `ViewBatches.plain` give them."""
        ...


class ImageTransform:
    """Makes a network's input of an image, as packing and evaluation do; can be pickled for loader processes."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, image: Image.Image) -> Float32[Tensor, "channel height width"]:
        """The normalised pixels of one image of any size and mode.

        Raises:
            UnreadableImageError: it cannot be used, for example since it is damaged.
        """
        return self.normalised(pixels_of_image(image, self.preprocessing)[None])[0]

    def normalised(
        self, pixels: UInt8[Tensor, "sample channel height width"]
    ) -> Float32[Tensor, "sample channel height width"]:
        """A batch of squares, normalised."""
        return normalise(pixels, self.preprocessing.mean, self.preprocessing.std)


class LoadedStudent(nn.Module):
    """A finished student, in evaluation mode.

    Attributes:
        network: The plain network, for example of timm.
        classes: Name of each output.
        transform: Makes its input of an image of Pillow.
        description: What else is known of it.
    """

    def __init__(self, network: nn.Module, description: ModelDescription) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.classes = description.classes
        self.transform = ImageTransform(description.preprocessing)

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample class"]:
        """Logits in float32, computed in the precision with which the student was evaluated.

        Args:
            images: normalised, as `transform` gives them.
        """
        return forward(self.network, images.contiguous(memory_format=torch.channels_last), self.description.recipe)


class TorchPredictor:
    """A module of torch, on the device that the environment names."""

    def __init__(self, network: nn.Module, description: ModelDescription) -> None:
        self.description = description
        self._device = prepare_device()
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._transform = ImageTransform(description.preprocessing)

    def logits(self, pixels: UInt8[Tensor, "sample channel height width"]) -> Float32[np.ndarray, "sample class"]:
        """Logits of a batch."""
        with torch.inference_mode():
            images = self._transform.normalised(pixels.to(self._device))
            return forward(self._network, images, self.description.recipe).cpu().numpy()


def network_with(description: ModelDescription, weights: Mapping[str, Tensor], origin: object) -> nn.Module:
    """The network with these weights, on the CPU, in evaluation mode.

    Raises:
        MismatchError: the weights are those of another network; the line begins with `origin`.
        NetworkError: the network is unknown.
    """
    network = build_network(description.model, len(description.classes), description.preprocessing.channels, 0)
    try:
        network.load_state_dict(student_weights(weights))
    except RuntimeError as error:
        raise MismatchError(f"{origin}: weights do not fit '{description.model}' ({one_line(error)})") from error
    return network.to(memory_format=torch.channels_last).eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Weights by name.

    Raises:
        CorruptFileError: no file of that format.
    """
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path}: not a safetensors file ({error}); export the student again") from error


def read_program(path: Path) -> torch.export.ExportedProgram:
    """A file that torch.export has written: graph and weights, without edpipe's or timm's code.

    Raises:
        CorruptFileError: this torch cannot read it.
    """
    try:
        return torch.export.load(path)
    except Exception as error:  # of torch, zipfile, json and pickle
        raise CorruptFileError(
            f"{path}: torch {torch.__version__} cannot load it ({one_line(error)}); export the student again"
        ) from error


def program_of(
    network: nn.Module, images: Float32[Tensor, "sample channel height width"]
) -> torch.export.ExportedProgram:
    """The network as a graph of torch's operators, for batches of any size.

    Args:
        network: on the CPU, in evaluation mode; it stays as it is.
        images: two or more of the size that it is for.

    Raises:
        ExportError: torch cannot follow the network.
    """
    # With other memory formats torch.export.save does not see a whole tensor.
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises many kinds for code that it cannot follow
        raise ExportError(f"torch.export cannot follow the network ({one_line(error)}); export safetensors") from error
