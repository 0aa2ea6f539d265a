"""Odd images: each is packed by the rule of its kind and counted, or refused by name, or left aside and listed."""

import json
import struct
import zlib

import numpy as np
import pytest
from layouts import class_image, make_image_folder
from PIL import Image

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.images import RULES, applied_rules, open_image, to_square
from edpipe.datasets.readers.folder import read
from edpipe.errors import DataError
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps.pack_dataset import pack_dataset
from edpipe.storage.records import record_path

GREY, RED = 120, (200, 30, 40)


def knobs(**values):
    return DatasetKnobs(reader="folder", **({"image_size": 8} | values))


def pack(root, out_path, **values):
    pack_dataset("odd", knobs(**values), root, out_path)
    return open_dataset(out_path), json.loads(record_path(out_path).read_text())


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def huge_png(path):
    """A sound header that promises 40,000 × 40,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def png(depth, colour_type, rows, transparent):
    """8 × 8 pixels of so many bits, and the colour that is transparent, as the format has them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0)
    width = len(rows) // 8
    data = zlib.compress(b"".join(b"\0" + rows[width * row : width * (row + 1)] for row in range(8)))
    chunks = (b"IHDR", header), (b"tRNS", transparent), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def strip_adobe_marker(data):
    """The JPEG file without its APP14 segment."""
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def palette_image(transparent):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    return image, {"transparency": 1} if transparent else {}


ODD = {  # name: (how it is saved, rules, colour of its centre when packed with three channels)
    "upright.png": (lambda p: Image.new("RGB", (8, 8), RED).save(p, exif=exif(6)), {"upright"}, RED),
    "grey.png": (lambda p: Image.new("L", (8, 8), GREY).save(p), {"grey_to_colour"}, (GREY,) * 3),
    "bilevel.png": (lambda p: Image.new("1", (8, 8), 1).save(p), {"grey_to_colour"}, (255,) * 3),
    "alpha.png": (lambda p: Image.new("RGBA", (8, 8), (*RED, 0)).save(p), {"over_white"}, (255,) * 3),
    "grey_alpha.png": (lambda p: Image.new("LA", (8, 8), (9, 0)).save(p), {"over_white", "grey_to_colour"}, (255,) * 3),
    "palette.png": (lambda p: palette_image(False)[0].save(p), {"palette"}, RED),
    "clear_palette.png": (
        lambda p: palette_image(True)[0].save(p, transparency=1),
        {"palette", "over_white"},
        (255,) * 3,
    ),
    "cmyk.tif": (lambda p: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(p), {"cmyk"}, (255, 0, 0)),
    "sixteen.png": (
        lambda p: Image.fromarray(np.full((8, 8), GREY * 257, np.uint16)).save(p),
        {"sixteen_bit", "grey_to_colour"},
        (GREY,) * 3,
    ),
    "sixteen.pgm": (
        lambda p: p.write_bytes(b"P5 8 8 65535\n" + struct.pack(">64H", *[GREY * 257] * 64)),
        {"sixteen_bit", "grey_to_colour"},
        (GREY,) * 3,
    ),
    "clear_sixteen.png": (
        lambda p: p.write_bytes(png(16, 0, b"\x03\xe8" * 64, b"\x03\xe8")),
        {"sixteen_bit", "grey_to_colour", "over_white"},
        (255,) * 3,
    ),
    "clear_sixteen_colour.png": (
        lambda p: p.write_bytes(png(16, 2, b"\x03\xe8\x07\xd0\x0b\xb8" * 64, b"\x03\xe8\x07\xd0\x0b\xb8")),
        {"over_white"},
        (255,) * 3,
    ),
    "clear_two_bits.png": (
        lambda p: p.write_bytes(png(2, 0, b"\x55" * 16, b"\0\1")),
        {"grey_to_colour", "over_white"},
        (255,) * 3,
    ),
    "opaque_four_bits.png": (
        lambda p: p.write_bytes(png(4, 0, b"\x88" * 32, b"\0\1")),
        {"grey_to_colour", "over_white"},
        (8 * 17,) * 3,
    ),
    "upright.tif": (lambda p: Image.new("RGB", (8, 8), RED).save(p, exif=exif(6)), {"upright"}, RED),
    "upright.avif": (lambda p: Image.new("RGB", (8, 8), RED).save(p, exif=exif(6), quality=100), {"upright"}, RED),
    "animated.gif": (
        lambda p: Image.new("RGB", (8, 8), RED).save(
            p, save_all=True, append_images=[Image.new("RGB", (8, 8), (0, 0, 250))]
        ),
        {"first_frame"},
        RED,
    ),
    "one_pixel.png": (lambda p: Image.new("RGB", (1, 1), RED).save(p), {"enlarged"}, RED),
    "plain.png": (lambda p: Image.new("RGB", (8, 8), RED).save(p), set(), RED),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_becomes_what_its_rule_says(tmp_path, name):
    save, rules, colour = ODD[name]
    save(tmp_path / name)
    image = open_image(tmp_path / name)
    found = set(applied_rules(image, 8, 3))
    # Pillow gives the frames of a GIF with or without their palette.
    assert found - {"palette"} == rules - {"palette"}
    assert tuple(to_square(image, 8, 3)[:, 4, 4]) == pytest.approx(colour, abs=3 if name.endswith("avif") else 1)


def test_each_rule_has_an_example_or_is_about_grey_sets():
    assert {rule for _, rules, _ in ODD.values() for rule in rules} | {"colour_to_grey"} == set(RULES)


def test_one_channel_counts_colours_that_are_weighed():
    assert applied_rules(Image.new("RGB", (8, 8)), 8, 1) == ("colour_to_grey",)
    assert applied_rules(np.zeros((8, 8), np.uint8), 8, 1) == ()
    assert applied_rules(np.zeros((8, 8), np.uint8), 9, 3) == ("grey_to_colour", "enlarged")


@pytest.mark.parametrize("has_marker", [True, False])
def test_printing_colours_are_inverted_only_where_adobes_marker_says_so(tmp_path, has_marker):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / "a.jpg", quality=95)  # Pillow writes them inverted, and libjpeg the marker
    if not has_marker:
        (tmp_path / "a.jpg").write_bytes(strip_adobe_marker((tmp_path / "a.jpg").read_bytes()))
    red, green, blue = to_square(open_image(tmp_path / "a.jpg"), 16, 3)[:, 8, 8]
    if has_marker:
        assert (red > 250, green < 5, blue < 5) == (True, True, True)
    else:  # what is stored is the negative: cyan without black
        assert (red < 5, green < 5, blue < 5) == (True, True, True)


