"""`edpipe zoo`: which networks it lists, what it says of them, and what it refuses."""

import json
from pathlib import Path

import pytest

from edpipe.cli.commands.zoo import markdown_lines, models_of, table_of
from edpipe.cli.main import main
from edpipe.cli.network_description import Description, describe
from edpipe.models.zoo.names import PAPERS_MODELS, is_known

DOCS = Path(__file__).resolve().parents[2] / "docs" / "networks.md"


@pytest.fixture
def described(monkeypatch):
    """The names that are described, none of which is built."""
    names = []

    def pretend(model, *sizes):
        names.append(model)
        return Description(model, 1234, 5_000_000, ((4, 8, 8),), "has 1 feature stages, a school needs 2")

    monkeypatch.setattr("edpipe.cli.network_description.describe", pretend)
    return names


def test_without_a_pattern_the_networks_of_the_papers_are_listed(described):
    assert main(["zoo"]) == 0
    assert tuple(described) == PAPERS_MODELS
    assert all(is_known(model) for model in PAPERS_MODELS)


def test_only_what_fits_the_pattern_is_built(described):
    assert main(["zoo", "resnet1[08]", "--library", "timm"]) == 0
    assert described == ["timm:resnet18"]


@pytest.mark.parametrize(
    ("pattern", "library", "models"),
    [
        ("vgg1?", "own", ("vgg11", "vgg13", "vgg16", "vgg19")),
        ("wrn_22_3", "own", ("wrn_22_3",)),
        ("timm:resnet18", "timm", ("timm:resnet18",)),
        ("squeezenet*", "torchvision", ("torchvision:squeezenet1_0", "torchvision:squeezenet1_1")),
    ],
)
def test_patterns_choose_names_as_in_params_yaml(pattern, library, models):
    assert models_of(pattern, library) == models


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg12"], "unknown model 'vgg12': did you mean 'vgg"),
        (["resnet81", "--library", "timm"], "unknown model 'timm:resnet81': did you mean 'timm:resnet"),
        (["q*"], "zoo: no network of own fits 'q*'; there are "),
        (["--library", "timm"], "zoo: timm has hundreds of networks, and each that is listed is built; give a pattern"),
    ],
)
def test_what_cannot_be_listed_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(["zoo", *words]) == 2
    assert capsys.readouterr().err.startswith(f"edpipe: {message}")


@pytest.mark.parametrize("word", ["0", "-1", "x"])
def test_sizes_are_whole_numbers_of_at_least_one(word, capsys):
    assert main(["zoo", "--classes", word]) == 2
    assert f"argument --classes: invalid whole number from 1 to 100,000 value: '{word}'" in capsys.readouterr().err


def test_the_table_tells_reasons_below(described, capsys):
    assert main(["zoo", "vgg8"]) == 0
    out = capsys.readouterr().out
    assert "vgg8" in out
    assert "1,234" in out
    assert "5.0 M" in out
    assert "vgg8: has 1 feature stages, a school needs 2" in out.splitlines()


def test_json_holds_all_numbers(described, capsys):
    assert main(["zoo", "vgg8", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one == {
        "model": "vgg8",
        "parameters": 1234,
        "macs": 5_000_000,
        "stages": [[4, 8, 8]],
        "problem": "has 1 feature stages, a school needs 2",
    }


def test_a_network_is_described_by_what_it_computes():
    found = describe("resnet8", num_classes=10, channels=1, image_size=28)
    assert found.parameters == 77_754
    assert found.stages == ((16, 28, 28), (32, 14, 14), (64, 7, 7))
    assert found.problem is None
    assert table_of([found]).row_count == 1


def test_a_network_that_takes_no_such_images_says_so():
    found = describe("timm:test_vit", num_classes=10, channels=3, image_size=8)
    assert found.macs is None
    assert found.stages == ()
    assert found.problem is not None
    assert found.problem.startswith("cannot take images of 3×8×8: ")


def test_a_network_that_cannot_be_split_says_why():
    found = describe("timm:test_vit", num_classes=10, channels=3, image_size=160)
    assert found.macs is not None
    assert found.problem is not None
    assert found.problem.startswith("cannot be split into blocks, because its modules run one after another are not")
    assert "teach it" not in found.problem


@pytest.mark.parametrize("model", ["resnet8", "wrn_16_1"])
def test_the_page_has_the_table_that_the_command_prints(model):
    *_, row = markdown_lines([describe(model, num_classes=100, channels=3, image_size=32)])
    assert row in DOCS.read_text(encoding="utf-8").splitlines()


def test_the_page_has_a_row_for_each_network_of_the_papers():
    text = DOCS.read_text(encoding="utf-8")
    assert [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")][
        1 : len(PAPERS_MODELS) + 1
    ] == list(PAPERS_MODELS)
