import pytest
import torch
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.splitting.chain import Chain, Unit, join
from edpipe.models.splitting.split import split
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)

STAGES = {
    "resnet8": 3,
    "resnet14x2": 3,
    "cifar_resnet18": 4,
    "timm:resnet18": 4,
    "timm:mobilenetv3_small_050": 4,
    "timm:tf_efficientnet_lite0": 5,
    "timm:convnext_atto": 4,
    "torchvision:resnet18": 4,
    "torchvision:mobilenet_v3_small": 4,
    "torchvision:densenet121": 4,
}
"""Feature stages of each model, from its paper's table of sizes."""
LARGE = ("torchvision:densenet121", "torchvision:resnet18", "cifar_resnet18")
"""Tried by CI only."""
MODELS = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in STAGES]


def build(model):
    return build_network(model, num_classes=5, channels=3, seed=0)


class FunctionalTail(nn.Module):
    """A classifier that does something between its modules that no module says."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images).amax(dim=(2, 3)))


class Stray(nn.Module):
    """A classifier with a parameter outside all of its modules."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.fc(self.flatten(self.pool(self.conv(images))))


class ZeroHead(FunctionalTail):
    """Gives zeros whatever comes before, as long as nobody adds noise."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_blocks_and_head_are_the_network(model):
    network = build(model).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images)
        for num_blocks in (1, 2, STAGES[model]):
            blocks, head = split(network, num_blocks)
            features = images
            for block in blocks:
                features = block(features)
            torch.testing.assert_close(head(features), expected)
            assert len(blocks) == num_blocks


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_blocks_and_head_have_the_networks_weights_and_names_once_each(model):
    network = build(model)
    blocks, head = split(network, 2)
    names = [name for chain in (*blocks, head) for name in chain.weights()]
    assert sorted(names) == sorted(network.state_dict())
    for name, value in join([*blocks, head]).weights().items():
        assert value.data_ptr() == network.state_dict()[name].data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_block_has_weights_and_features_of_its_own_size(model):
    blocks, _ = split(build(model).eval(), STAGES[model])
    features, sides = torch.zeros(1, 3, 64, 64), []
    with torch.no_grad():
        for block in blocks:
            features = block(features)
            sides.append(features.shape[2])
            assert features.ndim == 4
            assert block.weights()
    assert sides == sorted(set(sides), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet8", "timm:resnet18"])
def test_splitting_leaves_mode_weights_buffers_and_generator_untouched(model):
    network = build(model)
    network.get_submodule("bn1").eval()
    modes = [module.training for module in network.modules()]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    split(network, 3)
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_first_block_of_a_residual_network_holds_stem_and_first_stage():
    blocks, head = split(build("timm:resnet18"), 4)
    assert [block.paths[-1] for block in blocks] == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert head.paths == ("global_pool", "fc")


def test_stages_are_dealt_out_evenly():
    blocks, _ = split(build("timm:tf_efficientnet_lite0"), 2)
    assert [block.paths[0] for block in blocks] == ["conv_stem", "blocks.2.0"]


def test_one_block_is_any_network_whole():
    network = build("timm:vit_tiny_patch16_224")
    blocks, head = split(network, 1)
    assert blocks[0].weights().keys() == network.state_dict().keys()
    assert head.paths == ()


def test_too_few_stages_are_an_error():
    with pytest.raises(NetworkError, match=r"'resnet8': has 3 feature stages .* but 4 blocks are asked for; use a"):
        split(build("resnet8"), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            "timm:vit_tiny_patch16_224",
            r"pos_drop is not made of patch_embed by a function .* \(2, 196, 192\) becomes \(2, 197, 192\)",
        ),
        ("timm:hrnet_w18_small", "stage2 is given 0 tensors, not one"),
        ("timm:selecsls42", "features is given 0 tensors, not one"),
        ("timm:efficientvim_m1", r"stages\.0 gives tuple, not one tensor"),
    ],
)
def test_a_network_that_is_no_chain_is_an_error_in_one_line(model, reason):
    with pytest.raises(NetworkError, match=rf"'{model}': cannot be split .*{reason}.*teach it in one stage") as error:
        split(build(model), 2)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_tokens_are_no_feature_stages():
    with pytest.raises(NetworkError, match=r"resmlp.*has 0 feature stages \(sample, channel, height, width\)"):
        split(build("timm:resmlp_12_224"), 2)


@pytest.mark.parametrize("network", [FunctionalTail(), ZeroHead()])
def test_what_is_done_by_functions_is_noticed_even_behind_zeros(network):
    with pytest.raises(NetworkError, match=r"cannot be split into blocks"):
        split(network, 2)


def test_a_weight_outside_all_modules_is_an_error():
    with pytest.raises(NetworkError, match=r"'Stray': cannot be split .*weight unused belongs to none of them"):
        split(Stray(), 2)


def test_a_network_that_takes_no_square_image_is_an_error():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(NetworkError, match=r"'Sequential': cannot be split into blocks: RuntimeError"):
        split(network, 2)


def test_a_network_without_logits_is_an_error():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, images):
            return self.conv(images), images

    with pytest.raises(NetworkError, match=r"'Pair': .* its output is not one tensor of finite numbers; teach it"):
        split(Pair(), 2)


def test_less_than_one_block_is_a_callers_mistake():
    with pytest.raises(ValueError, match="num_blocks must be >= 1, got 0"):
        split(build("resnet8"), 0)


def test_a_chain_runs_its_modules_in_order():
    double, shift = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for linear, weight, bias in ((double, 2.0, 0.0), (shift, 1.0, 3.0)):
            linear.weight.fill_(weight)
            linear.bias.fill_(bias)
        chain = join([Chain([Unit("double", double)]), Chain([Unit("shift", shift)])])
        assert chain(torch.ones(1, 1)).item() == 5.0
    assert list(chain.weights()) == ["double.weight", "double.bias", "shift.weight", "shift.bias"]