def test_every_odd_image_is_counted_in_the_record_and_told_in_one_line(tmp_path, capsys):
    root = make_image_folder(tmp_path / "raw", per_class=6, size=(8, 8))
    for name in ("alpha.png", "grey.png", "one_pixel.png"):
        ODD[name][0](root / "cat" / name)
    (root / "cat/Thumbs.db").write_bytes(b"x")
    (root / "dog/.DS_Store").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    (root / ".cache").mkdir()
    _, record = pack(root, tmp_path / "out/odd.h5")
    assert record["images"] == {"over_white": 1, "grey_to_colour": 1, "enlarged": 1}
    assert record["left_aside"] == {
        "not_images": [".cache", "cat/Thumbs.db", "dog/.DS_Store", "notes.txt"],
        "unreadable": {},
    }
    [line] = [line for line in capsys.readouterr().err.splitlines() if "classes" in line]
    assert line.endswith("; odd images: 1 enlarged, 1 grey_to_colour, 1 over_white; left aside: 4 not_images")


def test_an_ordinary_folder_has_an_empty_account(tmp_path, capsys):
    _, record = pack(make_image_folder(tmp_path / "raw", size=(8, 8)), tmp_path / "out/odd.h5")
    assert record["images"] == {}
    assert record["left_aside"] == {"not_images": [], "unreadable": {}}
    counts = dict.fromkeys(("copies", "in_several_classes", "test_also_taught", "val_also_taught"), 0)
    assert record["equal_images"] == counts | {"example": None}
    assert capsys.readouterr().err.splitlines()[-1].endswith("out/odd.h5: 3 classes, 21 train, 3 val, 6 test")


