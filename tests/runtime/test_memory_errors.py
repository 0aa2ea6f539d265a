"""Memory that runs out is one line with a remedy; other errors of the same kinds are none."""

import sys

import numpy as np
import pytest
import torch

from edpipe.cli.main import main
from edpipe.runtime.memory_errors import line_about_memory

TOO_MUCH = 10**15
GPU_LINE = (
    "the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB.); end other programs that use it, share "
    "the training with EDPIPE_PROCESSES, or give the recipe a smaller batch_size, then run the same command again"
)
GPU_TEXT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."
)


def raised(act):
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_memory_that_torch_asks_for_in_vain():
    line = line_about_memory(raised(lambda: torch.empty(TOO_MUCH)))
    assert line is not None
    assert line.startswith("the memory of this machine is full (")
    assert f"you tried to allocate {4 * TOO_MUCH} bytes" in line
    assert line.endswith("run fewer jobs at once (`snakemake --cores 1`), then run the same command again")


def test_the_memory_that_numpy_asks_for_in_vain():
    line = line_about_memory(raised(lambda: np.empty(TOO_MUCH)))
    assert line is not None
    assert line.startswith("the memory of this machine is full (Unable to allocate 7.11 PiB")
    assert line_about_memory(MemoryError()).startswith("the memory of this machine is full; end")


def test_the_memory_of_a_gpu():
    assert line_about_memory(torch.OutOfMemoryError(GPU_TEXT)) == GPU_LINE
    assert line_about_memory(RuntimeError(GPU_TEXT)) == GPU_LINE
    apples = "MPS backend out of memory (MPS allocated: 1 GB). Tried to allocate 2.00 GB on private pool."
    assert "(MPS backend out of memory (MPS allocated: 1 GB). Tried" in line_about_memory(RuntimeError(apples))


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError(GPU_TEXT), OSError("memory")])
def test_other_errors_are_none(error):
    assert line_about_memory(error) is None


def test_without_torch_a_gpu_is_not_asked_about(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert line_about_memory(RuntimeError("something else")) is None
    assert line_about_memory(MemoryError()) is not None


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "the memory of"), (torch.OutOfMemoryError(GPU_TEXT), GPU_LINE)]
)
def test_a_command_ends_with_one_line_and_exit_code_2(error, said, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr("edpipe.cli.commands.check.load_params", fail)
    assert main(["check"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"edpipe: {said}")


def test_another_error_of_the_program_keeps_its_traceback(monkeypatch):
    def fail():
        raise RuntimeError("a bug")

    monkeypatch.setattr("edpipe.cli.commands.check.load_params", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["check"])
