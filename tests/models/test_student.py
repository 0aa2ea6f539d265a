import copy

import pytest
import torch
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.splitting.split import split
from edpipe.models.students.auxiliary import AttentionMaps, AuxiliaryStudent, earlier_references
from edpipe.models.students.student import REFERENCE_PREFIX, Student, grow
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)


def make_student(level, model="resnet8", num_outputs=6, reference="adapter", network_seed=0, num_levels=3, seed=0):
    network = build_network(model, num_classes=6, channels=1, seed=network_seed)
    return Student(network, level, num_levels, num_outputs, reference, image_size=32, channels=1, seed=seed)


def images(num_samples=4):
    return torch.randn(num_samples, 1, 32, 32, generator=torch.Generator().manual_seed(3))


def used(student):
    """The student's weights after a forward pass in training mode has moved its BN buffers."""
    student(images())
    return {name: value.clone() for name, value in student.weights().items()}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet8", "timm:resnet18", "torchvision:resnet18"])
def test_the_last_level_is_exactly_the_plain_network(model):
    student = make_student(3, model)
    plain = build_network(model, num_classes=6, channels=1, seed=0)
    assert list(student.weights()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(student.weights()[name], value)
    assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in plain.parameters())
    with torch.no_grad():
        assert torch.equal(student.eval()(images()), plain.eval()(images()))


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["adapter", "linear"])
@pytest.mark.parametrize("level", [1, 2])
def test_earlier_levels_have_the_networks_names_and_a_reference(level, reference):
    student = make_student(level, num_outputs=4, reference=reference)
    plain = build_network("resnet8", num_classes=6, channels=1, seed=0).state_dict()
    body = {name: value for name, value in student.weights().items() if not name.startswith(REFERENCE_PREFIX)}
    expected = [name for block in split(build_network("resnet8", 6, 1, 0), 3)[0][:level] for name in block.weights()]
    assert list(body) == expected
    assert all(torch.equal(value, plain[name]) for name, value in body.items())
    assert "reference.fc.weight" in student.weights()
    assert ("reference.adapter.weight" in student.weights()) == (reference == "adapter")
    assert student(images()).shape == (4, 4)


def test_a_student_holds_no_parameter_it_does_not_use():
    student = make_student(1)
    student(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_weights_cover_everything_that_a_student_has():
    for level in (1, 2, 3):
        student = make_student(level)
        own = {value.data_ptr() for value in student.state_dict().values()}
        assert {value.data_ptr() for value in student.weights().values()} == own


def test_the_adapter_leads_to_the_width_of_the_last_block():
    assert make_student(1).weights()["reference.adapter.weight"].shape == (64, 16, 1, 1)
    assert make_student(1, reference="linear").weights()["reference.fc.weight"].shape == (6, 16)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet8", "timm:convnext_atto"])
@pytest.mark.parametrize("level", [2, 3])
def test_growing_inherits_the_body_bit_for_bit(model, level):
    before = used(make_student(level - 1, model, num_outputs=3, network_seed=1))
    student = make_student(level, model, network_seed=2)
    fresh = {name: value.clone() for name, value in student.weights().items()}
    grow(before, student, level - 1)
    body = {name for name in before if not name.startswith(REFERENCE_PREFIX)}
    assert body == {name for block in student.block_weights[: level - 1] for name in block}
    for name, value in student.weights().items():
        assert torch.equal(value, before[name] if name in body else fresh[name])


def test_growing_inherits_moved_batch_norm_buffers():
    before = used(make_student(1))
    student = make_student(2)
    grow(before, student, 1)
    assert student.weights()["bn1.num_batches_tracked"] == 1
    assert torch.equal(student.weights()["bn1.running_mean"], before["bn1.running_mean"])
    assert before["bn1.running_mean"].abs().sum() > 0


def test_growing_needs_every_weight_of_the_body():
    before = make_student(1).weights()
    del before["conv1.weight"]
    with pytest.raises(
        ValueError, match=r"do not fit the inherited body: 1 missing \(first \['conv1.weight'\]\), 0 unexp"
    ):
        grow(before, make_student(2), 1)


def test_growing_from_fewer_blocks_than_said_is_an_error():
    with pytest.raises(ValueError, match=r"inherited body: \d+ missing"):
        grow(make_student(1).weights(), make_student(3), 2)


def test_growing_by_two_blocks_at_once_inherits_the_first():
    before, student = used(make_student(1, network_seed=1)), make_student(3, network_seed=2)
    fresh = student.weights()["layer3.0.conv1.weight"].clone()
    grow(before, student, 1)
    assert torch.equal(student.weights()["conv1.weight"], before["conv1.weight"])
    assert torch.equal(student.weights()["layer3.0.conv1.weight"], fresh)


@pytest.mark.parametrize("level", [2, 3])
def test_as_many_blocks_as_before_are_taken_over_whole(level):
    before, student = used(make_student(level, network_seed=1, seed=1)), make_student(level, network_seed=2)
    grow(before, student, level)
    assert list(student.weights()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in student.weights().items())


def test_a_reference_of_other_outputs_is_drawn_anew():
    before, student = used(make_student(2, num_outputs=4, network_seed=1)), make_student(2, network_seed=2)
    fresh = {name: value.clone() for name, value in student.weights().items()}
    grow(before, student, 2)
    for name, value in student.weights().items():
        assert torch.equal(value, fresh[name] if name.startswith(REFERENCE_PREFIX) else before[name])


@pytest.mark.slow
def test_growing_from_another_width_is_an_error_and_changes_nothing():
    student = make_student(2)
    before = {name: value.clone() for name, value in student.weights().items()}
    message = r"inherited body: conv1.weight is torch.float32 \(32, 1, 3, 3\), expected torch.float32 \(16, 1, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        grow(make_student(1, "resnet8x2").weights(), student, 1)
    assert all(torch.equal(value, before[name]) for name, value in student.weights().items())


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 3])
def test_loaded_weights_come_back(level):
    weights = used(make_student(level, network_seed=1, seed=1))
    student = make_student(level)
    student.load(weights)
    assert all(torch.equal(value, weights[name]) for name, value in student.weights().items())


