"""`edpipe.load_student`."""

from os import PathLike

from edpipe.export.network import LoadedStudent
from edpipe.export.open_model import load


def load_student(source: str | PathLike[str], seed: int | None = None) -> LoadedStudent:
    """A finished student as a module of torch on the CPU, in evaluation mode.

    `student.classes` has the name of each output; `student.transform(image)` makes the input of an image of Pillow,
    float32, channel × height × width, with the pixels that the pipeline's evaluation sees. `student(images)` gives
    logits in float32 of normalised images, sample × channel × height × width, in the precision of the evaluation.
    `student.network` is the plain network.

    Args:
        source: `results/<experiment>.json`, the name of an experiment of this folder, or a folder that `edpipe export`
            has written (with safetensors or torch).
        seed: one of the experiment's; None: its first, which nothing that was measured has chosen.

    Raises:
        UsageError: there is no such model or seed.
        ExportError: a folder that holds no such model.
        CorruptFileError: a file is missing, or not the one that was written.
        MismatchError: two files do not belong together.
    """
    return load(str(source), seed)
