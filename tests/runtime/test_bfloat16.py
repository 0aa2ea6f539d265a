"""A CPU that is slow in bfloat16 is named: by plan, and by the step itself."""

from dataclasses import replace

import pytest
import torch

from edpipe.cli import run_step
from edpipe.params.recipe import RecipeKnobs
from edpipe.pipeline.estimates import summary
from edpipe.pipeline.estimates.network_speed import NetworkSpeed, NetworkSpeeds, NetworkUse
from edpipe.pipeline.estimates.summary import Estimate
from edpipe.pipeline.jobs import data, teachers
from edpipe.runtime.bfloat16 import INSTRUCTIONS, is_slow_here, lacks_instructions
from tests.support.pretended import params_with

LINE = (
    "bfloat16: this CPU has no instructions for bfloat16 (AVX-512), so that float32 is several times as fast; write "
    "`precision: float32` into the recipe"
)


@pytest.fixture
def on_cpu(monkeypatch):
    """Sets what the CPU can do."""
    monkeypatch.setenv("EDPIPE_DEVICE", "cpu")

    def use(**capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **capabilities})

    return use


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_one_of_the_instructions_is_enough(name):
    others = dict.fromkeys(INSTRUCTIONS, False)
    assert lacks_instructions({"architecture": "x86_64", **others})
    assert not lacks_instructions({"architecture": "x86_64", **others, name: True})


def test_of_other_processors_nothing_is_said():
    assert not lacks_instructions({"architecture": "aarch64"})
    assert not lacks_instructions({})


def test_this_machine_has_the_keys():
    found = torch.cpu.get_capabilities()
    assert found["architecture"] != "x86_64" or set(INSTRUCTIONS) <= set(found)


def test_a_gpu_is_not_slow(on_cpu, monkeypatch):
    on_cpu()
    assert is_slow_here()
    monkeypatch.setenv("EDPIPE_DEVICE", "cuda")
    assert not is_slow_here()
    monkeypatch.delenv("EDPIPE_DEVICE")
    for has_gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert is_slow_here() is not has_gpu


def planned(precision):
    speeds = NetworkSpeeds()
    speeds.used[NetworkUse("resnet8", 10, 1, 8, 16, precision)] = NetworkSpeed(1.0, 1.0, 1, "cpu", ())
    return list(summary.lines_of(Estimate({}, {}, (), 0.0, 0.0, 2, 0), [], speeds))


def test_plan_says_it_of_recipes_in_bfloat16_alone(on_cpu):
    on_cpu()
    assert planned("bfloat16")[-1] == LINE
    assert LINE not in planned("float32")
    on_cpu(avx512_bw=True)
    assert LINE not in planned("bfloat16")


@pytest.mark.parametrize(("precision", "is_said"), [("bfloat16", True), ("float32", False)])
def test_a_training_says_it_before_it_begins(on_cpu, capsys, precision, is_said):
    on_cpu()
    job = teachers.make_teacher(params_with(), "digits", "digits_teacher", "all")
    recipe = RecipeKnobs.model_validate({"precision": precision})
    run_step._warn_of_precision(replace(job, knobs=replace(job.knobs, recipe=recipe)))
    assert capsys.readouterr().err == (f"warning: {LINE}\n" if is_said else "")


def test_a_step_without_a_recipe_says_nothing(on_cpu, capsys):
    on_cpu()
    run_step._warn_of_precision(data.pack_dataset(params_with(), "digits"))
    assert capsys.readouterr().err == ""
