"""The student as an ONNX file: written, run by onnxruntime, and made of 8-bit integers."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from edpipe.errors import CorruptFileError, ExportError
from edpipe.export.description import ModelDescription
from edpipe.export.network import ImageTransform
from edpipe.models.probe import one_line
from edpipe.runtime.threads import num_threads

INPUT, OUTPUT = "pixel_values", "logits"
"""Names of the graph's input, normalised float32 images, and of its output."""
WRITERS = ("onnx", "onnxscript", "onnxruntime")
READERS = ("onnxruntime",)


def need(packages: Sequence[str]) -> None:
    """That optional packages can be imported.

    Raises:
        ExportError: naming those that cannot, and how to install them.
    """
    missing = [name for name in packages if not _is_there(name)]
    if missing:
        raise ExportError(
            f"onnx: needs {' and '.join(missing)}, not installed here; `pip install {' '.join(missing)}`, or "
            "`pip install 'edpipe[onnx]'`"
        )


def _is_there(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes the graph, for batches of any size, all weights in the one file.

    Raises:
        ExportError: an operator has no form in ONNX.
    """
    try:
        # Its lines on what it does are no news to anybody here.
        logging.disable(logging.WARNING)
        written = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    except Exception as error:  # torch and onnxscript raise many kinds
        raise ExportError(f"torch.onnx cannot write the network ({one_line(error)}); export safetensors") from error
    finally:
        logging.disable(logging.NOTSET)
    assert written is not None, "dynamo=True gives a program"
    written.save(path, external_data=False)


class OnnxPredictor:
    """An ONNX file, run by onnxruntime on the CPU."""

    def __init__(self, path: Path, description: ModelDescription) -> None:
        """Reads the file.

        Raises:
            ExportError: onnxruntime is not installed.
            CorruptFileError: it cannot read the file.
        """
        need(READERS)
        self.description = description
        self._session = _session(path)
        self._transform = ImageTransform(description.preprocessing)

    def logits(self, pixels: UInt8[Tensor, "sample channel height width"]) -> Float32[np.ndarray, "sample class"]:
        """Logits of a batch."""
        return self._session.run([OUTPUT], {INPUT: _plain(self._transform.normalised(pixels.cpu()))})[0]


def _session(path: Path) -> Any:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, of many kinds
        raise CorruptFileError(
            f"{path}: onnxruntime cannot read it ({one_line(error)}); export the student again"
        ) from error


def _plain(
    images: Float32[Tensor, "sample channel height width"],
) -> Float32[np.ndarray, "sample channel height width"]:
    return images.contiguous().numpy()


def quantise(source: Path, path: Path, batches: Iterator[Float32[Tensor, "sample channel height width"]]) -> None:
    """Writes the graph with 8-bit weights, one scale for each output channel, and 8-bit activations.

    Args:
        source: the graph in float32.
        path: where to write.
        batches: normalised images of the train split, from which the range of each activation is measured.

    Raises:
        ExportError: onnxruntime cannot quantise the graph.
    """
    quantization: Any = import_module("onnxruntime.quantization")
    preparation: Any = import_module("onnxruntime.quantization.shape_inference")
    with tempfile.TemporaryDirectory(prefix="edpipe-int8-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        logging.disable(logging.WARNING)
        try:
            preparation.quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                path,
                _calibration(quantization, batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # onnxruntime's own, of many kinds
            raise ExportError(f"int8: onnxruntime cannot quantise the network ({one_line(error)})") from error
        finally:
            logging.disable(logging.NOTSET)


def _calibration(quantization: Any, batches: Iterator[Float32[Tensor, "sample channel height width"]]) -> Any:
    """Batches in the form that onnxruntime asks for, whose class must be the base."""

    class Batches(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(batches, None)
            return None if images is None else {INPUT: _plain(images)}

    return Batches()
