"""Fetching one file over HTTP from a server in this process: whole, broken off, gone on with, refused."""

import fcntl
import hashlib
from http.client import HTTPException
from urllib.error import URLError

import file_server
import numpy as np
import pytest
from cifar_examples import PER_PART, small_publication
from layouts import make_cifar

from edpipe.datasets.readers import cifar
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.storage import download
from edpipe.storage.download import Digest, fetch

BODY = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(BODY).hexdigest()
NAME = "file.tar.gz"
PART = f".{NAME}.part"


@pytest.fixture
def server(server, monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0)
    server.body, server.address = BODY, f"{server.folder}/{NAME}"
    return server


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("says_length", [True, False])
def test_file_is_fetched_whole_into_a_new_folder(tmp_path, server, capsys, says_length):
    server.says_length = says_length
    goal = tmp_path / "new" / NAME
    fetch(server.address, goal, Digest("MD5", MD5))
    assert goal.read_bytes() == BODY
    assert names_in(goal.parent) == [NAME]
    assert capsys.readouterr().err == f"fetch {server.address}: 0/{'1' if says_length else '?'} MB\n"


def test_broken_download_goes_on_where_it_was(tmp_path, server):
    goal, server.cut = tmp_path / NAME, 300_000
    for cut, came in ((300_000, "300,000"), (700_000, "700,000")):
        server.cut = cut
        text = rf"^{came} of 1,000,000 bytes of {server.address} came; call again to go on from there$"
        with pytest.raises(OSError, match=text):
            fetch(server.address, goal, Digest("MD5", MD5))
        assert names_in(tmp_path) == [PART]
        assert (tmp_path / PART).read_bytes() == BODY[:cut]
    server.cut = None
    fetch(server.address, goal, Digest("MD5", MD5))
    assert goal.read_bytes() == BODY
    # Each call asks once more, and ends where nothing more comes.
    assert server.ranges == [None, *["bytes=300000-"] * 2, *["bytes=700000-"] * 2]
    assert names_in(tmp_path) == [NAME]


def test_server_that_knows_no_ranges_sends_all_of_it_again(tmp_path, server):
    server.knows_ranges = False
    (tmp_path / PART).write_bytes(b"x" * 1234)
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert (tmp_path / NAME).read_bytes() == BODY
    assert server.ranges == ["bytes=1234-"]


def test_part_that_is_whole_needs_no_more(tmp_path, server):
    (tmp_path / PART).write_bytes(BODY)
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == [NAME]


def test_file_with_another_digest_is_refused_at_once_and_not_gone_on_from(tmp_path, server):
    with pytest.raises(RuntimeError, match=rf"^{server.address} has MD5 {MD5}, but {'0' * 32} is wanted$"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", "0" * 32))
    assert names_in(tmp_path) == []
    assert server.ranges == [None]


@pytest.mark.parametrize("before", [b"not its beginning", b"x" * 1_000_001])
def test_a_beginning_that_is_not_the_files_is_fetched_again(tmp_path, server, before):
    (tmp_path / PART).write_bytes(before)
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert (tmp_path / NAME).read_bytes() == BODY
    assert server.ranges == [f"bytes={len(before)}-", None]


def test_a_cut_body_goes_on_within_the_call(tmp_path, server, capsys):
    server.cuts = [300_000, 700_000]
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert (tmp_path / NAME).read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=700000-"]
    assert f"fetch {server.address}: broken, fetched again (2 of 3)\n" in capsys.readouterr().err


def test_a_cut_body_of_unknown_length_is_fetched_again(tmp_path, server):
    server.says_length, server.cuts = False, [300_000]
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert (tmp_path / NAME).read_bytes() == BODY
    assert server.ranges == [None, None]


def test_a_body_that_is_always_cut_elsewhere_says_so_without_advice_on_the_digest(tmp_path, server):
    server.says_length, server.cuts = False, [100, 200, 300]
    with pytest.raises(OSError, match=rf"^{server.address} came broken 3 times, with another MD5 each time$"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == []


def test_the_same_other_file_of_unknown_length_twice_is_another_file(tmp_path, server):
    server.says_length = False
    with pytest.raises(RuntimeError, match=f"has MD5 {MD5}, but "):
        fetch(server.address, tmp_path / NAME, Digest("MD5", "0" * 32))
    assert server.ranges == [None, None]


@pytest.mark.parametrize("says_length", [True, False])
def test_a_body_without_end_is_given_up(tmp_path, server, monkeypatch, says_length):
    monkeypatch.setattr(download, "LARGEST_BYTES", 999_999)
    server.says_length = says_length
    with pytest.raises(OSError, match=rf"^{server.address} is larger than 1 MB; fetch it by hand$"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == []
    assert server.ranges == [None]


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "a page, text/html"),
        ({"Content-Encoding": "gzip"}, "it compressed, as gzip"),
    ],
)
def test_what_is_no_plain_file_is_called_so(tmp_path, server, headers, what):
    server.headers = headers
    with pytest.raises(OSError, match=rf"^{server.address}: the server sent {what}, not the file$"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", "0" * 32))
    assert names_in(tmp_path) == []


def test_a_length_that_is_no_number_is_refused(tmp_path, server):
    server.says_length, server.headers = False, {"Content-Length": "many"}
    with pytest.raises((ValueError, OSError)):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))


