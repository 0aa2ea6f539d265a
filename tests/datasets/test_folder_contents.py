"""Folders as people's machines leave them: system files, links, other spellings, and kinds that are not read."""

import sys
import unicodedata
from types import SimpleNamespace

import pytest
from layouts import make_image_folder
from PIL import Image

from edpipe.datasets import image_kinds
from edpipe.datasets.image_kinds import image_suffixes, kinds_of
from edpipe.datasets.readers.folder import read
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps.pack_dataset import pack_dataset

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "élan") for form in ("NFC", "NFD"))
KNOBS = DatasetKnobs(reader="folder", image_size=8)


@pytest.fixture
def fresh_suffixes():
    image_suffixes.cache_clear()
    yield
    image_suffixes.cache_clear()


LEFT_BEHIND = ("__MACOSX", "@eaDir", ".ipynb_checkpoints", ".Trash", "lost+found", "$RECYCLE.BIN")


@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("place", ["", "train", "train/cat"])
def test_folders_of_systems_are_left_aside_and_named(tmp_path, name, place):
    make_image_folder(tmp_path, splits={"train": 3, "test": 1})
    folder = tmp_path / place / name
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "0000.png")
    found = read(tmp_path, KNOBS)
    assert found.class_names == ("cat", "dog", "owl")
    assert len(found.samples) == 12
    assert found.not_images == (f"{place}/{name}".lstrip("/"),)


def test_packing_says_what_it_leaves_aside(tmp_path, capsys):
    root = make_image_folder(tmp_path / "raw")
    (root / "__MACOSX").mkdir()
    for name in ("cat/Thumbs.db", "cat/1.SVG", "dog/2.svg", "notes.txt"):
        (root / name).write_text("x")
    (root / "dog/gone.png").symlink_to("nowhere.png")
    pack_dataset("photos", KNOBS, root, tmp_path / "out/photos.h5")
    assert (
        f"pack photos: left aside in {root}: 2 pictures .svg (not read here; save them as PNG or JPEG), "
        "1 links that lead nowhere, 1 .txt, 1 Thumbs.db, 1 __MACOSX" in capsys.readouterr().err
    )


def test_of_many_kinds_the_first_are_named(tmp_path):
    assert kinds_of(tmp_path, [f"{n}.k{n}" for n in range(9)]).endswith("1 .k5, 3 others")


def test_avif_is_read(tmp_path):
    make_image_folder(tmp_path, ("a", "b"), per_class=2)
    Image.new("RGB", (8, 8), (200, 30, 40)).save(tmp_path / "a/photo.AVIF")
    found = read(tmp_path, KNOBS)
    (sample,) = [sample for sample in found.samples if sample.source == "a/photo.AVIF"]
    assert sample.load().size == (8, 8)


def test_kinds_that_no_library_reads_here_are_named_with_what_does(tmp_path, monkeypatch, fresh_suffixes):
    make_image_folder(tmp_path, ("a", "b"), per_class=2)
    monkeypatch.setattr(image_kinds.features, "check", lambda _: False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("a/1.heic", "a/2.HEIC", "b/3.avif"):
        (tmp_path / name).write_bytes(b"x")
    found = read(tmp_path, KNOBS)
    assert found.not_images == ("a/1.heic", "a/2.HEIC", "b/3.avif")
    assert kinds_of(tmp_path, found.not_images) == (
        "2 pictures .heic (`pip install pillow-heif` to read them), 1 pictures .avif (Pillow 11.3 or later reads them)"
    )


def test_the_plugin_for_heic_is_used_where_it_is(tmp_path, monkeypatch, fresh_suffixes):
    called = []
    plugin = SimpleNamespace(register_heif_opener=lambda: called.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    make_image_folder(tmp_path, ("a", "b"), per_class=2)
    (tmp_path / "a/1.heic").write_bytes(b"x")
    assert "a/1.heic" in {sample.source for sample in read(tmp_path, KNOBS).samples}
    assert called == [1]


# names


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    make_image_folder(tmp_path, (COMPOSED, "dog"), splits={"train": 3})
    make_image_folder(tmp_path, (DECOMPOSED, "dog"), splits={"test": 2})
    found = read(tmp_path, KNOBS)
    assert found.class_names == ("dog", COMPOSED)
    assert sum(sample.label == 1 for sample in found.samples) == 5


def test_a_name_keeps_the_form_that_it_has(tmp_path):
    make_image_folder(tmp_path, (DECOMPOSED, "dog"), per_class=2)
    assert read(tmp_path, KNOBS).class_names == ("dog", DECOMPOSED)


def test_two_folders_that_look_alike_are_refused(tmp_path):
    make_image_folder(tmp_path, (COMPOSED, DECOMPOSED), per_class=2)
    with pytest.raises(DataError, match=r"holds two folders named élan, one with composed and one with decomposed"):
        read(tmp_path, KNOBS)


# links that lead nowhere


def test_a_class_of_links_that_lead_nowhere_is_said(tmp_path):
    make_image_folder(tmp_path, per_class=2)
    (tmp_path / "elk").mkdir()
    for number in range(3):
        (tmp_path / f"elk/{number}.png").symlink_to(f"/gone/{number}.png")
    with pytest.raises(DataError) as error:
        read(tmp_path, KNOBS)
    assert str(error.value).endswith(
        ", but 3 links that lead nowhere; the first link is 0.png to /gone/0.png; add some or remove it"
    )


@pytest.mark.parametrize("name", ["train", "test", "test/cat"])
def test_a_folder_that_is_a_lost_link_is_said(tmp_path, name):
    make_image_folder(tmp_path / "real", splits={"train": 2, "test": 1})
    (tmp_path / "real" / name).rename(tmp_path / "moved")
    (tmp_path / "real" / name).symlink_to("/gone")
    with pytest.raises(DataError, match=rf"real/{name}: is a link that leads nowhere, to /gone; mend or remove it"):
        read(tmp_path / "real", KNOBS)


def test_a_root_that_is_a_lost_link_is_said(tmp_path):
    (tmp_path / "root").symlink_to("root")
    with pytest.raises(DataError, match=r"root: is a link that leads nowhere, to root; mend or remove it"):
        read(tmp_path / "root", KNOBS)
