"""Images that predictions read: the pixels are those of the pack, and what cannot be read is named."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layouts import class_image, make_image_folder
from PIL import Image

from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import DataError
from edpipe.export.comparison import plain_batches
from edpipe.export.description import Preprocessing
from edpipe.export.images import ImageBatch, Unreadable, image_batches, image_names, pixels_of_image, read_image
from edpipe.params.dataset import DatasetKnobs
from edpipe.steps.pack_dataset import pack_dataset


def preprocessing(**changes):
    plain = {"image_size": 16, "channels": 3, "encoding": "raw", "stored_side": None, "jpeg_quality": 95}
    return Preprocessing(**plain | {"mean": (0.5,) * 3, "std": (0.25,) * 3} | changes)


def odd_images(root):
    """Class folders with images of many modes, sizes and orientations."""
    make_image_folder(root, ("cat", "dog"), 3, size=(31, 22))
    turned = Image.Exif()
    turned[0x0112] = 6
    colour = Image.fromarray(class_image(2, 0, (40, 23)))
    colour.save(root / "cat" / "turned.jpg", exif=turned)
    colour.convert("RGBA").save(root / "cat" / "alpha.png")
    colour.convert("P").save(root / "cat" / "palette.gif")
    colour.convert("CMYK").save(root / "dog" / "printed.jpg")
    colour.convert("L").save(root / "dog" / "grey.png")
    Image.fromarray(np.arange(30 * 20, dtype=np.uint16).reshape(30, 20) * 100).save(root / "dog" / "deep.png")
    colour.resize((16, 16)).save(root / "dog" / "same.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoding", [{"encoding": "raw"}, {"encoding": "jpeg", "stored_side": 20, "jpeg_quality": 80}])
def test_a_file_gives_the_pixels_of_the_pack(tmp_path, channels, encoding):
    root = odd_images(tmp_path / "raw")
    knobs = DatasetKnobs(reader="folder", image_size=16, channels=channels, **encoding)
    pack_dataset("odd", knobs, root, tmp_path / "odd.h5")
    dataset = open_dataset(tmp_path / "odd.h5")
    wanted = plain_batches(dataset).plain(np.arange(dataset.num_samples))
    chosen = preprocessing(channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels, **encoding)
    for row, source in enumerate(dataset.sources.tolist()):
        path = root / source.decode()
        assert torch.equal(read_image(str(path), chosen), wanted[row]), source
        with Image.open(path) as image:
            assert torch.equal(pixels_of_image(image, chosen), wanted[row]), source


def test_folders_are_searched_and_hidden_files_left_out(tmp_path):
    for name in ("b/deep/2.PNG", "b/1.jpg", ".hidden/3.png", "b/.4.png", "b/notes.txt", "a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = image_names([str(tmp_path), "-", str(tmp_path / "b" / "notes.txt")])
    inside = ["a.png", "b/1.jpg", "b/deep/2.PNG"]
    assert found == [*(str(tmp_path / name) for name in inside), "-", str(tmp_path / "b" / "notes.txt")]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r": holds no image \(\..*\); name another folder"):
        image_names([str(tmp_path)])


def test_each_that_cannot_be_read_is_named_and_the_others_are_given(tmp_path):
    names = [str(tmp_path / name) for name in ("1.png", "2.png", "3.png", "4.png", "5.png", "6.png")]
    for name in names[::2]:
        Image.fromarray(class_image(0, 0)).save(name)
    Path(names[1]).touch()
    Path(names[3]).write_bytes(Path(names[0]).read_bytes()[:60])
    found = list(image_batches(names, preprocessing(), 2))
    unreadable = [one for one in found if isinstance(one, Unreadable)]
    assert [one.name for one in unreadable] == names[1::2]
    reasons = [one.reason for one in unreadable]
    assert reasons[0] == "cannot be read as an image (the file is empty)"
    assert reasons[1].startswith("cannot be read as an image (")
    assert reasons[2] == "cannot be read: No such file or directory"
    batches = [one for one in found if isinstance(one, ImageBatch)]
    assert [batch.names for batch in batches] == [[names[0], names[2]], [names[4]]]
    assert batches[0].pixels.shape == (2, 3, 16, 16)


def test_standard_input_is_read_as_a_file_is(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.fromarray(class_image(1, 0)).save(path)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert torch.equal(read_image("-", preprocessing()), read_image(str(path), preprocessing()))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert read_image("-", preprocessing()) == Unreadable("-", "cannot be read as an image (the file is empty)")
