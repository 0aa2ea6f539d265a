"""The network of TESKD: what it costs, that its parts are the plain network and the paper's students, what is kept."""

import subprocess
import sys
import zlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edpipe.errors import NetworkError
from edpipe.losses.teskd import TeskdWeights, teskd_loss
from edpipe.models.macs import count_macs, count_parameters
from edpipe.models.students.teskd_branches import TeskdNetwork
from edpipe.models.zoo.build import build_network

torch.set_num_threads(1)

MODELS = ("resnet8", "timm:resnet18")


def make(model="resnet8", image_size=32, num_classes=6, network_seed=0, seed=1):
    network = build_network(model, num_classes=num_classes, channels=1, seed=network_seed)
    return TeskdNetwork(network, image_size, 1, seed)


def images(num_samples=4, side=32, width=None):
    shape = (num_samples, 1, side, side if width is None else width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def labels(num_samples=4):
    return torch.arange(num_samples) % 6


def tensors(outputs):
    return [outputs.logits, *outputs.student_logits, outputs.features, *outputs.student_features]


class Floor(nn.Sequential):
    """A classifier whose stages drop pixels: 29 → 14 → 6."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 4, 2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "deployed", "training"),
    [
        ("cifar_resnet18", ("11.22 M", "555 M"), ("37.05 M", "2040 M")),
        ("cifar_resnet34", ("21.33 M", "1159 M"), ("47.16 M", "2644 M")),
    ],
)
def test_it_costs_what_was_measured_on_the_papers_code(model, deployed, training):
    network = TeskdNetwork(build_network(model, num_classes=100, channels=3, seed=0), 32, 3, seed=0)
    for part, expected in ((network.deployed, deployed), (network, training)):
        parameters, macs = count_parameters(part), count_macs(part, channels=3, image_size=32)
        assert (f"{parameters / 1e6:.2f} M", f"{macs / 1e6:.0f} M") == expected


@pytest.mark.slow
def test_what_the_students_of_resnet18_cost_is_the_sum_over_their_layers():
    network = make("timm:resnet18", image_size=128)  # its maps have the sizes of cifar_resnet18's at 32
    w, total, macs = 512, 0, 0
    for channels, side in ((64, 32), (128, 16), (256, 8), (512, 4)):
        total, macs = total + channels * w + 2 * w, macs + side * side * channels * w
    for stride, side in ((2, 8), (4, 16), (8, 32)):
        total += (w * w + 2 * w) + (2 * w * w + 2 * w)  # fusion: rise, mix
        macs += side * side * 3 * w * w
        total += (stride * stride * w * w + 3 * w) + (w * w + 3 * w) + (w * 6 + 6)  # head: reduce, mix, fc
        macs += 16 * (stride * stride + 1) * w * w + w * 6
    assert count_parameters(network) - count_parameters(network.deployed) == total
    assert count_macs(network, 1, 128) - count_macs(network.deployed, 1, 128) == macs


@pytest.mark.slow
@pytest.mark.parametrize(("model", "num_stages", "width"), [("resnet8", 3, 64), ("timm:resnet18", 4, 512)])
def test_each_stage_but_the_deepest_has_a_student(model, num_stages, width):
    outputs = make(model)(images())
    assert len(outputs.student_logits) == len(outputs.student_features) == num_stages - 1
    assert all(x.shape == (4, 6) for x in (outputs.logits, *outputs.student_logits))
    assert all(x.shape == (4, width) for x in (outputs.features, *outputs.student_features))


def block(weights, name, x, stride=1):
    """Convolution, batch normalisation with running statistics, ReLU."""
    x = F.conv2d(x, weights[f"{name}.0.weight"], weights.get(f"{name}.0.bias"), stride)
    keys = ("running_mean", "running_var", "weight", "bias")
    return torch.relu(F.batch_norm(x, *(weights[f"{name}.1.{key}"] for key in keys)))


def test_students_are_those_of_the_paper():
    network = make().eval()
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name.endswith("running_var"):
                value.fill_(0.7)
        found = network(images())
        plain, weights = network.deployed, network.state_dict()
        maps = [plain.layer1(plain.relu(plain.bn1(plain.conv1(images()))))]
        maps += [plain.layer2(maps[0])]
        maps += [plain.layer3(maps[1])]
        lateral = [block(weights, f"laterals.{level}", x) for level, x in enumerate(maps)]
        student = lateral[2]
        for number, (level, stride) in enumerate(((1, 2), (0, 4))):
            upsampled = F.interpolate(student, scale_factor=2, mode="bilinear", align_corners=True)
            u = block(weights, f"fusions.{number}.rise", upsampled)
            student = block(weights, f"fusions.{number}.mix", torch.cat([u + lateral[level], u], dim=1))
            reduced = block(weights, f"heads.{number}.reduce", student, stride)
            pooled = block(weights, f"heads.{number}.mix", reduced).mean(dim=(2, 3))
            logits = F.linear(pooled, weights[f"heads.{number}.fc.weight"], weights[f"heads.{number}.fc.bias"])
            assert reduced.shape[-2:] == (8, 8)
            torch.testing.assert_close(found.student_features[number], pooled)
            torch.testing.assert_close(found.student_logits[number], logits)
        torch.testing.assert_close(found.features, maps[2].mean(dim=(2, 3)))


def fill(network):
    """Each weight from its name and place alone, so that other code can be given the same."""
    with torch.no_grad():
        for name, values in network.named_parameters():
            phase = zlib.crc32(name.encode()) % 97
            wave = torch.cos(0.37 * torch.arange(values.numel(), dtype=torch.float64) + phase).view(values.shape)
            is_matrix, scale = values.ndim > 1, name.endswith("weight")
            shifted = 1 + 0.3 * wave if scale else 0.1 * wave
            values.copy_((2 / values[0].numel()) ** 0.5 * wave if is_matrix else shifted)


@pytest.mark.slow
def test_its_numbers_are_those_of_the_authors_code():
    """Computed by zhengli427/TESKD @ 10817c7 with these weights: cifarresnet18, float64, in training."""
    network = TeskdNetwork(build_network("cifar_resnet18", 10, 3, 0), 8, 3, seed=0).double()
    fill(network)
    assert count_parameters(network) == 36_866_152
    waves = 0.11 * torch.arange(4 * 3 * 64, dtype=torch.float64) + 0.5 * torch.arange(4).repeat_interleave(3 * 64)
    outputs = network(torch.cos(waves).view(4, 3, 8, 8))
    loss = teskd_loss(outputs, torch.tensor([0, 3, 7, 9])).mean()
    logits = [one[1, 2].item() for one in (outputs.logits, *outputs.student_logits)]
    features = [one[1, :5].sum().item() for one in outputs.student_features]
    assert loss.item() == pytest.approx(13.4809780292, rel=1e-6)
    assert logits == pytest.approx([1.677316738, 1.452663746, 0.533408813, 0.949082573], rel=1e-6)
    assert features == pytest.approx([2.559674836, 1.764961051, 0.161268395], rel=1e-6)
    inner = network.deployed.fc.weight, network.laterals[0][0].weight
    gradients = torch.autograd.grad(loss, inner)
    assert [one.norm().item() for one in gradients] == pytest.approx([28.593583305, 16.451585674], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_what_is_deployed_is_the_plain_network_with_its_own_names(model):
    network = make(model)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    teskd_loss(network(images()), labels()).mean().backward()
    optimizer.step()
    plain = build_network(model, num_classes=6, channels=1, seed=9)
    exported = network.deployed.state_dict()
    assert list(exported) == list(plain.state_dict())
    plain.load_state_dict(exported)
    with torch.no_grad():
        outputs = network.eval()(images())
        torch.testing.assert_close(plain.eval()(images()), outputs.logits)
        assert torch.equal(network.deployed(images()), outputs.logits)
    assert count_parameters(network.deployed) == count_parameters(plain)


def test_in_training_the_logits_are_those_of_the_deployed_network_and_statistics_move_once():
    network, plain = make(), build_network("resnet8", num_classes=6, channels=1, seed=0)
    assert torch.equal(network(images()).logits, plain(images()))
    assert all(torch.equal(a, b) for a, b in zip(network.deployed.buffers(), plain.buffers(), strict=True))
    counts = {int(value) for name, value in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {1}


def test_making_it_leaves_the_network_and_the_generator_alone():
    plain, generator = build_network("resnet8", num_classes=6, channels=1, seed=0).state_dict(), torch.get_rng_state()
    network = make()
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, plain[name]) for name, value in network.deployed.state_dict().items())
    assert all(module.training for module in network.modules())


@pytest.mark.slow
def test_students_are_drawn_from_their_seed_alone():
    first, again, other = (make(network_seed=n, seed=s).state_dict() for n, s in ((0, 4), (1, 4), (0, 5)))
    drawn = [name for name in first if not name.startswith("deployed.")]
    assert all(torch.equal(first[name], again[name]) for name in drawn)
    weights = [name for name in drawn if first[name].ndim > 1]
    assert len(weights) == 3 + 2 * (2 + 3)
    assert not any(torch.equal(first[name], other[name]) for name in weights)
    for values in (first[name] for name in weights):  # uniform up to 1 / √inputs, torch's default, as in the code
        bound = values[0].numel() ** -0.5
        assert 0.9 * bound < values.abs().max() <= bound


def test_every_weight_is_counted_and_saved_once():
    network = make()
    own = [value.data_ptr() for value in network.state_dict().values()]
    assert len(own) == len(set(own))
    teskd_loss(network(images()), labels()).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_saved_weights_come_back():
    network, other = make(), make(network_seed=5, seed=6)
    network(images())
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        pairs = zip(tensors(network.eval()(images())), tensors(other.eval()(images())), strict=True)
    assert all(torch.equal(own, loaded) for own, loaded in pairs)


def test_each_student_teaches_the_stages_it_reads_from():
    network = make()
    outputs = network(images())
    stem, deepest = network.deployed.conv1.weight, network.deployed.layer3[0].conv1.weight
    for logits in outputs.student_logits:
        for weight in (stem, deepest):
            assert torch.autograd.grad(logits.square().sum(), weight, retain_graph=True)[0].abs().max() > 0


@pytest.mark.parametrize("detach_target", [False, True])
def test_the_kd_loss_reaches_the_deployed_classifier_unless_detached(detach_target):
    network = make()
    weights = TeskdWeights(task_share=0.0, detach_target=detach_target)
    teskd_loss(network(images()), labels(), weights).mean().backward()
    gradient = network.deployed.fc.weight.grad
    assert (gradient.abs().max() == 0) if detach_target else (gradient.norm() > 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image_size", "strides"), [(28, [2, 4]), (25, [2, 4]), (30, [2, 4]), (17, [2, 3]), (7, [2, 4]), (5, [2, 2])]
)
def test_sizes_that_do_not_divide_work(image_size, strides):
    network = make(image_size=image_size)
    outputs = network(images(side=image_size))
    assert [head.stride for head in network.heads] == strides
    assert all(x.isfinite().all() for x in tensors(outputs))
    assert all(x.shape == (4, 6) for x in outputs.student_logits)


def reduced_sizes(network, batch):
    """Height and width of the maps that the students' heads pool."""
    found = []
    hooks = [
        head.reduce.register_forward_hook(lambda *args: found.append(tuple(args[2].shape[-2:])))
        for head in network.heads
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("side", "width"), [(32, 32), (28, 28), (25, 25), (36, 25)])
def test_heads_end_at_the_size_of_the_deepest_stage_whatever_the_image(side, width):
    network = make(image_size=32)
    batch = images(side=side, width=width)
    plain = network.deployed
    deepest = plain.layer3(plain.layer2(plain.layer1(plain.conv1(batch)))).shape[-2:]
    assert reduced_sizes(network, batch) == [tuple(deepest)] * 2


def test_stages_that_drop_pixels_work():
    network = TeskdNetwork(Floor(), 29, 1, seed=0)
    assert [head.stride for head in network.heads] == [2]
    assert reduced_sizes(network, images(side=29)) == [(6, 6)]


@pytest.mark.slow
def test_stages_of_one_pixel_work():
    network = make("timm:resnet18", image_size=16)  # 4, 2, 1 and 1 pixels
    assert [head.stride for head in network.heads] == [1, 2, 4]
    assert network(images(side=16)).logits.shape == (4, 6)


def test_two_equal_trainings_are_equal_bit_for_bit():
    def gradients():
        network = make(image_size=25)
        teskd_loss(network(images(side=25)), labels()).mean().backward()
        return [parameter.grad for parameter in network.parameters()]

    assert all(torch.equal(first, again) for first, again in zip(gradients(), gradients(), strict=True))


def test_an_exchanged_layer_is_used():
    network = make().eval()
    before = network(images()).student_logits[0]
    network.deployed.bn1 = nn.Identity()  # as several processes exchange batch normalisations for joint ones
    assert not torch.equal(network(images()).student_logits[0], before)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet8", "torchvision:mobilenet_v3_small"])
def test_bfloat16_and_channels_last_work(model):
    network = make(model, image_size=64).to(memory_format=torch.channels_last)
    batch = images(side=64).to(memory_format=torch.channels_last)
    plain = tensors(network.eval()(batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(batch)
    teskd_loss(outputs, labels()).mean().backward()
    for own, expected in zip(tensors(outputs), plain, strict=True):
        assert (own.float() - expected).abs().max() <= 0.1 * (1 + expected.abs().max())


COMPILED = """
import torch
from edpipe.models.students.teskd_branches import TeskdNetwork
from edpipe.models.zoo.build import build_network
from edpipe.losses.teskd import teskd_loss

network = TeskdNetwork(build_network("resnet8", 6, 1, 0), 32, 1, 0)
images, labels = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)

def gradients(call):
    network.zero_grad()
    teskd_loss(call(images), labels).mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]

compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
for own, expected in zip(gradients(compiled), gradients(network), strict=True):
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4)
"""


@pytest.mark.slow
def test_it_compiles_in_one_piece():
    # In a process of its own: torch cannot trace the type checks of the tests.
    ended = subprocess.run([sys.executable, "-c", COMPILED], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_network_that_is_no_chain_is_an_error():
    network = build_network("timm:vit_tiny_patch16_224", num_classes=3, channels=3, seed=0)
    message = r"vit_tiny.*cannot be split .*; without stages it has no TESKD students: use another model or method$"
    with pytest.raises(NetworkError, match=message) as error:
        TeskdNetwork(network, 224, 3, seed=0)
    assert "\n" not in str(error.value)
    assert "teach it in one stage" not in str(error.value)


def test_a_network_of_one_stage_is_an_error():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    message = (
        r"model 'Sequential': has 1 feature stages .*, TESKD students need at least 2; use another model or method"
    )
    with pytest.raises(NetworkError, match=message):
        TeskdNetwork(network, 32, 1, seed=0)


def test_images_the_network_cannot_take_are_an_error():
    with pytest.raises(NetworkError, match=r"model 'resnet8': cannot take images of 3×16×16: .*; change image_size"):
        TeskdNetwork(build_network("resnet8", 3, 1, 0), 16, 3, seed=0)
