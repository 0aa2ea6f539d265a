"""Published files: their facts, fetched from their address or a mirror, gone on with, checked, refused."""

import sys
from functools import partial
from urllib.error import URLError

import pytest
from project import ROOT
from published_examples import MAKERS, accept_files, contents, knobs, refusal
from published_layouts import make_caltech256, make_svhn

from edpipe.datasets.readers import caltech, cifar, fashion_mnist, food101, imagenet, svhn, tiny_imagenet
from edpipe.datasets.readers.by_name import READERS, read_raw


@pytest.fixture
def accept(monkeypatch):
    """Makes the small files that lie in a root the published ones."""
    return partial(accept_files, monkeypatch)


# what is published


def test_published_facts_are_torchvisions():
    import inspect

    from torchvision.datasets import SVHN, Caltech101, Caltech256
    from torchvision.datasets.imagenet import ARCHIVE_META

    assert {(svhn.ADDRESS + name, name, digest) for name, digest in svhn.MD5.items()} == {
        tuple(values) for values in SVHN.split_list.values()
    }
    assert set(imagenet.MD5.items()) == set(ARCHIVE_META.values())
    for library, file in ((Caltech101, caltech.ARCHIVE_101), (Caltech256, caltech.ARCHIVE_256)):
        source = inspect.getsource(library.download)
        assert all(f'"{value}"' in source for value in (file.address, file.name, file.md5))


def test_the_page_of_data_sets_names_every_reader_and_every_published_file():
    page = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert all(f"| `{reader}` |" in page for reader in READERS)
    digests = {**fashion_mnist.MD5, **svhn.MD5, **imagenet.MD5}
    of_caltech = [caltech.ARCHIVE_101, caltech.INNER_ARCHIVE_101, caltech.ARCHIVE_256]
    digests |= {file.name: file.md5 for file in (food101.ARCHIVE, tiny_imagenet.ARCHIVE, *of_caltech)}
    for version in (v for p in (cifar.CIFAR10, cifar.CIFAR100) for v in (p.binary, p.python)):
        digests[version.archive] = version.archive_md5
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for name, md5 in digests.items():
        assert any(name in row and row.endswith(f"| {md5} |") for row in rows), name


# fetching


@pytest.mark.parametrize("reader", MAKERS)
def test_missing_files_are_asked_for(tmp_path, no_network, reader):
    line = refusal(reader, tmp_path / "raw", r"raw: \S+( ImageNet)? is not here and download is false; put ")
    assert line.endswith(f"into {tmp_path / 'raw'}, or set download: true")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("reader", MAKERS)
def test_no_network_is_one_line_that_says_which_file_to_put_where(tmp_path, monkeypatch, reader):
    def unreachable(*_args, **_kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr("edpipe.storage.download.urlopen", unreachable)
    text = r"raw: \S+( ImageNet)? is not here and \S+ could not be fetched \(<urlopen error no route to host>\); put "
    line = refusal(reader, tmp_path / "raw", text, download=True)
    assert line.endswith(f"into {tmp_path / 'raw'}")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.fixture
def mirror(tmp_path, accept, server):
    """Serves the small files of a reader in the folder /mirror; gives their names, the address and what was made."""

    def mirroring(reader):
        made = MAKERS[reader](tmp_path / "made")
        accept(reader, made)
        files = {f"/mirror/{path.name}": path.read_bytes() for path in made.iterdir() if path.is_file()}
        server.files = files
        return sorted(files), f"{server.folder}/mirror", made

    return mirroring


@pytest.mark.slow
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("reader", MAKERS)
def test_files_are_fetched_from_the_mirror_once_and_read(tmp_path, mirror, server, reader, slash):
    paths, address, made = mirror(reader)
    raw = read_raw(tmp_path / "raw", knobs(reader, download=True, mirror=address + slash))
    assert contents(raw) == contents(read_raw(made, knobs(reader)))
    assert sorted(server.paths) == paths
    read_raw(tmp_path / "raw", knobs(reader, download=True, mirror=address))
    assert sorted(server.paths) == paths


@pytest.mark.slow
@pytest.mark.parametrize("reader", MAKERS)
def test_half_a_download_is_gone_on_with(tmp_path, mirror, server, reader):
    _, address, made = mirror(reader)
    server.cut = 500
    refusal(
        reader,
        tmp_path / "raw",
        r"could not be fetched \(500 of [\d,]+ bytes of \S+ came; call again to go on from there\); put ",
        download=True,
        mirror=address,
    )
    server.cut = None
    raw = read_raw(tmp_path / "raw", knobs(reader, download=True, mirror=address))
    assert len(raw.samples) == len(read_raw(made, knobs(reader)).samples)
    assert server.ranges[:2] == [None, "bytes=500-"]


@pytest.mark.parametrize("reader", MAKERS)
def test_mirror_must_have_the_published_md5(tmp_path, mirror, server, reader):
    paths, address, _ = mirror(reader)
    server.files = dict.fromkeys(paths, b"something else")
    text = r"could not be fetched \(\S+ has MD5 [0-9a-f]{32}, but [0-9a-f]{32} is wanted\); put "
    refusal(reader, tmp_path / "raw", text, download=True, mirror=address)
    assert list((tmp_path / "raw").iterdir()) == []


ARCHIVED = sorted(set(MAKERS) - {"fashion_mnist"})


@pytest.mark.parametrize("reader", ARCHIVED)
def test_file_that_lies_there_must_have_the_published_md5(tmp_path, no_network, reader):
    MAKERS[reader](tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    refusal(reader, tmp_path, r"has MD5 [0-9a-f]{32}, but [0-9a-f]{32} is published; fetch this file again$")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_unreadable_archive_is_named(tmp_path, no_network, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    make_caltech256(tmp_path, archive=True)
    monkeypatch.setattr("edpipe.datasets.readers.published.md5_of", denied)
    refusal("caltech256", tmp_path, r"ObjectCategories.tar: cannot be read \(Permission denied\); fetch this")


def test_long_files_are_announced(tmp_path, accept, monkeypatch, capsys):
    make_svhn(tmp_path)
    accept("svhn", tmp_path)
    monkeypatch.setattr("edpipe.datasets.readers.published.LONG_BYTES", 1)
    read_raw(tmp_path, knobs("svhn"))
    assert capsys.readouterr().err.count("check the MD5 of ") == 2


# Hugging Face, whose own tests need the library


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    text = r'reader huggingface needs the library datasets \(.+\); call pip install "edpipe\[hf\]"$'
    refusal("huggingface", tmp_path, text)


# what knobs go with which reader


@pytest.mark.parametrize(
    ("reader", "values", "text"),
    [
        (
            "folder",
            {"mirror": "https://example.org/"},
            "mirror belongs to reader caltech101, .* out for folder",
        ),
        ("imagenet", {"mirror": "https://example.org/"}, "mirror belongs to reader .*; leave it out for imagenet"),
        ("cifar10", {"extra": True}, "extra belongs to reader svhn; leave it out for cifar10"),
        ("svhn", {"background": True}, "background belongs to reader caltech101, caltech256; leave it out for svhn"),
        ("svhn", {"huggingface": {"image": "img"}}, "huggingface belongs to reader huggingface; leave it out for svhn"),
        ("svhn", {"mirror": "ftp://example.org/"}, "mirror"),
    ],
)
def test_knob_of_another_reader_is_refused(reader, values, text):
    with pytest.raises(ValueError, match=text):
        knobs(reader, **values)
