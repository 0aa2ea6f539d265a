"""How many images the published data sets have, so that costs can be told before anything is fetched or packed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCounts:
    """Images of one data set, as its authors publish them and as its reader takes them."""

    num_classes: int
    train: int
    """Of all, where the authors do not say which images are test images."""
    test: int
    """0: they are drawn, as `test_fraction` says."""


PUBLISHED = {
    # Fei-Fei et al. 2004: 9,144 files of 102 folders, less the 467 of BACKGROUND_Google.
    "caltech101": PublishedCounts(101, 8_677, 0),
    # Griffin et al. 2007: 30,607 files of 257 folders, less the 827 of 257.clutter.
    "caltech256": PublishedCounts(256, 29_780, 0),
    # Krizhevsky 2009, section 3.1.
    "cifar10": PublishedCounts(10, 50_000, 10_000),
    "cifar100": PublishedCounts(100, 50_000, 10_000),
    # sklearn.datasets.load_digits: the test images of Alpaydin & Kaynak 1998.
    "digits": PublishedCounts(10, 1_797, 0),
    # Xiao et al. 2017, table 1.
    "fashion_mnist": PublishedCounts(10, 60_000, 10_000),
    # Bossard et al. 2014, section 3: 750 and 250 a class.
    "food101": PublishedCounts(101, 75_750, 25_250),
    # Russakovsky et al. 2015, table 2: train and val of ILSVRC 2012-2014.
    "imagenet": PublishedCounts(1_000, 1_281_167, 50_000),
    # Netzer et al. 2011, section 3.
    "svhn": PublishedCounts(10, 73_257, 26_032),
    # Stanford CS231n 2015: 500 and 50 a class.
    "tiny_imagenet": PublishedCounts(200, 100_000, 10_000),
}
SVHN_EXTRA = 531_131
"""Images of SVHN's third file, which are easier (Netzer et al. 2011, section 3)."""
BACKGROUND = {"caltech101": 467, "caltech256": 827}
"""Images of the class that shows nothing of the others, which is one more if `background` asks for it."""