def test_loading_is_strict():
    weights = make_student(2).weights()
    with pytest.raises(ValueError, match=r"do not fit the student: 0 missing \(first \[\]\), \d+ unexpected"):
        make_student(1).load(weights)
    weights["fc.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"0 missing .* 1 unexpected .*fc.weight"):
        make_student(2).load(weights)


def test_the_reference_depends_on_its_seed_alone():
    first, again, other = (make_student(1, network_seed=i, seed=s).weights() for i, s in ((0, 4), (1, 4), (0, 5)))
    assert torch.equal(first["reference.fc.weight"], again["reference.fc.weight"])
    assert not torch.equal(first["reference.fc.weight"], other["reference.fc.weight"])


def test_making_a_student_leaves_the_generator_and_buffers_alone():
    before = torch.get_rng_state()
    weights = make_student(2).weights()
    assert torch.equal(torch.get_rng_state(), before)
    assert weights["bn1.num_batches_tracked"] == 0
    assert weights["reference.bn.num_batches_tracked"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("model", ["resnet8", "timm:convnext_atto"])
def test_bfloat16_and_channels_last_work(level, model):
    student = make_student(level, model).to(memory_format=torch.channels_last)
    plain = student.eval()(images()).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = student(images().to(memory_format=torch.channels_last))
    logits.float().sum().backward()
    assert logits.shape == (4, 6)
    assert (logits.float() - plain).abs().max() <= 0.05 * (1 + plain.abs().max())


def test_a_single_level_takes_any_network_whole():
    network = build_network("timm:vit_tiny_patch16_224", num_classes=3, channels=3, seed=0)
    student = Student(network, 1, 1, 3, "adapter", image_size=224, channels=3, seed=0)
    assert student.weights().keys() == network.state_dict().keys()


def test_a_network_without_feature_stages_is_an_error():
    network = build_network("timm:vit_tiny_patch16_224", num_classes=3, channels=3, seed=0)
    with pytest.raises(NetworkError, match=r"vit_tiny.*cannot be split into blocks"):
        Student(network, 1, 2, 3, "adapter", image_size=224, channels=3, seed=0)


def test_images_the_network_cannot_take_are_an_error():
    with pytest.raises(NetworkError, match=r"model 'resnet8': cannot take images of 3×16×16"):
        Student(build_network("resnet8", 3, 1, 0), 1, 2, 3, "adapter", image_size=16, channels=3, seed=0)


@pytest.mark.parametrize("level", [0, 4])
def test_a_level_outside_the_school_is_an_error(level):
    with pytest.raises(ValueError, match=rf"level must be in 1..3, got {level}"):
        make_student(level)


def test_the_last_level_cannot_have_other_outputs_than_the_network():
    with pytest.raises(ValueError, match="the network's own 6 outputs, but 5 were asked for"):
        make_student(3, num_outputs=5)


def test_students_of_every_level_are_modules_to_train():
    for level in (1, 2, 3):
        student = make_student(level)
        assert all(module.training for module in student.modules())
        assert not any(module.training for module in student.eval().modules() if isinstance(module, nn.BatchNorm2d))


def test_a_copy_of_a_student_with_auxiliaries_reads_its_own_features():
    network = build_network("resnet8", num_classes=6, channels=1, seed=0)
    student = Student(network, 2, 3, 6, "adapter", 32, 1, 0)
    earlier = earlier_references(network, 3, "adapter", {1: 4}, (1, 32), 0)
    first = AuxiliaryStudent(student, AttentionMaps(network, student), earlier).eval()
    mean = copy.deepcopy(first)  # as a running mean of the weights is made
    before = first(images())
    with torch.no_grad():
        mean.earlier[0].fc.weight.zero_()
        next(mean.student.body.parameters()).zero_()
    own, again = mean(images()), first(images())
    assert torch.equal(own.earlier[0], mean.earlier[0].fc.bias.expand(4, 4))
    assert not own.side[0].equal(before.side[0])
    assert all(map(torch.equal, (*again.side, *again.earlier), (*before.side, *before.earlier)))
