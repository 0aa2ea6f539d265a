"""Weights of other programs: other names, other classes, another normalisation."""

import argparse
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edpipe.errors import TeacherError
from edpipe.models.pretrained.class_names import output_rows
from edpipe.models.pretrained.classifier import classifier_weights, freeze_all_but_classifier
from edpipe.models.pretrained.fetch import Normalisation, Wanted, fetch_weights
from edpipe.models.pretrained.renaming import renamed, unwrapped, with_counters
from edpipe.models.pretrained.saved_weights import read_saved_weights
from edpipe.models.pretrained.torch_archives import check_archive
from edpipe.models.zoo.build import build_network
from edpipe.params.teacher import NetworkKnobs, TeacherKnobs
from edpipe.storage.digests import sha256_file as sha256

torch.set_num_threads(1)
ANIMALS = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def network():
    return build_network("resnet8", num_classes=len(ANIMALS), channels=1, seed=7).eval()


def saved(tmp_path, weights, **knobs):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    fields = {"model": "resnet8", "source": "file", "location": str(path), "sha256": sha256(path)}
    return NetworkKnobs.model_validate(fields | knobs)


def fetch(knobs, class_names=ANIMALS, known=None, channels=1):
    return fetch_weights(knobs, Wanted("teacher t/all", class_names, known or class_names, channels, 0, Path()))


def refused(message, knobs, **options):
    with pytest.raises(TeacherError, match=message) as error:
        fetch(knobs, **options)
    assert "\n" not in str(error.value)


def assert_same_weights(network, expected):
    own = network.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], value) for name, value in expected.items())


# Names


def test_other_names_in_the_same_order_are_taken_by_order(tmp_path, network):
    weights = {f"_w{number}": value for number, value in enumerate(network.state_dict().values())}
    fetched = fetch(saved(tmp_path, weights, rename="by_order"))
    assert_same_weights(fetched.network, network.state_dict())
    assert not fetched.fresh_classifier


def test_by_order_a_classifier_of_other_classes_is_drawn(tmp_path, network):
    weights = {f"_w{number}": value for number, value in enumerate(network.state_dict().values())}
    fetched = fetch(saved(tmp_path, weights, rename="by_order"), class_names=("ant", "bee"))
    assert fetched.fresh_classifier
    assert torch.equal(fetched.network.conv1.weight, network.conv1.weight)


def test_by_order_needs_as_many_weights(tmp_path, network):
    weights = dict(network.state_dict())
    del weights["fc.bias"]
    refused(r"holds \d+ weights, the model has \d+, so rename: by_order", saved(tmp_path, weights, rename="by_order"))


def test_by_order_shapes_have_to_fit(tmp_path, network):
    weights = dict(network.state_dict())
    weights = {"fc.weight": weights.pop("fc.weight"), **weights}
    refused(
        r"by order fc.weight \(5, 64\) would become conv1.weight \(16, 1, 3, 3\); correct the model",
        saved(tmp_path, weights, rename="by_order"),
    )


def test_by_order_needs_a_file_that_keeps_the_order(tmp_path, network):
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    fields = {"model": "resnet8", "source": "file", "location": str(path), "sha256": sha256(path)}
    refused(
        "safetensors keep no order, so rename: by_order is not allowed",
        NetworkKnobs.model_validate(fields | {"rename": "by_order"}),
    )


def test_beginnings_of_names_are_changed_and_left_aside(tmp_path, network):
    weights = {f"body.{name}": value for name, value in network.state_dict().items() if not name.startswith("fc")}
    weights |= {"body.last.weight": network.fc.weight.detach(), "body.last.bias": network.fc.bias.detach()}
    weights |= {"body.aux.weight": torch.ones(3)}
    rename = {"body.": "", "body.last.": "fc.", "body.aux.": None}
    fetched = fetch(saved(tmp_path, weights, rename=rename))
    assert_same_weights(fetched.network, network.state_dict())


