"""Teachers that see larger images than their students: the view stays, what the teacher is shown is resized."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_world import SHIFTS, make_world, plain_batches
from torchvision.transforms.v2 import functional as transforms

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import NetworkError
from edpipe.models.forward import forward
from edpipe.models.resize import INPUT_SIDE, resize_images
from edpipe.models.splitting.split import split
from edpipe.models.splitting.taps import hint_taps
from edpipe.models.zoo.build import build_network
from edpipe.params.recipe import RecipeKnobs
from edpipe.params.teacher import FittingKnobs, NetworkKnobs
from edpipe.soft_labels.teacher_outputs import TeacherFiles, load_teacher, teacher_forward
from edpipe.training.teacher import open_teacher_setup, train_and_save
from edpipe.views.pixels import normalise

torch.set_num_threads(1)


def noise(channels=1, side=8):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


def network(seed=0, model="resnet8"):
    return build_network(model, num_classes=3, channels=1, seed=seed).eval()


def test_without_a_side_the_network_is_as_it_was():
    plain = network()
    assert resize_images(plain, None) is plain
    assert INPUT_SIDE not in plain.state_dict()
    assert not plain._forward_pre_hooks


@pytest.mark.parametrize("side", [4, 8, 12, 32])
def test_images_are_resized_as_torchvision_resizes_pictures(side):
    expected = network()(transforms.resize(noise(), [side, side], antialias=True))
    torch.testing.assert_close(resize_images(network(), side)(noise()), expected)


def test_an_evenly_coloured_image_stays_so():
    seen = []
    plain = network()
    plain.conv1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    resize_images(plain, 20)(torch.full((2, 1, 8, 8), 0.25))
    torch.testing.assert_close(seen[0], torch.full((2, 1, 20, 20), 0.25))


def test_the_side_is_part_of_the_weights_and_weights_for_another_size_do_not_fit():
    resized = resize_images(network(), 16)
    assert resized.state_dict()[INPUT_SIDE].item() == 16
    with pytest.raises(RuntimeError, match=r"Unexpected key.*input_side"):
        network().load_state_dict(resized.state_dict())


def test_a_network_that_resizes_is_split_and_tapped_as_without():
    resized = resize_images(network(), 16)
    blocks, head = split(resized, 3)
    with torch.no_grad(), hint_taps(resized, feature_stage=2, side=8) as hints:
        expected = resized(noise())
        features = F.interpolate(noise(), size=(16, 16), mode="bilinear", align_corners=False)
        for block in blocks:
            features = block(features)
    torch.testing.assert_close(head(features), expected)
    assert hints[0].shape == (2, 32, 8, 8)


def save(world, model, image_size, name):
    """A teacher of fresh weights, as train_teacher leaves it."""
    fitting = FittingKnobs(recipe="plain", epochs=0)
    setup = open_teacher_setup("teacher", world.dataset, None, "all", SHIFTS, fitting, RecipeKnobs())
    setup = setup.normalised(setup.dataset.mean, setup.dataset.std)
    files = TeacherFiles(name, "all", world.dataset, None, world.root / f"{name}.safetensors")
    fresh = build_network(model, len(setup.class_ids), setup.dataset.channels, seed=0)
    train_and_save("train_teacher", fresh, setup, NetworkKnobs(model=model, image_size=image_size), files.weights_path)
    return files


@pytest.mark.slow
def test_a_teacher_is_asked_about_resized_views_and_its_soft_labels_are_its_own(tmp_path):
    world = make_world(tmp_path, per_class=2)
    dataset = open_dataset(world.dataset)
    batches, ids = plain_batches(dataset), dataset.sample_ids("train")[:4]
    plain, large = (load_teacher(save(world, "resnet8", side, f"t{side}"), dataset) for side in (None, 16))
    views = ids * 0 + 3
    with teacher_forward(large, batches) as asked:
        logits, _ = asked.outputs(ids, views)
    images = normalise(batches.views(ids, views), dataset.mean, dataset.std)
    with torch.inference_mode():
        resized = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False)
        expected = forward(plain.network.eval(), resized, RecipeKnobs()).float()
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))
    assert plain.digest != large.digest


@pytest.mark.slow
def test_a_network_of_fixed_size_can_teach_small_grey_images(tmp_path):
    world = make_world(tmp_path, per_class=2)
    with pytest.raises(NetworkError, match=r"'timm:test_vit': cannot take images of 1×8×8: .*; change image_size or"):
        save(world, "timm:test_vit", None, "small")
    teacher = load_teacher(save(world, "timm:test_vit", 160, "large"), open_dataset(world.dataset))
    assert teacher.network(noise()).shape == (2, 10)


@pytest.mark.parametrize("image_size", [3, 1025, 8.5])
def test_sizes_out_of_range_are_refused(image_size):
    with pytest.raises(ValidationError, match="image_size"):
        NetworkKnobs(model="resnet8", image_size=image_size)
