import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.probe import count_outputs, evaluating, first_convolution, model_name
from edpipe.models.students.reference_blocks import build_reference
from edpipe.models.zoo.build import build_network
from edpipe.models.zoo.forms import CIFAR_DEPTHS
from edpipe.models.zoo.layers import GlobalPool
from edpipe.models.zoo.names import check_model_name, is_known
from edpipe.models.zoo.resnet import stage_widths

torch.set_num_threads(1)

FAMILIES = ("resnet8", "cifar_resnet18", "timm:resnet18", "torchvision:resnet18")


def parameters_by_hand(depth, factor, num_classes, channels):
    """Weights of RepDistiller's CIFAR network, summed layer by layer."""
    stem, *widths = stage_widths(factor)
    total, before = channels * stem * 9 + 2 * stem, stem
    for stage, width in enumerate(widths):
        for block in range((depth - 2) // 6):
            total += 9 * before * width + 9 * width * width + 4 * width
            if (stage > 0 and block == 0) or before != width:
                total += before * width + 2 * width
            before = width
    return total + widths[-1] * num_classes + num_classes


@pytest.mark.parametrize("depth", CIFAR_DEPTHS)
@pytest.mark.parametrize("factor", [1, 2])
def test_parameters_of_the_cifar_family_agree_with_the_sum_over_layers(depth, factor):
    name = f"resnet{depth}x{factor}" if factor > 1 else f"resnet{depth}"
    network = build_network(name, num_classes=10, channels=1, seed=0)
    assert count_parameters(network) == parameters_by_hand(depth, factor, num_classes=10, channels=1)


@pytest.mark.parametrize(("model", "expected"), [("resnet20", 278_324), ("resnet8x4", 1_233_540)])
def test_parameters_are_those_of_repdistiller(model, expected):
    assert count_parameters(build_network(model, num_classes=100, channels=3, seed=0)) == expected


def test_macs_of_resnet20_agree_with_arithmetic():
    stem = 32 * 32 * (3 * 16 * 9)
    stage_1 = 32 * 32 * 6 * (16 * 16 * 9)
    stage_2 = 16 * 16 * (16 * 32 * 9 + 5 * 32 * 32 * 9 + 16 * 32)
    stage_3 = 8 * 8 * (32 * 64 * 9 + 5 * 64 * 64 * 9 + 32 * 64)
    network = build_network("resnet20", num_classes=100, channels=3, seed=0)
    assert count_macs(network, channels=3, image_size=32) == stem + stage_1 + stage_2 + stage_3 + 64 * 100
    assert count_macs(network, channels=3, image_size=32) == 40_818_944


@pytest.mark.parametrize(
    ("model", "parameters", "macs"),
    [("cifar_resnet18", 11_220_132, 555_468_800), ("cifar_resnet34", 21_328_292, 1_159_448_576)],
)
def test_wide_networks_for_small_images_cost_what_tables_of_cifar_100_say(model, parameters, macs):
    # 11.22 M and 555 M, 21.33 M and 1,159 M: measured on the code of TESKD.
    network = build_network(model, num_classes=100, channels=3, seed=0)
    assert count_parameters(network) == parameters
    assert count_macs(network, channels=3, image_size=32) == macs


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34])
def test_wide_networks_for_small_images_have_torchvisions_names_and_shapes_but_for_the_stem(depth):
    own = build_network(f"cifar_resnet{depth}", num_classes=10, channels=3, seed=0).state_dict()
    theirs = build_network(f"torchvision:resnet{depth}", num_classes=10, channels=3, seed=0).state_dict()
    assert list(own) == list(theirs)
    assert [name for name in own if own[name].shape != theirs[name].shape] == ["conv1.weight"]


def test_a_wide_network_computes_what_torchvisions_does_behind_another_stem():
    own = build_network("cifar_resnet18", num_classes=4, channels=1, seed=0).eval()
    theirs = build_network("torchvision:resnet18", num_classes=4, channels=1, seed=1).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.load_state_dict(own.state_dict())
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(images), theirs(images))


