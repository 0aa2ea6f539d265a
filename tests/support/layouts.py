"""Makes small raw data sets in the layouts in which the real ones are published.

Each function writes below `root` (made if missing) and gives `root`, at which the reader is to be pointed. Images of
one class look alike and those of two classes differ, so that a network can learn them; equal arguments give equal
images.
"""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

# fmt: off
FOOD101_CLASSES = (
    "apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "beef_tartare", "beet_salad", "beignets",
    "bibimbap", "bread_pudding", "breakfast_burrito", "bruschetta", "caesar_salad", "cannoli", "caprese_salad",
    "carrot_cake", "ceviche", "cheese_plate", "cheesecake", "chicken_curry", "chicken_quesadilla", "chicken_wings",
    "chocolate_cake", "chocolate_mousse", "churros", "clam_chowder", "club_sandwich", "crab_cakes", "creme_brulee",
    "croque_madame", "cup_cakes", "deviled_eggs", "donuts", "dumplings", "edamame", "eggs_benedict", "escargots",
    "falafel", "filet_mignon", "fish_and_chips", "foie_gras", "french_fries", "french_onion_soup", "french_toast",
    "fried_calamari", "fried_rice", "frozen_yogurt", "garlic_bread", "gnocchi", "greek_salad",
    "grilled_cheese_sandwich", "grilled_salmon", "guacamole", "gyoza", "hamburger", "hot_and_sour_soup", "hot_dog",
    "huevos_rancheros", "hummus", "ice_cream", "lasagna", "lobster_bisque", "lobster_roll_sandwich",
    "macaroni_and_cheese", "macarons", "miso_soup", "mussels", "nachos", "omelette", "onion_rings", "oysters",
    "pad_thai", "paella", "pancakes", "panna_cotta", "peking_duck", "pho", "pizza", "pork_chop", "poutine",
    "prime_rib", "pulled_pork_sandwich", "ramen", "ravioli", "red_velvet_cake", "risotto", "samosa", "sashimi",
    "scallops", "seaweed_salad", "shrimp_and_grits", "spaghetti_bolognese", "spaghetti_carbonara", "spring_rolls",
    "steak", "strawberry_shortcake", "sushi", "tacos", "takoyaki", "tiramisu", "tuna_tartare", "waffles",
)
# fmt: on
"""Of Food-101, as in its meta/classes.txt."""
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def class_image(label, number, size=(24, 20), channels=3):
    """Pixels (height, width[, channel]) of image `number` of a class: its own base pattern and some noise.

    `size` is (width, height), as Pillow says it.
    """
    base = np.random.default_rng(label).integers(40, 216, (4, 4, channels))
    rows = np.arange(size[1]) * 4 // size[1]
    columns = np.arange(size[0]) * 4 // size[0]
    noise = np.random.default_rng((label, number)).integers(-24, 25, (size[1], size[0], channels))
    pixels = (base[rows][:, columns] + noise).clip(0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def make_food101(root, num_train=2, num_test=1, size=(24, 20), archive=False):
    """Food-101 with all 101 classes and so many JPEG images each: root/food-101, or root/food-101.tar.gz alone."""
    root = Path(root)
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    meta = {"train": {}, "test": {}}
    for label, class_name in enumerate(FOOD101_CLASSES):
        names = [f"{class_name}/{1_000_000 + 1000 * label + i}" for i in range(num_train + num_test)]
        (folder / "images" / class_name).mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(class_image(label, number, size)).save(folder / "images" / f"{name}.jpg", quality=90)
        meta["train"][class_name], meta["test"][class_name] = names[:num_train], names[num_train:]
    _write_food101_meta(folder / "meta", meta)
    if archive:
        _archive(folder, root / "food-101.tar.gz")
    return root


def _write_food101_meta(folder, meta):
    for split, named in meta.items():
        (folder / f"{split}.json").write_text(json.dumps(named))
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for names in named.values() for name in names))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in FOOD101_CLASSES))
    (folder / "labels.txt").write_text("".join(f"{name.replace('_', ' ').capitalize()}\n" for name in FOOD101_CLASSES))


def _archive(folder, path):
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()


def make_fashion_mnist(root, num_train=40, num_test=20, compressed=True, torchvision_folders=False):
    """Fashion-MNIST's four IDX files with so many 28 x 28 images in all, the ten classes taking turns.

    They lie directly in root, or in root/FashionMNIST/raw where torchvision keeps them.
    """
    folder = Path(root) / "FashionMNIST" / "raw" if torchvision_folders else Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, start, count in (("train", 0, num_train), ("t10k", num_train, num_test)):
        labels = np.arange(count) % 10
        images = [class_image(int(label), start + row, (28, 28), 1) for row, label in enumerate(labels)]
        write_idx(folder / f"{prefix}-images-idx3-ubyte", np.stack(images), compressed)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8), compressed)
    return Path(root)


