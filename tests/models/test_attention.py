"""Attention maps: the paper's formula, of the features that each stage really gives, and of nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.splitting.attention_maps import attention_map, attention_taps
from edpipe.models.splitting.chain import join
from edpipe.models.splitting.split import count_feature_stages, split
from edpipe.models.students.auxiliary import AttentionMaps
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)
STAGES = {
    "resnet8": ("layer1", "layer2", "layer3"),
    "timm:resnet18": ("layer1", "layer2", "layer3", "layer4"),
}


def features_of(seed, samples=3, channels=4, size=(5, 2)):
    return np.random.default_rng(seed).normal(0, 2, (samples, channels, *size)).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_a_map_is_the_mean_square_over_channels_with_length_1(seed, samples, channels, height, width):
    features = features_of(seed, samples, channels, (height, width))
    energy = (features.astype(np.float64) ** 2).mean(axis=1)
    expected = energy / np.sqrt((energy**2).sum(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(attention_map(torch.from_numpy(features)).numpy(), expected, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**16), st.floats(1e-2, 1e2))
def test_a_map_does_not_see_how_loud_features_are(seed, factor):
    features = torch.from_numpy(features_of(seed))
    torch.testing.assert_close(attention_map(features * factor), attention_map(features), rtol=1e-4, atol=1e-6)


def test_a_map_of_half_precision_features_is_computed_in_float32():
    features = torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16)  # its square is no float16
    found = attention_map(features)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == [0.5] * 4


def test_a_map_of_dead_features_is_zero():
    assert attention_map(torch.zeros(2, 3, 4, 4)).abs().max() == 0


def test_the_order_in_memory_does_not_matter():
    features = torch.from_numpy(features_of(0))
    assert torch.equal(attention_map(features), attention_map(features.to(memory_format=torch.channels_last)))


@pytest.mark.slow
@pytest.mark.parametrize("model", STAGES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_taps_give_the_map_of_each_stages_output(model, precision):
    network = build_network(model, 5, 3, 0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert count_feature_stages(network) == len(STAGES[model])
    features, handles = {}, []
    for name in STAGES[model]:
        keep = lambda module, inputs, output, name=name: features.__setitem__(name, output)  # noqa: E731
        handles.append(getattr(network, name).register_forward_hook(keep))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        with attention_taps(network) as maps:
            tapped = network(images)
        assert len(maps) == len(STAGES[model])
        for found, name in zip(maps, STAGES[model], strict=True):
            assert features[name].dtype == precision
            energy = features[name].float().pow(2).mean(dim=1)
            expected = energy / energy.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()
            torch.testing.assert_close(found, expected)
        for handle in handles:
            handle.remove()
        assert torch.equal(network(images), tapped)


PUBLISHED = {
    "wrn_10_1": ("block1", "block2", "block3"),
    "vgg8": ("block1", "block2", "block3", "block4"),
    "mobilenetv2": ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    "shufflenetv1": ("layer1", "layer2", "layer3"),
    "shufflenetv2": ("layer1", "layer2", "layer3"),
    "resnet8": ("layer1", "layer2", "layer3"),
}
"""What `is_feat` gives in HobbitLong/RepDistiller @ b84f547, less the stem and the pooled features."""


def outputs_of(network, names, images):
    """What the named modules give, and what taps give, in one pass."""
    found = {}
    modules = [network.get_submodule(name) for name in names]
    hooks = [module.register_forward_hook(lambda m, _, out: found.__setitem__(m, out)) for module in modules]
    with torch.inference_mode(), attention_taps(network) as maps:
        network(images)
    for hook in hooks:
        hook.remove()
    return [found[module] for module in modules], list(maps)


@pytest.mark.parametrize("model", PUBLISHED)
def test_networks_for_small_images_give_the_maps_of_published_code(model):
    network = build_network(model, 5, 1, 0).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    features, maps = outputs_of(network, PUBLISHED[model], images)
    assert len(maps) == len(features)
    for own, expected in zip(maps, features, strict=True):
        assert torch.equal(own, attention_map(expected))


@pytest.mark.parametrize(("model", "num_maps"), [("wrn_10_1", (1, 2, 3)), ("mobilenetv2", (1, 2, 4))])
def test_a_part_of_a_network_gives_the_first_maps(model, num_maps):
    network = build_network(model, 5, 1, 0).eval()
    whole, blocks = AttentionMaps(network, network), split(network, 3)[0]
    for level, number in enumerate(num_maps, start=1):
        assert AttentionMaps(network, join(blocks[:level])).taps == whole.taps[:number]


def test_the_first_block_of_vgg_alone_has_no_map():
    network = build_network("vgg8", 5, 1, 0)
    with pytest.raises(NetworkError) as caught:
        AttentionMaps(network, split(network, 5)[0][0])
    assert str(caught.value) == (
        "model 'vgg8': its part that is trained has no attention map; use another loss there, or another model"
    )


def test_every_pass_fills_the_list_anew():
    network = build_network("resnet8", 5, 1, 0).eval()
    first, second = torch.randn(2, 1, 8, 8), torch.randn(3, 1, 8, 8)
    with torch.inference_mode(), attention_taps(network) as maps:
        network(first)
        before = [values.clone() for values in maps]
        network(second)
        assert [len(values) for values in maps] == [3, 3, 3]
        network(first)
        assert all(torch.equal(a, b) for a, b in zip(before, maps, strict=True))


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_is_tapped_afterwards(is_stopped):
    network = build_network("resnet8", 5, 1, 0)
    modules = list(network.modules())
    try:
        with attention_taps(network):
            assert sum(len(module._forward_hooks) for module in modules) == 3
            if is_stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert sum(len(module._forward_hooks) for module in modules) == 0


def refused(network):
    with pytest.raises(NetworkError) as caught, attention_taps(network):
        pass
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith("; set storage.attention: false, or use another model") or text.endswith(
        ": set storage.attention: false, or use another model"
    )
    return text


@pytest.mark.parametrize("num_stages", [0, 1])
def test_a_network_of_fewer_than_two_stages_has_no_maps(num_stages):
    first = nn.Conv2d(3, 4, 3, padding=1) if num_stages else nn.Conv2d(3, 4, 128)
    network = nn.Sequential(first, nn.Flatten(), nn.Linear(4 * 128**2 if num_stages else 4, 5)).eval()
    assert refused(network).startswith(f"model 'Sequential': has {num_stages} feature stages ")


def test_a_network_that_is_no_chain_has_no_maps():
    assert refused(build_network("timm:vit_tiny_patch16_224", 5, 3, 0).eval()).startswith(
        "model 'timm:vit_tiny_patch16_224': cannot be split into blocks, because its modules run one after another "
    )
