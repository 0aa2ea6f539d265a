import functools
import hashlib
import http.server
import pickle
import threading
import urllib.error

import pytest
import safetensors.torch
import torch

from edpipe.errors import NetworkError, TeacherError
from edpipe.models.pretrained.fetch import WEIGHTS_FOLDER, Normalisation, Wanted, fetch_weights
from edpipe.models.zoo.build import build_network
from edpipe.params.teacher import NetworkKnobs

torch.set_num_threads(1)


class Malice:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a weights file was run')",))


@pytest.fixture
def weights():
    return build_network("resnet8", num_classes=4, channels=1, seed=7).state_dict()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_knobs(path, model="resnet8", source="file", location=None, weights_key=None):
    return NetworkKnobs(
        model=model, source=source, location=location or str(path), sha256=sha256(path), weights_key=weights_key
    )


def fetch(knobs, num_classes=4, channels=1, seed=0):
    names = tuple(f"class {number}" for number in range(num_classes))
    return fetch_weights(knobs, Wanted("teacher t/all", names, names, channels, seed, WEIGHTS_FOLDER))


def assert_holds(network, weights, besides=()):
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items() if name not in besides)


def refused(knobs, message, **options):
    with pytest.raises(TeacherError, match=message) as error:
        fetch(knobs, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module.", "nested"])
def test_a_torch_checkpoint_is_read_however_it_is_wrapped(tmp_path, weights, wrap):
    path = tmp_path / "teacher.pth"
    prefixed = {f"module.{name}": value for name, value in weights.items()}
    contents = {
        "plain": weights,
        "state_dict": {"state_dict": weights, "epoch": 3},
        "model": {"model": weights},
        "module.": prefixed,
        "nested": {"epoch": 1, "model": prefixed},
    }
    torch.save(contents[wrap], path)
    fetched = fetch(file_knobs(path))
    assert_holds(fetched.network, weights)
    assert not fetched.fresh_classifier
    assert fetched.normalisation is None
    assert fetched.trained_at is None


def two_sets(weights):
    return weights, {name: value + 1 for name, value in weights.items()}


@pytest.mark.parametrize(
    ("usual", "other", "shown"),
    [
        ("state_dict", "state_dict_ema", "state_dict_ema"),
        ("model", "model_ema", "model_ema"),
        ("model", "ema", "ema"),
        ("module", "ema", "ema.module"),
        ("model_state_dict", "ema_state_dict", "ema_state_dict"),
    ],
)
def test_of_several_sets_the_usual_one_is_taken_with_a_line(tmp_path, weights, capsys, usual, other, shown):
    path = tmp_path / "teacher.pth"
    first, second = two_sets(weights)
    torch.save({other: {"module": second} if "." in shown else second, usual: first, "epoch": 3}, path)
    assert_holds(fetch(file_knobs(path)).network, first)
    assert capsys.readouterr().err == (
        f"{path}: takes the weights of '{usual}', not of '{shown}'; to choose, give network.weights_key\n"
    )
    assert_holds(fetch(file_knobs(path, weights_key=shown)).network, second)
    assert_holds(fetch(file_knobs(path, weights_key=usual)).network, first)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("keys", [("teacher", "student"), ("state_dict", "model"), ("ema", "ema_slow")])
def test_several_sets_without_a_usual_one_are_refused(tmp_path, weights, keys):
    path = tmp_path / "teacher.pth"
    first, second = two_sets(weights)
    torch.save({keys[0]: first, keys[1]: second, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, path)
    named = f"'{keys[0]}', '{keys[1]}'"
    refused(
        file_knobs(path),
        f"holds 2 state_dicts, and does not say which is meant; give network.weights_key, one of {named}$",
    )
    assert_holds(fetch(file_knobs(path, weights_key=keys[1])).network, second)
    refused(file_knobs(path, weights_key="ema_fast"), f"network.weights_key is 'ema_fast'; allowed: {named}$")


def test_a_set_under_an_unusual_key_is_taken_if_it_is_the_only_one(tmp_path, weights, capsys):
    path = tmp_path / "teacher.pth"
    torch.save({"epoch": 1, "rng": torch.ones(2), "student": {"encoder": weights}}, path)
    assert_holds(fetch(file_knobs(path)).network, weights)
    assert capsys.readouterr().err == ""


def test_a_key_for_a_file_without_keys_is_refused(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    refused(file_knobs(path, weights_key="ema"), "the file is one state_dict without such keys; remove the knob$")
    torch.save({"epoch": 3}, path)
    refused(file_knobs(path, weights_key="ema"), "the file holds no state_dict; save the network's$")


def test_two_sets_under_the_same_dotted_key_are_refused(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save({"a.b": weights, "a": {"b": weights}}, path)
    refused(file_knobs(path), "two of its state_dicts are under 'a.b'; save the one that is meant alone$")


def test_a_checkpoint_that_contains_itself_ends(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    contents = {"epoch": 3}
    contents["again"] = contents
    torch.save(contents, path)
    refused(file_knobs(path), "'epoch' is int, not a tensor")
    contents["model"] = weights
    torch.save(contents, path)
    assert_holds(fetch(file_knobs(path)).network, weights)


def test_an_absent_key_leaves_no_trace_in_the_knobs(tmp_path, weights):
    assert "weights_key" not in NetworkKnobs(model="resnet8").model_dump(mode="json")
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    assert file_knobs(path, weights_key="ema").model_dump(mode="json")["weights_key"] == "ema"


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path, weights):
    path = tmp_path / "teacher.bin"
    safetensors.torch.save_file(weights, path)
    assert_holds(fetch(file_knobs(path)).network, weights)


def test_half_precision_weights_become_single_precision(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in weights.items()}, path)
    network = fetch(file_knobs(path)).network
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_a_classifier_for_other_classes_is_drawn_afresh(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    fetched = fetch(file_knobs(path), num_classes=9, seed=5)
    network = fetched.network
    again = fetch(file_knobs(path), num_classes=9, seed=5).network
    other = fetch(file_knobs(path), num_classes=9, seed=6).network
    assert fetched.fresh_classifier
    assert_holds(network, weights, besides=("fc.weight", "fc.bias"))
    assert torch.equal(network.fc.weight, build_network("resnet8", 9, 1, seed=5).fc.weight)
    assert torch.equal(network.fc.weight, again.fc.weight)
    assert not torch.equal(network.fc.weight, other.fc.weight)


def test_fetching_leaves_the_generator_alone(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    before = torch.get_rng_state()
    fetch(file_knobs(path))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["timm:resnet18", "torchvision:resnet18"])
def test_weights_of_library_models_are_read_from_a_file(tmp_path, model):
    path = tmp_path / "teacher.safetensors"
    weights = build_network(model, num_classes=4, channels=1, seed=7).state_dict()
    safetensors.torch.save_file(weights, path)
    fetched = fetch(file_knobs(path, model), num_classes=6)
    network = fetched.network
    assert fetched.fresh_classifier
    assert_holds(network, weights, besides=("fc.weight", "fc.bias"))


def test_another_sha256_is_refused_with_both(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    knobs = NetworkKnobs(model="resnet8", source="file", location=str(path), sha256="0" * 64)
    refused(knobs, rf"{path}: has sha256 {sha256(path)}, but {'0' * 64} is declared")


def test_sha256_is_checked_before_the_file_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "teacher.pth"
    path.write_bytes(pickle.dumps(Malice()))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("decoded"))
    refused(NetworkKnobs(model="resnet8", source="file", location=str(path), sha256="0" * 64), "has sha256")


def test_a_missing_file_is_an_error(tmp_path):
    knobs = NetworkKnobs(model="resnet8", source="file", location=str(tmp_path / "none.pth"), sha256="0" * 64)
    refused(knobs, r"none.pth: the teacher's weights cannot be read: No such file or directory; put the file there")


@pytest.mark.parametrize("save", [lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)), torch.save])
def test_code_in_a_checkpoint_is_never_run(tmp_path, save):
    path = tmp_path / "teacher.pth"
    save({"state_dict": Malice()}, path)
    refused(
        file_knobs(path), r"teacher.pth: holds objects of \S*exec beside its tensors, .* as they may run code; save"
    )


@pytest.mark.parametrize("content", [b"", b"no weights", b"12345678{", b"PK\x03\x04 broken"])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path, content):
    path = tmp_path / "teacher.pth"
    path.write_bytes(content)
    refused(file_knobs(path), r"is neither safetensors nor a torch checkpoint .*save the network's state_dict")


def test_a_truncated_checkpoint_is_refused(tmp_path, weights):
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-10])
    refused(file_knobs(path), r"is neither safetensors nor")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([1, 2], "holds no weights but a list"),
        ({}, "holds no weights but an empty dict"),
        ({"epoch": 3}, "'epoch' is int, not a tensor"),
        ({3: torch.ones(1)}, "3 is not the name of a weight"),
    ],
)
def test_checkpoints_without_weights_are_refused(tmp_path, contents, message):
    path = tmp_path / "teacher.pth"
    torch.save(contents, path)
    refused(file_knobs(path), message)


