"""Records are sealed: what was written is read, and any other content is refused in one line."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edpipe.errors import CorruptFileError
from edpipe.storage.digests import digest_json
from edpipe.storage.records import SEAL, is_sealed, read_json_object, read_record, seal_of, write_record

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.dictionaries(TEXTS.filter(lambda name: name != SEAL), VALUES, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "record.json"


def refused(path, text=None):
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(CorruptFileError) as caught:
        read_record(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.endswith(f"make it again with `snakemake --force {path}`")
    assert "\n" not in line
    return line


@given(CONTENTS)
def test_what_was_written_is_read(path, contents):
    write_record(path, contents)
    assert read_record(path) == contents
    assert read_json_object(path) == contents | {SEAL: seal_of(contents)}
    data = path.read_bytes()
    write_record(path, read_json_object(path))  # a seal among the contents is made anew
    assert path.read_bytes() == data


def places(value, place=()):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place] * bool(place) + [inner for name, part in parts for inner in places(part, (*place, name))]


@given(CONTENTS, VALUES, st.data())
def test_any_other_value_at_any_place_is_refused(path, contents, value, data):
    write_record(path, contents)
    whole = read_json_object(path)
    other, place = copy.deepcopy(whole), data.draw(st.sampled_from(places(whole)))
    part = other
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    if digest_json(other) != digest_json(whole):
        refused(path, json.dumps(other))
        assert not is_sealed(other)


@given(CONTENTS, st.data())
def test_a_key_that_was_taken_out_or_put_in_is_refused(path, contents, data):
    write_record(path, contents)
    whole = read_json_object(path)
    name = data.draw(st.sampled_from(sorted(whole)))
    refused(path, json.dumps({key: value for key, value in whole.items() if key != name}))
    refused(path, json.dumps(whole | {f"{name}x": 1}))


def test_whole_numbers_as_keys_are_read_as_texts(path):
    write_record(path, {"of": {2: "b", 10: "a"}})
    assert read_record(path) == {"of": {"2": "b", "10": "a"}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"top1": 0.5}', "holds no digest of its content ('file_digest'): altered, or written by an older edpipe; "),
        ('{"file_digest": 1}', "altered since written; "),
        ('{"a": 1, "file_digest": "0123456789abcdef"}', "altered since written; "),
        ('{"a": {"b": 1, "b": 2}}', "not a readable record (the key 'b' is there twice); "),
        ('{"a": "\\ud800", "file_digest": "0"}', "altered since written; "),
        ('{"a": 1e999, "file_digest": "0"}', "altered since written; "),
        ("[" * 100_000, "not a readable record (maximum recursion depth exceeded"),
    ],
    ids=["no seal", "a number", "another", "twice", "no Unicode", "infinite", "deep"],
)
def test_what_is_not_sealed_is_refused(path, text, told):
    assert told in refused(path, text)


def test_a_lacking_key_is_named(path):
    write_record(path, {"a": 1})
    assert read_record(path, "a") == {"a": 1}
    with pytest.raises(CorruptFileError, match=r"the record lacks 'b'; make it again"):
        read_record(path, "a", "b")
