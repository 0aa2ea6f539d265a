"""The networks of the papers on CIFAR: what they cost, what their weights are called, and what they compute."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import shufflenetv2 as torchvision_shufflenetv2

from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.splitting.chain import map_shapes
from edpipe.models.splitting.split import split
from edpipe.models.students.student import Student
from edpipe.models.students.teskd_branches import TeskdNetwork
from edpipe.models.zoo.build import build_network
from edpipe.models.zoo.forms import MAX_WIDTH_FACTOR, WIDE_DEPTHS, own_form
from edpipe.models.zoo.layers import ChannelShuffle
from edpipe.models.zoo.names import OWN_MODELS, is_known
from edpipe.models.zoo.vgg import LatePool

torch.set_num_threads(1)

PUBLISHED = {
    "resnet8": 0.08,
    "resnet20": 0.28,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "wrn_16_1": 0.18,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
    "vgg8": 3.96,
    "vgg13": 9.46,
    "mobilenetv2": 0.81,
    "shufflenetv1": 0.95,
    "shufflenetv2": 1.36,
    "cifar_resnet50": 23.71,
}
"""Millions of parameters for 100 classes: tables of papers whose networks are RepDistiller's, with two decimals."""
STAGES = {
    "wrn_16_1": [(16, 32), (32, 16), (64, 8)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "mobilenetv2": [(12, 16), (16, 8), (48, 4), (1280, 2)],
    "shufflenetv1": [(240, 16), (480, 8), (960, 4)],
    "shufflenetv2": [(116, 16), (232, 8), (1024, 4)],
}
"""Channels and side of each stage's maps for images of 32×32."""
SMALL = tuple(STAGES)


def build(model, num_classes=100, channels=3):
    return build_network(model, num_classes, channels, seed=0)


def convolution(before, after, kernel, groups=1):
    """Weights of a convolution without bias and of the normalisation behind it."""
    return kernel**2 * before * after // groups + 2 * after


def wrn_by_hand(depth, factor, classes):
    total, before = 3 * 16 * 9, 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        for _ in range((depth - 4) // 6):
            total += 2 * before + 9 * before * width + 2 * width + 9 * width * width
            total += before * width if before != width else 0
            before = width
    return total + 2 * before + before * classes + classes


def vgg_by_hand(layers, classes):
    pairs = itertools.pairwise((3, *layers))
    return sum(convolution(before, after, 3) + after for before, after in pairs) + 512 * classes + classes


def mobilenet_by_hand(classes):
    total, before = convolution(3, 16, 3), 16
    rows = ((1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1))
    for expansion, width, blocks in rows:
        for _ in range(blocks):
            hidden = expansion * before
            total += convolution(before, hidden, 1) + convolution(hidden, hidden, 3, hidden)
            total += convolution(hidden, width, 1)
            before = width
    return total + convolution(160, 1280, 1) + 1280 * classes + classes


def shufflenet_by_hand(classes):
    total, before = convolution(3, 24, 1), 24
    for width, blocks in ((240, 4), (480, 8), (960, 4)):
        for block in range(blocks):
            own = width - before if block == 0 else width
            hidden = own // 4
            total += convolution(before, hidden, 1, 1 if before == 24 else 3)
            total += convolution(hidden, hidden, 3, hidden) + convolution(hidden, own, 1, 3)
            before = width
    return total + 960 * classes + classes


@pytest.mark.slow
@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_are_the_published_ones(model):
    assert count_parameters(build(model)) / 1e6 == pytest.approx(PUBLISHED[model], abs=0.006)


@pytest.mark.parametrize(("depth", "factor"), [(10, 3), (16, 1), (16, 2), (40, 1), (40, 2)])
def test_parameters_of_wide_networks_agree_with_the_sum_over_layers(depth, factor):
    assert count_parameters(build(f"wrn_{depth}_{factor}", 10)) == wrn_by_hand(depth, factor, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("vgg8", (64, 128, 256, 512, 512)),
        ("vgg11", (64, 128, 256, 256, 512, 512, 512, 512)),
        ("vgg13", (64, 64, 128, 128, 256, 256, 512, 512, 512, 512)),
        ("vgg16", (64, 64, 128, 128, *3 * [256], *6 * [512])),
        ("vgg19", (64, 64, 128, 128, *4 * [256], *8 * [512])),
    ],
)
def test_parameters_of_vgg_agree_with_the_sum_over_layers(model, layers):
    assert count_parameters(build(model)) == vgg_by_hand(layers, 100)


def test_parameters_of_mobile_networks_agree_with_the_sum_over_layers():
    assert count_parameters(build("mobilenetv2")) == mobilenet_by_hand(100) == 812_836
    assert count_parameters(build("shufflenetv1")) == shufflenet_by_hand(100) == 949_258


def test_parameters_of_shufflenetv2_are_torchvisions_but_for_the_stem():
    theirs = count_parameters(build("torchvision:shufflenet_v2_x1_0"))
    assert count_parameters(build("shufflenetv2")) == theirs - 3 * 24 * 8


@pytest.mark.slow
def test_parameters_of_the_bottleneck_network_are_torchvisions_but_for_the_stem():
    theirs = count_parameters(build("torchvision:resnet50"))
    assert count_parameters(build("cifar_resnet50")) == theirs - 3 * 64 * (49 - 9)


def test_macs_of_wrn_16_1_agree_with_arithmetic():
    stem, stage_1 = 32**2 * 3 * 16 * 9, 32**2 * 4 * 16 * 16 * 9
    stage_2 = 16**2 * (16 * 32 * 9 + 3 * 32 * 32 * 9 + 16 * 32)
    stage_3 = 8**2 * (32 * 64 * 9 + 3 * 64 * 64 * 9 + 32 * 64)
    assert count_macs(build("wrn_16_1"), 3, 32) == stem + stage_1 + stage_2 + stage_3 + 64 * 100


@pytest.mark.slow
def test_the_bottleneck_network_computes_what_torchvisions_does_behind_another_stem():
    own, theirs = build("cifar_resnet50", 4).eval(), build("torchvision:resnet50", 4).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    renamed = {
        name.replace("shortcut", "downsample").replace("linear", "fc"): v for name, v in own.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(images), theirs(images))


def test_blocks_of_shufflenetv2_compute_what_torchvisions_do():
    stage = build("shufflenetv2").layer1.eval()
    places = {"branch1": (("conv1", "bn1"), ("conv2", "bn2")), "branch2": (("conv3", "bn3"), ("conv4", "bn4"))}
    down = torchvision_shufflenetv2.InvertedResidual(24, 116, 2).eval()
    copy_into(down.branch1, stage[0], [*places["branch1"]])
    copy_into(down.branch2, stage[0], [*places["branch2"], ("conv5", "bn5")])
    plain = torchvision_shufflenetv2.InvertedResidual(116, 116, 1).eval()
    copy_into(plain.branch2, stage[1], [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")])
    features = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(stage[0](features), down(features))
    torch.testing.assert_close(stage[:2](features), plain(down(features)))


def copy_into(sequence, block, pairs):
    own = [block.get_submodule(name) for pair in pairs for name in pair]
    theirs = [layer for layer in sequence if not isinstance(layer, nn.ReLU)]
    for mine, other in zip(own, theirs, strict=True):
        other.load_state_dict(mine.state_dict())


def test_a_wide_network_agrees_with_a_functional_oracle():
    network = build("wrn_10_2", 3, 1).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    features = network.conv1(images)
    for name in ("block1", "block2", "block3"):
        block = network.get_submodule(name).layer[0]
        active = F.relu(block.bn1(features))
        hidden = block.conv2(F.relu(block.bn2(block.conv1(active))))
        features = hidden + block.convShortcut(active)
    features = F.relu(network.bn1(features))
    expected = network.fc(F.adaptive_avg_pool2d(features, 1).flatten(1))
    torch.testing.assert_close(network(images), expected)


def test_a_block_of_shufflenetv1_agrees_with_a_functional_oracle():
    block = build("shufflenetv1").layer2[0].eval()
    features = torch.randn(2, 240, 4, 4, generator=torch.Generator().manual_seed(1))
    hidden = F.relu(block.bn1(block.conv1(features)))
    num_hidden = hidden.shape[1]
    order = [group * num_hidden // 3 + place for place in range(num_hidden // 3) for group in range(3)]
    hidden = block.bn3(block.conv3(F.relu(block.bn2(block.conv2(hidden[:, order])))))
    shortcut = F.avg_pool2d(features, 3, 2, 1)
    torch.testing.assert_close(block(features), F.relu(torch.cat([hidden, shortcut], 1)))


def test_shuffling_is_undone_by_shuffling_with_the_other_factor():
    features = torch.randn(2, 12, 3, 3)
    assert torch.equal(ChannelShuffle(4)(ChannelShuffle(3)(features)), features)


@pytest.mark.parametrize(("side", "expected"), [(3, 3), (4, 4), (8, 4), (7, 3)])
def test_only_maps_of_more_than_four_pixels_are_pooled_late(side, expected):
    assert LatePool()(torch.zeros(1, 1, side, side)).shape[-2:] == (expected, expected)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("wrn_16_2", {"conv1.weight", "block1.layer.0.convShortcut.weight", "block3.layer.1.bn2.bias", "fc.bias"}),
        ("vgg8", {"block0.0.bias", "block0.1.running_mean", "block4.0.weight", "classifier.weight"}),
        ("mobilenetv2", {"conv1.0.weight", "blocks.0.0.conv.7.bias", "blocks.6.0.conv.0.weight", "classifier.0.bias"}),
        ("shufflenetv1", {"layer1.3.conv3.weight", "layer2.7.bn1.weight", "linear.weight"}),
        ("shufflenetv2", {"layer1.0.conv5.weight", "layer3.3.bn3.weight", "conv2.weight", "bn2.bias", "linear.bias"}),
        ("cifar_resnet50", {"layer1.0.shortcut.1.bias", "layer4.2.conv3.weight", "linear.bias"}),
    ],
)
def test_weights_have_the_names_of_repdistiller(model, names):
    assert names <= build(model).state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_stages_have_the_maps_of_the_papers(model):
    network = build(model).eval()
    blocks, _ = split(network, len(STAGES[model]))
    shapes = map_shapes(network, blocks, channels=3, image_size=32)
    assert [(shape[1], shape[2]) for shape in shapes] == STAGES[model]


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_every_family_can_be_a_student_at_school(model):
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    for level in (1, 2, 3):
        student = Student(build(model, 6, 1), level, 3, 2 * level, "adapter", image_size=32, channels=1, seed=0)
        assert student(images).shape == (2, 2 * level)


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_every_family_can_learn_with_students_on_its_stages(model):
    network = TeskdNetwork(build(model, 3, 1), image_size=32, channels=1, seed=0)
    outputs = network(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert [tuple(logits.shape) for logits in outputs.student_logits] == (len(STAGES[model]) - 1) * [(2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_same_seed_gives_the_same_bytes_and_every_weight_has_a_gradient(model):
    network, again = build(model, 3, 1), build(model, 3, 1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    network(torch.randn(2, 1, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("model", OWN_MODELS)
def test_all_listed_models_are_known(model):
    assert is_known(model)


@pytest.mark.parametrize("depth", WIDE_DEPTHS)
def test_all_depths_and_widths_of_wide_networks_are_known(depth):
    assert own_form(f"wrn_{depth}_{MAX_WIDTH_FACTOR}") == ("wrn", depth, MAX_WIDTH_FACTOR)


@pytest.mark.parametrize(
    "model",
    ["wrn_41_2", "wrn_40", "wrn_40x2", "wrn_40_17", "wrn_40_02", "vgg12", "vgg8_2", "mobilenetv1", "shufflenetv3"],
)
def test_names_outside_the_families_are_unknown(model):
    assert not is_known(model)