def write_idx(path, array, compressed=True):
    """An IDX file of unsigned bytes, as path or path.gz; gives the path written."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    data = header + array.tobytes()
    path = path.with_name(path.name + ".gz") if compressed else path
    path.write_bytes(gzip.compress(data, 1, mtime=0) if compressed else data)
    return path


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(f"thing_{number:02}" for number in range(100))


def make_cifar(root, number=10, per_part=20, python=False, archive=False):
    """CIFAR-10 or -100 in its binary or Python version with so many 32 x 32 images a file, the classes taking turns.

    In root lies the folder that is published, or its archive alone; `cifar_files` and `cifar_image` say what is in it.
    """
    root = Path(root)
    names = {10: CIFAR10_CLASSES, 100: CIFAR100_CLASSES}[number]
    folder = root / cifar_folder(number, python)
    folder.mkdir(parents=True)
    for part, (name, rows) in enumerate(cifar_files(number, per_part).items()):
        labels, pixels = zip(*(cifar_image(number, row) for row in rows), strict=True)
        planes = np.stack(pixels).transpose(0, 3, 1, 2).reshape(len(rows), -1)
        data = (_python_part if python else _binary_part)(number, part, labels, planes)
        (folder / (name if python else f"{name}.bin")).write_bytes(data)
    for path, data in _cifar_names(number, names, python).items():
        (folder / path).write_bytes(data)
    if archive:
        name = f"cifar-{number}-{'python' if python else 'binary'}.tar.gz"
        _archive(folder, root / name)
    return root


def cifar_folder(number, python):
    """What the archive of that version unpacks to."""
    return {
        (10, False): "cifar-10-batches-bin",
        (10, True): "cifar-10-batches-py",
        (100, False): "cifar-100-binary",
        (100, True): "cifar-100-python",
    }[number, python]


def cifar_files(number, per_part):
    """The numbers of the images in each file, by its name without suffix, in the order of reading."""
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"] if number == 10 else ["train", "test"]
    return {name: range(part * per_part, (part + 1) * per_part) for part, name in enumerate(names)}


def cifar_image(number, row):
    """Label and pixels (height, width, channel) of image `row`, counted through all files."""
    return row % number, class_image(row % number, row, (32, 32))


def _binary_part(number, _part, labels, planes):
    coarse = [[label % 20] for label in labels] if number == 100 else np.empty((len(labels), 0))
    return np.hstack([coarse, np.array(labels)[:, None], planes]).astype(np.uint8).tobytes()


def _python_part(number, part, labels, planes):
    fields = {b"batch_label": f"batch {part}".encode(), b"data": planes, b"filenames": [b"a.png"] * len(labels)}
    if number == 10:
        return pickle_of_python2(fields | {b"labels": list(labels)})
    return pickle_of_python2(fields | {b"fine_labels": list(labels), b"coarse_labels": [n % 20 for n in labels]})


def _cifar_names(number, names, python):
    text = "".join(f"{name}\n" for name in names).encode()
    coarse = [f"group_{n}" for n in range(20)]
    if number == 10 and not python:
        return {"batches.meta.txt": text + b"\n", "readme.html": b"<html>"}
    if number == 10:
        listed = [name.encode() for name in names]
        return {"batches.meta": pickle_of_python2({b"num_cases_per_batch": 10000, b"label_names": listed})}
    if not python:
        return {"fine_label_names.txt": text, "coarse_label_names.txt": "\n".join(coarse).encode()}
    fields = {b"fine_label_names": list(names), b"coarse_label_names": coarse}
    return {"meta": pickle_of_python2({key: [n.encode() for n in value] for key, value in fields.items()})}


class _Python2Pickler(pickle._Pickler):
    """Writes texts and bytes as the one kind of text that Python 2 had when CIFAR was pickled."""

    def _save_text(self, value):
        data = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {bytes: _save_text, str: _save_text}


def pickle_of_python2(value):
    """The pickle that Python 2 with the NumPy of its day would have made."""
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(value)
    data = stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    # NumPy says the flags of a dtype as booleans today; then they were numbers.
    return data.replace(pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3, b"K\x00K\x01" + pickle.TUPLE3, 1)


def make_image_folder(root, classes=("cat", "dog", "owl"), per_class=10, splits=None, size=(24, 20), suffix=".png"):
    """A folder of class folders with so many images each: root/<class>/0000.png, or root/<split>/<class>/0000.png.

    `splits` maps a split to its images per class, such as {"train": 6, "test": 2}.
    """
    root = Path(root)
    first = 0
    for split, count in (splits or {"": per_class}).items():
        for label, class_name in enumerate(classes):
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(class_image(label, first + number, size)).save(folder / f"{number:04}{suffix}")
        first += count
    return root
