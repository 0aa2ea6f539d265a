"""The shipped params.yaml files are as DVC would write them: setting one value changes one line."""

import io
import json

import pytest
from shipped import PARAMS_PATH

from edpipe.cli.dvc_form import broken_by_dvc, in_dvc_form
from edpipe.errors import ParamsError
from edpipe.params.yaml_file import parse_text
from edpipe.pipeline.project.files import TEMPLATES

pytest.importorskip("dvc")
FILES = [PARAMS_PATH, TEMPLATES / "params.yaml"]


def rewritten(text):
    """What DVC itself makes of a text, whose value it does not change."""
    from dvc.utils.serialize._yaml import _dump, parse_yaml_for_update

    out = io.StringIO()
    _dump(parse_yaml_for_update(text, "params.yaml"), out)
    return out.getvalue()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_setting_a_value_changes_one_line_of_what_is_shipped(path, tmp_path):
    from dvc.utils.hydra import apply_overrides

    copy, text = tmp_path / "params.yaml", path.read_text(encoding="utf-8")
    copy.write_text(text)
    apply_overrides(copy, ["experiments.digits_ed.stages.middle.learning_rate=0.05"])
    before = "      middle: {images: 8000, learning_rate: 0.1}\n"
    assert text.count(before) == 1
    assert copy.read_text() == text.replace(before, before.replace("0.1", "0.05"))


@pytest.mark.parametrize(
    "text",
    [
        'a: {model: "timm:resnet18", source: timm}\n',
        'a: { b: [ "x:1", y ], c: { d: "e: f" } }\n',
        "a: 'it''s: 1' # why\nb: 5e-4\n",
        'root: "C:/my images"\n',
    ],
)
def test_what_is_put_in_form_keeps_its_values_through_dvc(text):
    form = in_dvc_form(text)
    assert parse_text(form) == parse_text(text)
    assert rewritten(form) == form
    assert parse_text(rewritten(form)) == parse_text(text)


@pytest.mark.parametrize(
    "value", ["timm:resnet18", "a:b:c", "x: y", ":a", "a:", "a, b", "#a", "https://a.b/c", "it's", "5", "a:1"]
)
@pytest.mark.parametrize("form", ["a: {{b: {}}}\n", "a: [{}]\n", "a:\n  b: {}\n"])
def test_what_dvc_breaks_is_found(value, form):
    text = form.format(json.dumps(value))
    try:
        is_broken = parse_text(rewritten(text)) != parse_text(text)
    except ParamsError:
        is_broken = True
    assert (broken_by_dvc(text) is not None) == is_broken


def test_without_the_form_dvc_breaks_a_name_with_a_library():
    with pytest.raises(ParamsError, match="not valid YAML"):
        parse_text(rewritten('a: {model: "timm:resnet18"}\n'))
