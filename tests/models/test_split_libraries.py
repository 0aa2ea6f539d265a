"""Splitting networks of timm and torchvision, one of each family: blocks and head put together are the network."""

import pytest
import timm
import torch

from edpipe.models.splitting.attention_maps import attention_map, attention_taps
from edpipe.models.splitting.chain import map_shapes
from edpipe.models.splitting.split import split, stage_ends
from edpipe.models.students.student import Student
from edpipe.models.students.teskd_branches import TeskdNetwork
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)
pytestmark = pytest.mark.slow

TIMM = {
    "cs3darknet_focus_s": 4,
    "cspnext_tiny": 4,
    "csatv2": 4,
    "cpubone_nano": 4,
    "densenet121": 4,
    "dla46_c": 5,
    "dpn48b": 4,
    "edgenext_xx_small": 4,
    "efficientformerv2_s0": 4,
    "efficientvit_b0": 5,
    "efficientvit_m0": 5,
    "ese_vovnet19b_slim_dw": 5,
    "fasternet_t0": 4,
    "fastvit_t8": 5,
    "gernet_s": 4,
    "ghostnetv2_100": 5,
    "hardcorenas_a": 5,
    "hgnetv2_b0": 4,
    "iformer_t": 4,
    "inception_next_atto": 4,
    "lcnetv2_small": 5,
    "legacy_seresnet18": 4,
    "lowformer_b0": 4,
    "mobilevit_xxs": 5,
    "mobilenetv4_conv_small_050": 4,
    "nf_regnet_b0": 4,
    "poolformer_s12": 4,
    "pvt_v2_b0": 4,
    "rdnet_tiny": 4,
    "regnetx_002": 4,
    "repghostnet_050": 5,
    "repvit_m0_9": 4,
    "res2net50_14w_8s": 4,
    "resnest14d": 4,
    "resnet10t": 4,
    "resnetv2_50x1_bit": 4,
    "rexnet_100": 5,
    "shvit_s1": 5,
    "skresnet18": 4,
    "starnet_s050": 4,
    "swiftformer_xs": 4,
    "test_convnext": 4,
    "test_efficientnet": 4,
    "test_mambaout": 4,
    "tiny_vit_5m_224": 4,
    "tresnet_m": 4,
    "xception41": 4,
}
"""Feature stages, one model of each of timm's modules."""
TORCHVISION = {
    "convnext_tiny": 4,
    "efficientnet_b0": 5,
    "mnasnet0_5": 4,
    "mobilenet_v2": 5,
    "regnet_x_400mf": 4,
    "resnext50_32x4d": 4,
    "shufflenet_v2_x0_5": 3,
    "squeezenet1_1": 3,
    "swin_t": 4,
}
MODELS = {
    **{f"timm:{name}": n for name, n in TIMM.items()},
    **{f"torchvision:{name}": n for name, n in TORCHVISION.items()},
}


def noisy(model):
    """In evaluation mode, no weight at zero: a layer that starts there would hide what comes before it."""
    network = build_network(model, num_classes=5, channels=3, seed=0).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return network


def images_for(network):
    settings = getattr(network, "default_cfg", {})
    side = settings["input_size"][-1] if settings.get("fixed_input_size") else 96
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_they_are_of_more_than_forty_modules_of_timm():
    assert len({timm.models.model_entrypoint(name).__module__ for name in TIMM}) > 40


@pytest.mark.parametrize("model", MODELS)
def test_blocks_and_head_are_the_network(model):
    network = noisy(model)
    features = images = images_for(network)
    blocks, head = split(network, MODELS[model])
    sides = []
    with torch.no_grad():
        expected = network(images)
        for block in blocks:
            features = block(features)
            assert features.ndim == 4
            sides.append(features.shape[2])
        found = head(features)
    assert sides == sorted(sides, reverse=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    names = [name for chain in (*blocks, head) for name in chain.weights()]
    assert sorted(names) == sorted(network.state_dict())
    assert len(stage_ends(network)) == len(blocks)


@pytest.mark.parametrize("model", ["timm:test_mambaout", "torchvision:swin_t", "timm:test_convnext"])
def test_taps_read_what_the_stages_give_wherever_the_channels_are(model):
    network = noisy(model)
    features = images = images_for(network)
    blocks, _ = split(network, 4)
    expected = []
    with torch.no_grad(), attention_taps(network) as maps:
        network(images)
        for block in blocks:
            features = block(features)
            expected.append(attention_map(features))
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("model", ["timm:test_mambaout", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"])
def test_they_can_be_students(model):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for level in (1, 2, 3):
        network = build_network(model, 6, 3, seed=0)
        student = Student(network, level, 3, 2 * level, "adapter", image_size=64, channels=3, seed=0)
        logits = student(images)
        assert logits.shape == (2, 2 * level)
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in student.parameters())


def test_a_network_with_the_channels_last_has_students_on_its_stages():
    network = build_network("timm:test_mambaout", 3, 3, seed=0)
    shapes = map_shapes(network, split(network, 4)[0], channels=3, image_size=64)
    outputs = TeskdNetwork(network, image_size=64, channels=3, seed=0)(torch.randn(2, 3, 64, 64))
    assert outputs.features.shape == (2, shapes[-1][1])
    assert len(outputs.student_logits) == 3
