"""Residual units of the zoo and of both libraries that start as their shortcuts; others are refused."""

import pytest
import torch

from edpipe.errors import NetworkError
from edpipe.models.splitting.split import split
from edpipe.models.students.zero_start import start_as_shortcuts
from edpipe.models.zoo.build import build_network
from edpipe.models.zoo.resnet import Bottleneck

torch.set_num_threads(1)
pytestmark = pytest.mark.slow


def zeroed(model, num_blocks=2):
    """Names of the weights that are zero after the last block was made to start as shortcuts, and not before."""
    network = build_network(model, 4, 3, 0)
    before = {name for name, value in network.named_parameters() if not value.any()}
    blocks, _ = split(network, num_blocks)
    start_as_shortcuts(network, blocks[1:], 2)
    return [name for name, value in network.named_parameters() if not value.any() and name not in before]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet14", ["layer2.0.bn2", "layer2.1.bn2", "layer3.0.bn2", "layer3.1.bn2"]),
        ("torchvision:resnet18", ["layer3.0.bn2", "layer3.1.bn2", "layer4.0.bn2", "layer4.1.bn2"]),
        ("timm:resnet18", []),  # timm draws them so
    ],
)
def test_the_last_scale_of_each_unit_is_zero(model, names):
    assert zeroed(model) == [f"{name}.weight" for name in names]


@pytest.mark.parametrize("model", ["wrn_10_1", "vgg8", "mobilenetv2"])
def test_other_networks_are_refused(model):
    with pytest.raises(NetworkError) as caught:
        zeroed(model)
    assert str(caught.value) == (
        f"model {model!r}: new_block: zero needs residual units that end in a normalisation, and none was found in "
        "block 2; use new_block: drawn, or a residual network such as resnet20"
    )


def test_a_bottleneck_starts_as_its_shortcut():
    block, features = Bottleneck(8, 2, 1).eval(), torch.randn(2, 8, 4, 4).relu()
    assert not torch.equal(block(features), features)
    block.zero_init_last()
    assert torch.equal(block(features), features)