def test_a_redirection_in_a_circle_ends(tmp_path, server, monkeypatch):
    monkeypatch.setattr(file_server.Handler, "do_GET", redirect)
    with pytest.raises(URLError, match="infinite loop"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == []


def redirect(handler):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def test_address_that_answers_404_leaves_nothing(tmp_path, server):
    server.body = None
    with pytest.raises(URLError, match="HTTP Error 404"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == []


def test_server_error_keeps_what_has_come(tmp_path, server):
    server.body = None
    (tmp_path / PART).write_bytes(BODY[:10])
    with pytest.raises(URLError, match="HTTP Error 404"):
        fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert (tmp_path / PART).read_bytes() == BODY[:10]


def test_only_one_process_fetches(tmp_path, server):
    with (tmp_path / PART).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # refuses an exclusive lock only
        with pytest.raises(RuntimeError, match=f"^another process is writing {tmp_path / PART}; wait for it$"):
            fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
        assert names_in(tmp_path) == [PART]
    assert server.ranges == []


def test_file_that_another_process_has_fetched_meanwhile_is_kept(tmp_path, server):
    (tmp_path / NAME).write_bytes(b"theirs")
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    assert names_in(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == b"theirs"
    assert server.ranges == []


def test_a_line_is_said_now_and_then(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(download, "LINE_EVERY_S", 0)
    monkeypatch.setattr(download, "CHUNK_BYTES", 400_000)
    monkeypatch.setattr(download, "MB", 1000)
    fetch(server.address, tmp_path / NAME, Digest("MD5", MD5))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"fetch {server.address}: {done}/1,000 MB" for done in ("0", "400", "800")]


def test_cifar_is_fetched_gone_on_with_and_read(tmp_path, server, monkeypatch):
    made = make_cifar(tmp_path / "made", 100, PER_PART, archive=True)
    server.body = (made / "cifar-100-binary.tar.gz").read_bytes()
    small = small_publication(100, made)
    monkeypatch.setattr(cifar, "ADDRESS", server.address.removesuffix(NAME))
    knobs = DatasetKnobs(reader="cifar100", image_size=32, channels=3)
    root, server.cut = tmp_path / "raw", 1000
    with pytest.raises(
        DataError, match=r"could not be fetched \(1,000 of [\d,]+ bytes of \S+ came; call again .*; put"
    ):
        cifar.read(small, root, knobs)
    server.cut = None
    assert len(cifar.read(small, root, knobs).samples) == 2 * PER_PART
    assert len(cifar.read(small, root, knobs).samples) == 2 * PER_PART
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-"]
    assert names_in(root) == ["cifar-100-binary.tar.gz"]


def test_server_that_speaks_no_http_is_one_line(tmp_path, monkeypatch):
    def unintelligible(*_args, **_kwargs):
        raise HTTPException("got more than 65536 bytes\nwhen reading header line")

    monkeypatch.setattr(download, "urlopen", unintelligible)
    knobs = DatasetKnobs(reader="cifar10", image_size=32, channels=3)
    with pytest.raises(DataError, match=r"could not be fetched \(got more than 65536 bytes when reading header line\)"):
        cifar.read_cifar10(tmp_path, knobs)
    assert names_in(tmp_path) == []