def test_a_beginning_that_no_name_has_is_refused(tmp_path, network):
    refused(
        r"rename: no weight's name begins with 'bodi.'; the first is 'conv1.weight'",
        saved(tmp_path, dict(network.state_dict()), rename={"bodi.": ""}),
    )


def test_two_weights_of_one_name_are_refused(tmp_path, network):
    refused(
        r"rename: '(bn1|conv1)\S+' and \S+ both become",
        saved(tmp_path, dict(network.state_dict()), rename={"bn1.weight": "x", "bn1.bias": "x"}),
    )


NAMES = st.text("ab.", min_size=1, max_size=4)


@given(st.lists(NAMES, min_size=1, unique=True), st.dictionaries(NAMES, NAMES, max_size=3), st.randoms())
def test_the_order_of_beginnings_makes_no_difference(names, rename, random):
    weights = {name: torch.ones(1) for name in names}
    shuffled = list(rename.items())
    random.shuffle(shuffled)

    def attempt(rename):
        try:
            return list(renamed(weights, weights, rename, True, "here"))
        except TeacherError:
            return "refused"

    assert attempt(dict(shuffled)) == attempt(rename)


@given(st.lists(NAMES, min_size=1, unique=True), st.dictionaries(NAMES, NAMES, min_size=1, max_size=3))
def test_a_renamed_weight_keeps_its_rest_behind_the_longest_beginning(names, rename):
    weights = {name: torch.ones(1) for name in names}
    try:
        found = renamed(weights, {}, rename, True, "here")
    except TeacherError:
        return
    for name in names:
        fitting = sorted((prefix for prefix in rename if name.startswith(prefix)), key=len)
        expected = rename[fitting[-1]] + name[len(fitting[-1]) :] if fitting else name
        assert expected in found


def test_batch_counters_that_were_not_saved_are_zero(tmp_path, network):
    weights = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    for knobs in ({}, {"rename": "by_order"}):
        fetched = fetch(saved(tmp_path, weights, **knobs)).network
        assert_same_weights(fetched, with_counters(weights, network.state_dict()))
        assert fetched.bn1.num_batches_tracked == 0


# Classes


def test_classes_are_picked_by_name(tmp_path, network):
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    knobs = saved(tmp_path, dict(network.state_dict()), class_names=list(ANIMALS), class_map={"hound": "dog"})
    fetched = fetch(knobs, class_names=("hound", "ant"))
    assert not fetched.fresh_classifier
    with torch.no_grad():
        torch.testing.assert_close(fetched.network.eval()(images), network(images)[:, [3, 0]])


def test_a_specialist_has_the_outputs_of_its_subset(tmp_path, network):
    knobs = saved(tmp_path, dict(network.state_dict()), class_names=list(ANIMALS), class_map={"hound": "dog"})
    fetched = fetch(knobs, class_names=("cat", "bee"), known=("bee", "cat", "hound"))
    assert torch.equal(fetched.network.fc.weight, network.fc.weight[[2, 1]])


@pytest.mark.parametrize(
    ("class_map", "class_names", "message"),
    [
        ({}, ("ant", "horse"), "network.class_names has no 'horse' for class 'horse'; name it in network.class_map"),
        ({}, ("ant", "dogs"), "no 'dogs' for class 'dogs'; name it in network.class_map; did you mean 'dog'"),
        ({"ant": "cat"}, ("ant", "cat"), "classes 'ant' and 'cat' are both output 2; tell them apart"),
        ({"wolf": "dog"}, ("ant", "cat"), "network.class_map: the dataset has no class 'wolf'; known: ant, cat"),
    ],
)
def test_classes_that_cannot_be_told_are_refused(tmp_path, network, class_map, class_names, message):
    knobs = saved(tmp_path, dict(network.state_dict()), class_names=list(ANIMALS), class_map=class_map)
    refused(f"^teacher t/all: .*{message}", knobs, class_names=class_names)


