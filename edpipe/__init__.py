"""Education Distillation as a cached, resumable, shareable pipeline.

What is in `__all__` is public and follows semantic versioning (docs/python_api.md); all else may change at any time.
Each public name is imported when it is first used, so that `import edpipe` itself needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edpipe.api.soft_label_dataset import SoftLabelDataset as SoftLabelDataset
    from edpipe.api.soft_label_writer import SoftLabelWriter as SoftLabelWriter
    from edpipe.api.student import load_student as load_student
    from edpipe.datasets.raw import RawDataset as RawDataset
    from edpipe.datasets.raw import RawSample as RawSample
    from edpipe.errors import EdpipeError as EdpipeError
    from edpipe.losses.stage_terms import StageOutputs as StageOutputs
    from edpipe.losses.stage_terms import TeacherPair as TeacherPair
    from edpipe.params.plans.loss import StageLoss as StageLoss
    from edpipe.params.plans.loss import Stored as Stored
    from edpipe.params.plans.loss import TeacherLoss as TeacherLoss
    from edpipe.params.plans.method import Method as Method
    from edpipe.params.plans.method import SingleTeacherMethod as SingleTeacherMethod
    from edpipe.params.plans.plugins import network as network
    from edpipe.params.plans.plugins import reader as reader

__version__ = "0.1.0"
__all__ = [
    "EdpipeError",
    "Method",
    "RawDataset",
    "RawSample",
    "SingleTeacherMethod",
    "SoftLabelDataset",
    "SoftLabelWriter",
    "StageLoss",
    "StageOutputs",
    "Stored",
    "TeacherLoss",
    "TeacherPair",
    "__version__",
    "load_student",
    "network",
    "reader",
]

_PUBLIC = {
    "EdpipeError": "edpipe.errors.EdpipeError",
    "Method": "edpipe.params.plans.method.Method",
    "RawDataset": "edpipe.datasets.raw.RawDataset",
    "RawSample": "edpipe.datasets.raw.RawSample",
    "SingleTeacherMethod": "edpipe.params.plans.method.SingleTeacherMethod",
    "StageLoss": "edpipe.params.plans.loss.StageLoss",
    "StageOutputs": "edpipe.losses.stage_terms.StageOutputs",
    "Stored": "edpipe.params.plans.loss.Stored",
    "TeacherLoss": "edpipe.params.plans.loss.TeacherLoss",
    "TeacherPair": "edpipe.losses.stage_terms.TeacherPair",
    "load_student": "edpipe.api.student.load_student",
    "network": "edpipe.params.plans.plugins.network",
    "reader": "edpipe.params.plans.plugins.reader",
    "SoftLabelDataset": "edpipe.api.soft_label_dataset.SoftLabelDataset",
    "SoftLabelWriter": "edpipe.api.soft_label_writer.SoftLabelWriter",
}
"""Where each public name is defined."""


if not TYPE_CHECKING:  # else type checkers would accept any name

    def __getattr__(name: str) -> object:
        """A public name, imported when it is first used."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'edpipe' has no attribute '{name}'; public are {', '.join(__all__)}")
        module, _, attribute = _PUBLIC[name].rpartition(".")
        globals()[name] = getattr(import_module(module), attribute)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
