"""Taps and hints: torch's own pooling as oracle, of the features that a stage really gives, and of nothing else."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.splitting.split import count_feature_stages, stage_ends
from edpipe.models.splitting.taps import hint_taps, pooled
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)
SIDES = st.integers(1, 12)
STAGES = {
    "resnet8": ("layer1", "layer2", "layer3"),
    "timm:resnet18": ("layer1", "layer2", "layer3", "layer4"),
}


def features_of(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Pooling


@settings(deadline=None)
@given(st.integers(0, 2**16), SIDES, SIDES, SIDES)
def test_pooling_and_its_gradient_are_those_of_torchs_adaptive_pooling(seed, height, width, side):
    features = features_of(seed, 2, 3, height, width).requires_grad_()
    twin = features.detach().clone().requires_grad_()
    found, expected = pooled(features, side), F.adaptive_avg_pool2d(twin, (min(height, side), min(width, side)))
    torch.testing.assert_close(found, expected)
    weights = features_of(seed + 1, *found.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(features.grad, twin.grad)


@pytest.mark.parametrize("side", [4, 5])
def test_a_map_that_is_small_already_is_copied_as_it_is(side):
    features = features_of(0, 2, 3, 4, 2)
    found = pooled(features, side)
    assert torch.equal(found, features)
    features.zero_()
    assert found.abs().min() > 0


def test_half_precision_is_pooled_in_float32():
    features = torch.full((1, 1, 2, 2), 60_000.0, dtype=torch.float16)  # the sum of four is no float16
    found = pooled(features, 1)
    assert (found.dtype, found.item()) == (torch.float32, 60_000.0)


@pytest.mark.parametrize("side", [0, -1])
def test_a_side_that_is_none_is_refused(side):
    with pytest.raises(ValueError, match=f"^side must be >= 1, got {side}$"):
        pooled(features_of(0, 1, 1, 2, 2), side)


# Taps


@pytest.mark.slow
@pytest.mark.parametrize("model", STAGES)
@pytest.mark.parametrize("side", [1, 3, 99, None])
def test_a_hint_is_the_pooled_output_of_its_stage(model, side):
    network = build_network(model, 5, 3, 0).eval()
    images = features_of(0, 2, 3, 32, 32)
    assert count_feature_stages(network) == len(STAGES[model])
    for level, name in enumerate(STAGES[model], start=1):
        features = []
        with torch.inference_mode(), hint_taps(network, level, side) as hints:
            handle = getattr(network, name).register_forward_hook(lambda *args, kept=features: kept.append(args[2]))
            network(images)
        handle.remove()
        [output] = features
        expected = output if side is None else F.adaptive_avg_pool2d(output, min(side, output.shape[2]))
        torch.testing.assert_close(hints[0], expected)


def test_every_pass_fills_the_list_anew():
    network = build_network("resnet8", 5, 1, 0).eval()
    with torch.inference_mode(), hint_taps(network, 2, 2) as hints:
        network(features_of(0, 2, 1, 8, 8))
        first = hints[0]
        network(features_of(1, 3, 1, 8, 8))
        assert (first.shape, hints[0].shape) == ((2, 32, 2, 2), (3, 32, 2, 2))


def test_a_student_learns_from_its_hint():
    network = build_network("resnet8", 5, 1, 0)
    with hint_taps(network, 2, 2) as hints:
        network(features_of(0, 2, 1, 8, 8))
    hints[0].sum().backward()
    gradients = {name.partition(".")[0]: p.grad is not None for name, p in network.named_parameters()}
    assert gradients["layer1"]
    assert gradients["layer2"]
    assert not gradients["layer3"]


class InPlace(nn.Module):
    """Two stages, of which the second changes what the first has given it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = Halved()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.flat(self.pool(self.second(self.first(images)))))


class Halved(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2, padding=1)

    def forward(self, features):
        return self.conv(features.relu_())


def test_what_works_in_place_later_does_not_change_a_hint():
    network = InPlace().eval()
    images = features_of(0, 2, 1, 8, 8)
    with torch.inference_mode(), hint_taps(network, 1, 8) as hints:
        network(images)
        assert torch.equal(hints[0], network.first(images))
    assert hints[0].min() < 0


def test_the_only_stage_of_a_network_gives_its_map_and_no_logits():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert stage_ends(network.eval()) == [(network[0], ())]
    with torch.inference_mode(), hint_taps(network, 1, 4) as hints:
        network(features_of(0, 2, 1, 8, 8))
    assert hints[0].shape == (2, 4, 4, 4)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_is_tapped_afterwards(is_stopped):
    network = build_network("resnet8", 5, 1, 0)
    try:
        with hint_taps(network, 3, 4):
            assert sum(len(module._forward_hooks) for module in network.modules()) == 1
            if is_stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0


# Networks without such a stage


def refused(network, level, **knob):
    with pytest.raises(NetworkError) as caught, hint_taps(network, level, 4, **knob):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 4, 99])
def test_a_level_that_the_network_does_not_have_is_refused_with_how_many_it_has(level):
    network = build_network("resnet8", 5, 3, 0).eval()
    assert refused(network, level) == (
        "model 'resnet8': has 3 feature stages (sample, channel, height, width), storage.hint.feature_stage "
        f"{level} is none of them; give 1 to 3, remove storage.hint, or use another model"
    )


def test_a_refusal_names_the_knob_of_who_asks():
    said = refused(build_network("resnet8", 5, 3, 0).eval(), 5, knob="method.hint")
    assert "method.hint.feature_stage 5 is none of them; give 1 to 3, remove method.hint, or" in said


def test_a_network_without_stages_has_no_hint():
    network = nn.Sequential(nn.Conv2d(3, 4, 128), nn.Flatten(), nn.Linear(4, 5)).eval()
    assert refused(network, 1) == (
        "model 'Sequential': has 0 feature stages (sample, channel, height, width), storage.hint.feature_stage 1 is "
        "none of them; remove storage.hint, or use another model"
    )


def test_a_network_that_is_no_chain_has_no_hint():
    said = refused(build_network("timm:vit_tiny_patch16_224", 5, 3, 0).eval(), 1)
    assert said.startswith(
        "model 'timm:vit_tiny_patch16_224': cannot be split into blocks, because its modules run one after another "
    )
    assert said.endswith("; without stages it has no hint: remove storage.hint, or use another model")