def test_another_number_of_outputs_than_names_is_refused(tmp_path, network):
    knobs = saved(tmp_path, dict(network.state_dict()), class_names=["ant", "bee", "cat"])
    refused("class_names lists 3 classes, but the weights are for another number", knobs, class_names=("ant", "bee"))


@settings(max_examples=30)
@given(st.permutations(ANIMALS), st.data())
def test_rows_are_the_places_of_the_names(listed, data):
    wanted = data.draw(st.lists(st.sampled_from(ANIMALS), min_size=1, unique=True))
    rows = output_rows(wanted, tuple(listed), {}, ANIMALS, "t")
    assert [listed[row] for row in rows] == wanted


@pytest.mark.parametrize("name", ["n01491361", "tiger shark", "Tiger_Shark", "Galeocerdo cuvieri"])
def test_imagenet_classes_have_an_id_and_several_names(name):
    assert output_rows((name,), "imagenet", {}, (name,), "t") == [3]


def test_an_imagenet_name_of_two_classes_is_refused():
    with pytest.raises(TeacherError, match=r"outputs 134, 517 are all called 'crane'; name its WordNet id"):
        output_rows(("crane",), "imagenet", {}, ("crane",), "t")
    assert output_rows(("crane",), "imagenet", {"crane": "n02012849"}, ("crane",), "t") == [134]


# Normalisation


def test_a_declared_normalisation_is_the_networks_own(tmp_path, network):
    knobs = saved(tmp_path, dict(network.state_dict()), mean=[0.5], std=[0.25])
    assert fetch(knobs).normalisation == Normalisation((0.5,), (0.25,))


@pytest.fixture(scope="module")
def colour_network():
    return build_network("resnet8", num_classes=len(ANIMALS), channels=3, seed=7).eval()


def test_weights_for_colours_are_summed_for_grey_images(tmp_path, colour_network):
    fetched = fetch(saved(tmp_path, dict(colour_network.state_dict()), mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3]))
    grey = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = colour_network(grey.expand(-1, 3, -1, -1))
        assert torch.allclose(fetched.network.eval()(grey), expected, atol=1e-5)
    assert fetched.normalisation.mean == pytest.approx((0.5,))
    assert fetched.normalisation.std == pytest.approx((0.25,))


def test_weights_for_grey_are_refused_for_colours(tmp_path, network):
    refused(
        r"conv1.weight has shape \(16, 1, 3, 3\), but the model needs \(16, 3, 3, 3\)",
        saved(tmp_path, dict(network.state_dict())),
        channels=3,
    )


# Wrappers


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.model."])
def test_wrappers_of_every_name_are_seen_through(tmp_path, network, wrapper):
    weights = {wrapper + name: value for name, value in network.state_dict().items()}
    checkpoint = {"epoch": 3, "model_state_dict": weights, "optimizer_state_dict": {"state": {0: {"a": torch.ones(1)}}}}
    assert_same_weights(fetch(saved(tmp_path, checkpoint)).network, network.state_dict())


def test_a_wrapper_that_the_network_has_itself_stays(network):
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    assert unwrapped(weights, weights) == weights


def test_names_beside_a_wrapped_network_are_refused_with_the_renaming_that_fits(tmp_path, network):
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    checkpoint = {"state_dict": weights | {"loss.weight": torch.ones(2)}, "pytorch-lightning_version": "2"}
    refused(r'; they fit with network.rename: \{"model.": "", "loss.": null\}$', saved(tmp_path, checkpoint))
    rename = {"model.": "", "loss.": None}
    assert_same_weights(fetch(saved(tmp_path, checkpoint, rename=rename)).network, network.state_dict())


def test_a_running_mean_of_torch_is_refused_with_the_renaming_that_fits(tmp_path, network):
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    refused(r'network.rename: \{"module.": "", "n_averaged": null\}$', saved(tmp_path, dict(averaged)))