def test_names_that_do_not_fit_are_refused_by_name(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    weights["layer9.weight"] = weights.pop("conv1.weight")
    torch.save(weights, path)
    refused(
        file_knobs(path), r"names do not fit the model: 1 missing, first 'conv1.weight'; 1 unexpected, first 'layer9"
    )


def test_another_depth_is_refused(tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(build_network("resnet14", num_classes=4, channels=1, seed=0).state_dict(), path)
    refused(file_knobs(path), r"\d+ unexpected, first 'layer1.1.conv1.weight'; correct model")


def test_another_width_is_refused(tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(build_network("resnet8x2", num_classes=4, channels=1, seed=0).state_dict(), path)
    refused(file_knobs(path), r"weight \S+ has shape \(\S.*\), but the model needs \(")


def test_weights_that_are_not_finite_are_refused(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    weights["bn1.weight"][0] = float("nan")
    torch.save(weights, path)
    refused(file_knobs(path), r"weight bn1.weight holds numbers that are not finite")


def test_a_file_address_is_fetched(tmp_path, weights):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    assert_holds(fetch(file_knobs(path, source="url", location=path.as_uri())).network, weights)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server_address(tmp_path):
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Fetched weights are kept below the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_proxy")
def test_an_address_is_fetched_once_for_all_teachers(tmp_path, weights, server_address):
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    knobs = file_knobs(path, source="url", location=f"{server_address}/teacher.pth")
    fetch(knobs)
    kept = WEIGHTS_FOLDER / knobs.sha256
    assert kept.read_bytes() == path.read_bytes()
    path.unlink()
    assert_holds(fetch(knobs, num_classes=3).network, weights, besides=("fc.weight", "fc.bias"))
    kept.write_bytes(kept.read_bytes()[:-1])
    refused(knobs, rf"^{kept}: has sha256 [0-9a-f]{{64}}, but {knobs.sha256} is declared; fetch it again")


@pytest.mark.usefixtures("no_proxy")
def test_an_address_with_other_bytes_is_refused_and_nothing_is_kept(tmp_path, weights, server_address):
    torch.save(weights, tmp_path / "teacher.pth")
    knobs = NetworkKnobs(model="resnet8", source="url", location=f"{server_address}/teacher.pth", sha256="0" * 64)
    refused(knobs, rf"teacher.pth has SHA256 [0-9a-f]{{64}}, but {'0' * 64} is wanted; correct location, or sha256")
    assert not any((tmp_path / "data/weights").iterdir())


@pytest.mark.usefixtures("no_proxy")
def test_an_http_address_is_fetched(tmp_path, weights, server_address):
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(weights, path)
    network = fetch(file_knobs(path, source="url", location=f"{server_address}/teacher.safetensors")).network
    assert_holds(network, weights)


@pytest.mark.usefixtures("no_proxy")
def test_an_address_that_answers_404_is_an_error(server_address):
    knobs = NetworkKnobs(model="resnet8", source="url", location=f"{server_address}/none.pth", sha256="0" * 64)
    refused(knobs, r"none.pth: the teacher's weights cannot be fetched \(HTTPError: HTTP Error 404.*use source: file")


def test_no_network_is_an_error_with_a_remedy(monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("edpipe.storage.download.urlopen", unreachable)
    knobs = NetworkKnobs(model="resnet8", source="url", location="https://example.org/t.pth", sha256="0" * 64)
    refused(knobs, r"t.pth: .* cannot be fetched \(URLError: .*not known.*check the address and the network")


def test_other_schemes_are_refused():
    knobs = NetworkKnobs(model="resnet8", source="url", location="ftp://example.org/t.pth", sha256="0" * 64)
    refused(knobs, r"ftp://example.org/t.pth: scheme 'ftp' is not allowed; use one of https, http, file")


@pytest.mark.parametrize("location", ["http://[bad/x", "http://127.0.0.1:9/é"])
def test_addresses_that_are_none_are_one_line(location):
    knobs = NetworkKnobs(model="resnet8", source="url", location=location, sha256="0" * 64)
    refused(knobs, r"the teacher's weights cannot be fetched \(.*check the address")


def test_timm_weights_are_fetched_with_their_normalisation(monkeypatch):
    import timm

    create_model = timm.create_model

    def pretrained(name, pretrained, **options):
        assert pretrained
        return create_model(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", pretrained)
    knobs = NetworkKnobs(model="timm:resnet18", source="timm")
    fetched = fetch(knobs, num_classes=4, channels=3)
    network = fetched.network
    assert network.fc.out_features == 4
    assert fetched.fresh_classifier
    assert fetched.normalisation == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    fetched = fetch(knobs, num_classes=1000, channels=1)
    network = fetched.network
    assert not fetched.fresh_classifier
    assert network.conv1.in_channels == 1
    assert fetched.normalisation.mean == pytest.approx((0.449,))
    assert fetch(knobs, num_classes=2, channels=4).normalisation is None


@pytest.mark.slow
def test_torchvision_weights_are_fetched_with_their_normalisation(monkeypatch):
    from torchvision import models

    asked = []
    get_model = models.get_model

    def pretrained(name, weights, **options):
        asked.append(weights)
        return get_model(name, weights=None, num_classes=options.get("num_classes", 1000))

    monkeypatch.setattr(models, "get_model", pretrained)
    knobs = NetworkKnobs(model="torchvision:resnet18", source="torchvision")
    fetched = fetch(knobs, num_classes=4, channels=1)
    network = fetched.network
    assert asked[0] is models.ResNet18_Weights.DEFAULT
    assert network.fc.out_features == 4
    assert fetched.fresh_classifier
    assert fetched.normalisation.std == pytest.approx((0.2260,), abs=1e-3)
    fetched = fetch(knobs, num_classes=1000, channels=3)
    colour = fetched.network
    assert not fetched.fresh_classifier
    assert fetched.normalisation == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(network.conv1.weight, colour.conv1.weight.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_without_network_is_an_error_with_a_remedy(monkeypatch, library):
    import timm
    from torchvision import models

    def unreachable(*_, **__):
        raise ConnectionError("Max retries exceeded\nwith a long story")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(models, "get_model", unreachable)
    knobs = NetworkKnobs(model=f"{library}:resnet18", source=library)
    refused(knobs, rf"'{library}:resnet18': .* cannot be fetched from {library} \(ConnectionError: Max .*source: file")


def test_a_timm_model_without_pretrained_weights_is_an_error():
    refused(
        NetworkKnobs(model="timm:darknet17", source="timm"),
        "timm has no pretrained weights for it; use another",
    )


def test_unknown_torchvision_weights_are_an_error_with_the_known_ones():
    knobs = NetworkKnobs(model="torchvision:resnet18", source="torchvision", location="IMAGENET1K_V9")
    refused(knobs, r"has no weights 'IMAGENET1K_V9'; location must be one of IMAGENET1K_V1$")


def test_an_unknown_model_is_an_error():
    with pytest.raises(NetworkError, match="unknown model 'resnet9'"):
        fetch(NetworkKnobs(model="resnet9", source="file", location="x", sha256="0" * 64))


def test_nothing_is_fetched_for_a_teacher_to_train():
    with pytest.raises(ValueError, match="source train: nothing to fetch"):
        fetch(NetworkKnobs(model="resnet8", source="train"))
