"""The journal: whatever a kill or a disk does to it, a line that is whole is read back and no other."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edpipe.errors import StaleJournalError
from edpipe.storage.journal import Journal

KEY = "all-views_0-31-0123456789abcdef"
VALUES = (
    st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans() | st.just("a\n b\r")
)
ENTRIES = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=5)
SOME = [{"block": 0, "digest": 2**64 - 1}, {"block": 1, "kl_max": float("inf")}, {"block": 2, "kl_sum": 0.1 + 0.2}]
MORE = {"block": 9}
ALTERATIONS = st.tuples(st.integers(0, 10_000), st.integers(1, 255))


def read(path, key=KEY):
    journal = Journal(path, key)
    journal.close()
    return journal.entries


def append(path, *entries, key=KEY):
    """What was there before, and then these entries."""
    journal = Journal(path, key)
    for entry in entries:
        journal.append(entry)
    journal.sync()
    journal.close()
    return journal.entries


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One file for all examples of a property; each writes it anew."""
    return tmp_path_factory.mktemp("journal") / "journal"


def content(path, entries, key=KEY):
    """The bytes of a journal of these entries."""
    path.unlink(missing_ok=True)
    append(path, *entries, key=key)
    return path.read_bytes()


@pytest.mark.slow
@settings(deadline=None)
@given(ENTRIES, st.integers(0, 5))
def test_what_was_appended_is_read_back_however_often_it_was_opened(path, entries, cut):
    path.unlink(missing_ok=True)
    assert append(path, *entries[:cut]) == []
    assert append(path, *entries[cut:]) == entries[:cut]
    assert read(path) == entries


def test_equal_entries_give_equal_bytes_one_line_each(path):
    data = content(path, SOME)
    assert content(path, [dict(reversed(entry.items())) for entry in SOME]) == data
    assert data.count(b"\n") == 1 + len(SOME)


def test_a_line_torn_at_any_byte_is_as_if_never_written(path):
    data = content(path, SOME)
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        # A line that lacks nothing but its end is whole.
        whole = max(sum(1 for start in range(len(SOME) + 1) if size >= end_of(data, start)), 1) - 1
        assert read(path) == SOME[:whole], size
        path.write_bytes(data[:size])
        assert append(path, MORE) == SOME[:whole], size
        assert read(path) == [*SOME[:whole], MORE], size
        assert append(path, MORE) == [*SOME[:whole], MORE], size


def end_of(data, line):
    """Where a line ends, its line break not counted."""
    position = -1
    for _ in range(line + 1):
        position = data.index(b"\n", position + 1)
    return position


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(ALTERATIONS)
def test_an_altered_line_is_dropped_and_no_other(path, alteration):
    data = content(path, SOME)
    first = end_of(data, 0) + 1
    place = first + alteration[0] % (len(data) - first)
    altered = bytearray(data)
    altered[place] ^= alteration[1]
    path.write_bytes(altered)
    line = data[first:place].count(b"\n")
    # An altered line break joins two lines, neither of which can be told from the other.
    lost = {line, line + 1} if data[place : place + 1] == b"\n" else {line}
    kept = [entry for number, entry in enumerate(SOME) if number not in lost]
    assert read(path) == kept
    assert append(path, MORE) == kept
    assert read(path) == [*kept, MORE]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=4), st.integers(0, 3))
def test_garbage_between_lines_is_passed_over(path, garbage, place):
    lines = content(path, SOME).splitlines(keepends=True)
    junk = [data.replace(b"\n", b"") + b"\n" for data in garbage]
    path.write_bytes(b"".join([*lines[: place + 1], *junk, *lines[place + 1 :]]))
    assert read(path) == SOME


@pytest.mark.parametrize("junk", [b"00000000", b" 00000000", b"\0" * 40, b"\r", b"{} 0"])
def test_a_line_without_text_is_no_entry(path, junk):
    path.write_bytes(content(path, SOME) + junk + b"\n")
    assert read(path) == SOME


@pytest.mark.parametrize("entries", [[], SOME])
def test_a_journal_of_another_key_is_refused_in_one_line_and_left_alone(path, entries):
    data = content(path, entries, key="all-views_0-31-fedcba9876543210")
    with pytest.raises(StaleJournalError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: belongs to another dump, or is no journal; remove the folder {path.parent} and start again"
    )
    assert path.read_bytes() == data


@pytest.mark.parametrize("foreign", [b"no journal", b"\n\n{}\n", b'{"key"', b"\0" * 100])
def test_what_is_no_journal_is_refused(path, foreign):
    path.write_bytes(foreign)
    if content(path.with_name("other"), [])[: len(foreign)] == foreign:
        assert read(path) == []
        return
    path.write_bytes(foreign)
    with pytest.raises(StaleJournalError, match="or is no journal"):
        read(path)


def test_a_journal_whose_first_line_is_altered_is_refused(path):
    data = bytearray(content(path, SOME))
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(StaleJournalError):
        read(path)


def test_short_writes_are_completed(path, monkeypatch):
    path.unlink(missing_ok=True)
    write = os.write
    monkeypatch.setattr("edpipe.storage.journal.os.write", lambda descriptor, data: write(descriptor, data[:7]))
    append(path, *SOME)
    monkeypatch.undo()
    assert read(path) == SOME


def test_sync_waits_for_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr("edpipe.storage.journal.os.fsync", synced.append)
    append(path, MORE)
    assert len(synced) == 1