BROKEN = {
    "empty.png": (lambda p: p.write_bytes(b""), "cannot be read as an image (the file is empty)"),
    "text.jpg": (lambda p: p.write_text("no image"), "cannot be read as an image (of no kind that Pillow knows)"),
    "bomb.png": (huge_png, "1600000000 pixels"),
    "float.tif": (lambda p: Image.new("F", (8, 8)).save(p), "images of mode F have no fixed range"),
    "whole.tif": (lambda p: Image.new("I", (8, 8)).save(p), "images of mode I have no fixed range"),
    "narrow.png": (
        lambda p: Image.new("L", (1, 9000)).save(p),
        "1 × 9000 pixels would become 8 × 72,000, allowed are 65,500 a side; crop it",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_image_that_cannot_be_packed_ends_packing_and_is_named(tmp_path, name):
    root = make_image_folder(tmp_path / "raw")
    save, reason = BROKEN[name]
    save(root / "dog" / name)
    with pytest.raises(DataError) as error:
        pack(root, tmp_path / "out/odd.h5")
    text = str(error.value)
    assert text.split(": ")[0].endswith(f"dog/{name}")
    assert reason in text
    assert "\n" not in text
    assert text.endswith("; replace or remove this file, or set unreadable: leave_aside")


def test_all_images_that_cannot_be_packed_are_in_one_list(tmp_path):
    root = make_image_folder(tmp_path / "raw", per_class=15)
    for number in range(13):
        (root / "cat" / f"{number:04}.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        pack(root, tmp_path / "out/odd.h5")
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines[:-1]] == [f"{n:04}.png" for n in range(10)]
    assert lines[-1] == "and 3 more like these"
    with pytest.raises(DataError, match="and 3 more like these"):  # what was packed before is not forgiven
        pack(root, tmp_path / "out/odd.h5")
    assert not (tmp_path / "out/odd.h5").exists()


def test_unreadable_images_are_left_aside_if_asked_and_listed(tmp_path, capsys):
    root = make_image_folder(tmp_path / "raw", per_class=40)
    whole, _ = pack(root, tmp_path / "whole/odd.h5")
    for name, (save, _) in BROKEN.items():
        save(root / "dog" / name)
    truncated = root / "cat/0003.png"
    truncated.write_bytes(truncated.read_bytes()[:-300])
    dataset, record = pack(root, tmp_path / "out/odd.h5", unreadable="leave_aside")
    unreadable = record["left_aside"]["unreadable"]
    assert set(unreadable) == {"cat/0003.png", *(f"dog/{name}" for name in BROKEN)}
    assert all(reason in unreadable[f"dog/{name}"] for name, (_, reason) in BROKEN.items())
    assert not any(str(tmp_path) in reason for reason in unreadable.values())
    assert dataset.num_samples == record["num_samples"] == 119 == whole.num_samples - 1
    assert not {source.decode() for source in dataset.sources} & set(unreadable)
    assert "left aside: 7 unreadable" in capsys.readouterr().err


def test_leaving_images_aside_may_not_empty_a_class(tmp_path):
    root = make_image_folder(tmp_path / "raw", splits={"train": 2, "test": 1})
    (root / "test/dog/0000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"class dog has 2 train, 0 val, 0 test images; each class needs at least 1"):
        pack(root, tmp_path / "out/odd.h5", unreadable="leave_aside", val_fraction=0)


def test_a_file_that_is_gone_is_never_left_aside(tmp_path, monkeypatch):
    root = make_image_folder(tmp_path / "raw")
    raw = read(root, knobs())
    (root / "dog/0003.png").unlink()
    monkeypatch.setattr("edpipe.steps.pack_dataset.read_raw", lambda *_: raw)
    with pytest.raises(DataError, match=r"dog/0003.png: cannot be read: No such file or directory"):
        pack(root, tmp_path / "out/odd.h5", unreadable="leave_aside")


def test_equal_images_are_counted_and_a_taught_test_image_is_warned_of(tmp_path, capsys):
    root = make_image_folder(tmp_path / "raw", splits={"train": 4, "val": 2, "test": 2}, size=(8, 8))

    def copy(source, goal):
        (root / goal).write_bytes((root / source).read_bytes())

    copy("train/cat/0000.png", "train/cat/0001.png")  # a copy
    copy("train/cat/0002.png", "train/dog/0002.png")  # two labels
    copy("train/owl/0000.png", "val/owl/0000.png")
    copy("train/owl/0003.png", "test/owl/0001.png")
    copy("val/dog/0001.png", "test/dog/0001.png")
    _, record = pack(root, tmp_path / "out/odd.h5")
    assert record["equal_images"] == {
        "copies": 5,
        "in_several_classes": 2,
        "test_also_taught": 2,
        "val_also_taught": 1,
        "example": ["test/dog/0001.png", "val/dog/0001.png"],
    }
    said = capsys.readouterr().err
    assert "2 test images are also in train or val (the first: test/dog/0001.png = val/dog/0001.png)" in said


def test_pixels_of_ordinary_images_are_not_touched(tmp_path):
    pixels = class_image(0, 0, (8, 8))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert applied_rules(image, 8, 3) == ()
    np.testing.assert_array_equal(to_square(image, 8, 3), pixels.transpose(2, 0, 1))
