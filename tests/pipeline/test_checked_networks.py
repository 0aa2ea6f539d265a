"""Networks are built once for each experiment, and again when something that they hang on changes."""

import copy

import pytest
from project import tiny_params

from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.pipeline.jobs import model_checks, paths
from edpipe.pipeline.state import checked_networks
from edpipe.pipeline.state.checked_networks import check_once


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Experiments whose networks were built, in order."""
    monkeypatch.chdir(tmp_path)
    found = []

    def check(params, experiments, with_networks=True):
        found.extend(experiments if with_networks else ())
        model_checks.check_params(params, experiments, with_networks=False)

    monkeypatch.setattr(checked_networks, "check_params", check)
    return found


def changed(change):
    raw = copy.deepcopy(tiny_params())
    change(raw)
    return parse_params(raw)


def test_what_was_found_to_fit_is_not_built_again(built):
    params = parse_params(tiny_params())
    check_once(params, ["ed", "kd"])
    check_once(params, ["ed", "kd"])
    check_once(params, ["ed", "ce"])
    assert built == ["ed", "kd", "ce"]


@pytest.mark.parametrize(
    ("change", "is_built"),
    [
        (lambda raw: raw["experiments"]["ed"]["stages"]["primary"].update(images=64), False),
        (lambda raw: raw["experiments"]["kd"].update(seeds=[0, 1]), False),
        (lambda raw: raw["students"]["resnet8"].update(model="resnet14"), True),
        (lambda raw: raw["teachers"]["specialists"]["network"].update(model="resnet14"), True),
        (lambda raw: raw["datasets"]["digits"].update(image_size=12), True),
        (lambda raw: raw["soft_labels"]["digits"]["storage"].update(attention=True), True),
    ],
)
def test_only_a_change_that_networks_hang_on_builds_them_again(built, change, is_built):
    check_once(parse_params(tiny_params()), ["ed"])
    check_once(changed(change), ["ed"])
    assert built == (["ed", "ed"] if is_built else ["ed"])


@pytest.mark.parametrize("contents", ["", "{}", "[1, 2]", "null", "\x00"])
def test_a_memory_that_is_none_is_written_anew(built, contents):
    params = parse_params(tiny_params())
    check_once(params, ["ed"])
    paths.CHECKED_NETWORKS.write_text(contents)
    check_once(params, ["ed"])
    check_once(params, ["ed"])
    assert built == ["ed", "ed"]


def test_what_does_not_fit_is_not_remembered(built, monkeypatch):
    def refuse(params, experiments, with_networks=True):
        if with_networks:
            raise ParamsError("no")

    monkeypatch.setattr(checked_networks, "check_params", refuse)
    for _ in range(2):
        with pytest.raises(ParamsError, match=r"^no$"):
            check_once(parse_params(tiny_params()), ["ed"])
    assert not paths.CHECKED_NETWORKS.exists()