def test_counting_macs_leaves_the_network_as_it_was():
    network = build_network("resnet8", num_classes=4, channels=1, seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, channels=1, image_size=8)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_same_seed_gives_the_same_bytes(model):
    first, again, other = (
        build_network(model, num_classes=3, channels=1, seed=seed).state_dict() for seed in (5, 5, 6)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("model", FAMILIES)
def test_building_leaves_the_global_generator_alone(model):
    before = torch.get_rng_state()
    build_network(model, num_classes=3, channels=1, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_does_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = build_network("resnet8", num_classes=3, channels=1, seed=5).state_dict()
    torch.manual_seed(2)
    again = build_network("resnet8", num_classes=3, channels=1, seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_family_takes_grey_and_colour_images(model, channels):
    network = build_network(model, num_classes=7, channels=channels, seed=0)
    assert first_convolution(network)[1].in_channels == channels
    assert count_outputs(network, channels, image_size=32) == 7
    assert model_name(network) == model


def test_a_network_made_elsewhere_is_named_by_its_class():
    assert model_name(nn.Linear(2, 2)) == "Linear"


def test_the_cifar_network_agrees_with_a_functional_oracle():
    network = build_network("resnet8x2", num_classes=3, channels=1, seed=0).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    features = torch.relu(network.bn1(network.conv1(images)))
    for stage in (network.layer1, network.layer2, network.layer3):
        block = stage[0]
        shortcut = features if block.downsample is None else block.downsample(features)
        hidden = torch.relu(block.bn1(block.conv1(features)))
        features = torch.relu(block.bn2(block.conv2(hidden)) + shortcut)
    expected = network.fc(nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))
    torch.testing.assert_close(network(images), expected)


def test_global_pool_is_the_mean_of_every_map():
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert GlobalPool()(features).tolist() == [[1.5, 5.5]]


def test_evaluating_gives_every_module_its_own_mode_back():
    network = build_network("resnet8", num_classes=3, channels=1, seed=0)
    network.get_submodule("bn1").eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert network.training
    assert not network.get_submodule("bn1").training
    assert network.get_submodule("layer1").training


def test_images_a_network_cannot_take_are_an_error_in_one_line():
    network = build_network("timm:vit_tiny_patch16_224", num_classes=3, channels=3, seed=0)
    with pytest.raises(NetworkError, match=r"model 'timm:vit_tiny.*cannot take images of 3×32×32: .*; change") as error:
        count_outputs(network, channels=3, image_size=32)
    assert "\n" not in str(error.value)


def test_a_network_that_is_no_classifier_is_an_error():
    with pytest.raises(NetworkError, match=r"model 'Conv2d': does not give one row of logits per image"):
        count_outputs(nn.Conv2d(1, 1, 1), channels=1, image_size=4)


def test_a_network_without_convolution_is_an_error():
    with pytest.raises(NetworkError, match=r"model 'Linear': has no convolution"):
        first_convolution(nn.Linear(2, 2))


@given(st.sampled_from(CIFAR_DEPTHS), st.integers(2, 16))
def test_all_depths_and_widths_of_the_cifar_family_are_known(depth, factor):
    assert is_known(f"resnet{depth}")
    assert is_known(f"resnet{depth}x{factor}")


@pytest.mark.parametrize("model", ["resnet9", "resnet20x17", "resnet20x0", "resnet020", "resnet20x02", "", "resnet20 "])
def test_names_outside_the_family_are_unknown(model):
    assert not is_known(model)


@pytest.mark.parametrize("model", ["timm:resnet18", "timm:resnet18.a1_in1k", "torchvision:resnet18"])
def test_library_models_are_known(model):
    check_model_name(model)


@pytest.mark.parametrize(
    ("model", "nearest"),
    [
        ("resnet21", "'resnet20'"),
        ("cifar_resnet51", "'cifar_resnet50'"),
        ("MobileNetV2", "'mobilenetv2'"),
        ("wrn_40", "'wrn_40_2'"),
        ("timm:resnet81", "'timm:resnet18'"),
        ("timm:resnet18.nonsense", "'timm:resnet18'"),
        ("torchvision:resnet81", "'torchvision:resnet18'"),
        ("keras:resnet18", "'timm:<name>'"),
    ],
)
def test_an_unknown_model_is_an_error_that_names_the_nearest(model, nearest):
    with pytest.raises(NetworkError, match=f"unknown model '{model}'") as error:
        build_network(model, num_classes=3, channels=3, seed=0)
    assert nearest in str(error.value)
    assert "\n" not in str(error.value)


def test_networks_with_auxiliary_outputs_are_refused():
    with pytest.raises(NetworkError, match=r"'torchvision:googlenet': returns more than logits .* 'timm:inception_v3'"):
        check_model_name("torchvision:googlenet")


def test_names_of_the_cifar_family_are_checked_without_torch():
    program = (
        "import sys; from edpipe.models.zoo.names import check_model_name; check_model_name('resnet20x2'); "
        "sys.exit(bool({'torch', 'timm', 'torchvision', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["adapter", "linear"])
def test_a_reference_turns_features_into_logits(kind):
    reference = build_reference(kind, in_channels=4, final_channels=8, num_outputs=3, seed=0)
    assert reference(torch.randn(2, 4, 5, 5)).shape == (2, 3)
    assert isinstance(reference[0], nn.Conv2d) == (kind == "adapter")


def test_a_reference_is_drawn_from_its_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (build_reference("adapter", 2, 4, 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert not torch.equal(first["adapter.weight"], other["adapter.weight"])


def test_an_unknown_reference_is_an_error():
    with pytest.raises(ValueError, match="reference must be one of adapter, linear, authors, got 'mlp'"):
        build_reference("mlp", 2, 4, 3, seed=0)
