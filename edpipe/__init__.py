"""Education Distillation as a cached, resumable, shareable pipeline."""

__version__ = "0.1.0"
