"""A sealed JSON file gives back what was written, or one line that says what is wrong with it."""

import json

import pytest

from edpipe.errors import CorruptFileError
from edpipe.storage.digests import digest_json
from edpipe.storage.records import is_sealed
from edpipe.storage.sealed_json import JsonFormat, read_sealed_json, write_sealed_json

FORMAT = JsonFormat("edpipe-list", 2, "list")
EDITED = JsonFormat("edpipe-list", 2, "list", instead="params.yaml")


@pytest.fixture
def path(tmp_path):
    write_sealed_json(tmp_path / "list.json", FORMAT, {"names": ["ä", "b"], "share": 0.5})
    return tmp_path / "list.json"


def refused(path, form=FORMAT, parse=dict):
    with pytest.raises(CorruptFileError) as caught:
        read_sealed_json(path, form, parse)
    return str(caught.value)


def reseal(path, **changes):
    contents = json.loads(path.read_text()) | changes
    del contents["file_digest"]
    path.write_text(json.dumps(contents | {"file_digest": digest_json(contents)}))


def test_what_was_written_comes_back_with_its_format(path):
    expected = {"names": ["ä", "b"], "share": 0.5, "format": "edpipe-list", "format_version": 2}
    assert read_sealed_json(path, FORMAT, dict) == expected
    assert read_sealed_json(path, FORMAT, lambda contents: contents["names"]) == ["ä", "b"]


def test_a_file_is_sealed_whatever_the_order_and_layout_of_its_text(path):
    contents = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(contents.items()))))
    assert read_sealed_json(path, FORMAT, dict)["share"] == 0.5


def test_contents_without_a_digest_are_not_sealed():
    assert not is_sealed({"a": 1})
    assert is_sealed({"a": 1, "file_digest": digest_json({"a": 1})})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: p.unlink(), "not a readable record ([Errno 2] No such file or directory: '{path}')"),
        (lambda p: p.write_text("["), "not a readable record (Expecting value: line 1 column 2 (char 1))"),
        (lambda p: p.write_text("[]"), "a record must be a JSON object, got list"),
        (lambda p: reseal(p, format="edpipe-result"), "not a list of version 2"),
        (lambda p: reseal(p, format_version=1), "not a list of version 2"),
        (lambda p: p.write_text(p.read_text().replace("0.5", "0.6")), "altered since written"),
        (
            lambda p: p.write_text(p.read_text().replace("file_digest", "digest")),
            "holds no digest of its content ('file_digest'): altered, or written by an older edpipe",
        ),
    ],
    ids=["missing", "no JSON", "no object", "format", "version", "altered", "no digest"],
)
def test_a_file_that_is_not_what_was_written_is_refused(path, spoil, told):
    spoil(path)
    remedy = f"make it again with `snakemake --force {path}`"
    assert refused(path) == f"{path}: {told.format(path=path)}; {remedy}"


def test_people_are_told_what_to_change_instead_of_the_file(path):
    path.write_text(path.read_text().replace("0.5", "0.6"))
    remedy = f"change params.yaml instead, then make it again with `snakemake --force {path}`"
    assert refused(path, EDITED) == f"{path}: altered since written; {remedy}"


@pytest.mark.parametrize(
    ("parse", "error"),
    [
        (lambda contents: contents["absent"], "KeyError('absent')"),
        (lambda contents: float(contents["names"][0]), "ValueError(\"could not convert string to float: 'ä'\")"),
        (lambda contents: contents["share"][0], "TypeError(\"'float' object is not subscriptable\")"),
    ],
)
def test_contents_that_cannot_be_understood_are_refused(path, parse, error):
    remedy = f"make it again with `snakemake --force {path}`"
    assert refused(path, parse=parse) == f"{path}: not a whole list ({error}); {remedy}"
