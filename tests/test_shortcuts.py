"""Students that take their reference over: grown, they say what they said before."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from edpipe.errors import NetworkError, ParamsError
from edpipe.models.shortcuts import shortcut_reference, silence
from edpipe.models.split import split
from edpipe.models.student import Student, grow_on_shortcuts
from edpipe.models.zoo import BasicBlock, build_network
from edpipe.params.load import load_raw, parse_params

torch.set_num_threads(1)
RAW = load_raw(Path(__file__).resolve().parent.parent / "params.yaml")
NETWORKS = [("resnet8", 28), ("resnet20", 32), ("timm:resnet18", 64), ("torchvision:resnet18", 64)]


def make_student(level, model="resnet8", side=28, num_outputs=6, seed=0, reference="shortcut"):
    network = build_network(model, num_classes=6, channels=3, seed=seed)
    return Student(network, level, 3, num_outputs, reference, side, 3, seed)


def images(side):
    return torch.rand((4, 3, side, side), generator=torch.Generator().manual_seed(1))


def taught(student, side):
    """Its weights after some steps of training, so that nothing is as it was drawn."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        student(images(side)).square().mean().backward()
        optimizer.step()
    return {name: value.clone() for name, value in student.weights().items()}


@pytest.mark.parametrize(("model", "side"), NETWORKS)
def test_grown_student_says_what_the_smaller_one_said(model, side):
    for level in (1, 2):
        small, large = make_student(level, model, side), make_student(level + 1, model, side, seed=5)
        if level == 2:
            grow_on_shortcuts(taught(make_student(1, model, side), side), small)
        grow_on_shortcuts(taught(small, side), large)
        for is_training in (False, True):
            with torch.no_grad():
                said = [student.train(is_training)(images(side)) for student in (small, large)]
            torch.testing.assert_close(said[1], said[0])


def test_last_level_has_the_names_of_the_network_and_all_of_them_learn():
    student = make_student(3)
    grow_on_shortcuts(taught(make_student(2), 28), student)
    assert list(student.weights()) == list(build_network("resnet8", 6, 3, 0).state_dict())
    taught(student, 28)  # the first step teaches a silent block to count, the second all that is in it
    assert [name for name, value in student.named_parameters() if not value.grad.any()] == []


def test_a_first_level_of_resnet8_has_the_shortcuts_and_the_head_alone():
    student = make_student(1)
    names = [name for name in student.weights() if name.startswith("reference.") and "num_batches" not in name]
    norm = ("weight", "bias", "running_mean", "running_var")
    blocks = ["reference.layer2.0.downsample", "reference.layer3.0.downsample"]
    expected = [name for block in blocks for name in (f"{block}.0.weight", *(f"{block}.1.{part}" for part in norm))]
    assert names == [*expected, "reference.fc.weight", "reference.fc.bias"]


def test_a_silent_block_is_its_shortcut_by_hand():
    block = BasicBlock(2, 2, 1)
    silence(block)
    features = torch.rand((1, 2, 4, 4))
    assert torch.equal(block.eval()(features), features)  # no projection, and nothing below zero for ReLU to cut off


def test_weights_of_another_level_are_refused_and_nothing_changes():
    student = make_student(3)
    before = copy.deepcopy(student.weights())
    with pytest.raises(ValueError, match="weights do not fit the grown student"):
        grow_on_shortcuts(make_student(1).weights(), student)
    assert all(torch.equal(value, before[name]) for name, value in student.weights().items())


def test_an_adapter_cannot_be_taken_over():
    with pytest.raises(ValueError, match="weights do not fit the grown student"):
        grow_on_shortcuts(make_student(1, reference="adapter").weights(), make_student(2))


def test_fewer_outputs_than_the_network_has_are_refused():
    with pytest.raises(ValueError, match="the network's own 6 outputs, not 4"):
        make_student(1, num_outputs=4)


@pytest.mark.parametrize(
    ("model", "block"), [("torchvision:vgg11_bn", "MaxPool2d"), ("timm:convnext_atto", "ConvNeXtStage")]
)
def test_networks_without_shortcuts_are_refused(model, block):
    with pytest.raises(NetworkError, match=rf"\({block}\) is not a residual block .*; use reference: adapter"):
        make_student(1, model, 64)


class Doubled(BasicBlock):
    """Looks like a residual block, and is more than its shortcut when it is silent."""

    def forward(self, features):
        return 2 * super().forward(features)


def test_a_block_that_only_looks_residual_is_refused():
    network = build_network("resnet8", 6, 3, 0)
    network.layer3[0].__class__ = Doubled
    blocks, head = split(network, 3)
    with pytest.raises(NetworkError, match=r"'layer3\.0' \(Doubled\) is not a residual block"):
        shortcut_reference(blocks[2:], head)


def test_the_modules_are_the_networks_own():
    network = build_network("resnet8", 6, 3, 0)
    blocks, head = split(network, 3)
    reference = shortcut_reference(blocks[1:], head)
    assert {id(p) for p in reference.parameters()} <= {id(p) for p in network.parameters()}
    assert isinstance(reference.links[-1], nn.Linear)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"lessons": "growing"}, "got lessons: growing, references: replaced"),
        ({"references": "kept"}, "references: kept"),
    ],
)
def test_knobs_that_do_not_go_with_it_are_one_line(knobs, said):
    raw = copy.deepcopy(RAW)
    raw["students"]["resnet8"]["reference"] = "shortcut"
    raw["experiments"]["digits_ed"]["method"] |= {"lessons": "all"} | knobs
    with pytest.raises(
        ParamsError, match=rf"experiments\.\w+\.method: a student whose reference is 'shortcut'.*{said}"
    ):
        parse_params(raw)