def test_names_that_no_renaming_mends_are_refused(tmp_path, network):
    weights = {f"{number}": value for number, value in enumerate(network.state_dict().values())}
    refused(r"; correct model or location, or give network.rename$", saved(tmp_path, weights))


# What is not read


def test_a_file_that_inflates_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as member:
        for _ in range(70):
            member.write(bytes(2**20))
    data = path.read_bytes()
    with pytest.raises(TeacherError) as error:
        read_saved_weights(data, "bomb.pth")
    assert str(error.value) == (
        f"bomb.pth: its {len(data):,} bytes would become 73,400,320 when they are read, allowed are 20 times as many; "
        "save the network's state_dict with torch.save, without compressing it"
    )


def test_weights_that_somebody_compressed_are_read(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member))
    check_archive((tmp_path / "small.pth").read_bytes(), "small.pth")


def test_other_objects_in_a_checkpoint_are_named(tmp_path, network):
    checkpoint = {"args": argparse.Namespace(a=1), "model": dict(network.state_dict())}
    refused(r"holds objects of argparse.Namespace beside its tensors, which are not read", saved(tmp_path, checkpoint))


def test_a_torchscript_program_is_not_run(tmp_path):
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/data.pkl", b"")
        archive.writestr("program/code/__torch__.py", b"")
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(TeacherError, match=r"program.pt: is a TorchScript program, which is not run; save its weights"):
        read_saved_weights(path.read_bytes(), "program.pt")


def test_a_normalisation_of_other_channels_is_refused(tmp_path, network):
    knobs = saved(tmp_path, dict(network.state_dict()), mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    refused("network.mean has 3 numbers, the dataset's images have 1 channels", knobs)


# Knobs

FILE = {"model": "resnet8", "source": "file", "location": "x", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"model": "resnet8", "rename": "by_order"}, "source: train takes no rename"),
        ({"model": "resnet8", "weights_key": "ema"}, "source: train takes no weights_key"),
        ({"model": "timm:resnet18", "source": "timm", "mean": [0.5], "std": [0.5]}, "source: timm takes no mean"),
        (FILE | {"mean": [0.5]}, "mean and std go together"),
        (FILE | {"mean": [0.5], "std": [0.0]}, "greater than 0"),
        (FILE | {"mean": [127.0], "std": [128.0]}, "less than or equal to 1"),
        ({"model": "resnet8", "class_names": "imagenet"}, "source: train takes no class_names"),
        (FILE | {"class_map": {"a": "b"}}, "class_map needs class_names"),
        (FILE | {"class_names": ["a", "b", "a"]}, "class_names has 'a' twice"),
        (FILE | {"class_names": ["a"]}, "at least 2"),
    ],
)
def test_knobs_that_do_not_go_together_are_refused(knobs, message):
    with pytest.raises(ValidationError, match=message):
        NetworkKnobs.model_validate(knobs)


@pytest.mark.parametrize(
    ("network", "epochs", "message"),
    [
        ({"model": "resnet8"}, 1, "source: train cannot train the classifier alone"),
        (FILE, 0, "layers: classifier needs fitting.epochs > 0"),
    ],
)
def test_a_probe_needs_fetched_weights_and_epochs(network, epochs, message):
    fitting = {"recipe": "r", "epochs": epochs, "layers": "classifier"}
    with pytest.raises(ValidationError, match=message):
        TeacherKnobs.model_validate({"network": network, "fitting": fitting, "min_top1": 0.0})


# The last layer alone


@pytest.mark.parametrize("model", ["resnet8", "timm:mobilenetv3_small_050", "torchvision:squeezenet1_0"])
def test_only_the_last_layer_is_left_to_learn(model):
    network = build_network(model, num_classes=3, channels=3, seed=0)
    freeze_all_but_classifier(network)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == set(classifier_weights(network))
    assert all(network.state_dict()[name].shape[0] == 3 for name in learning)
