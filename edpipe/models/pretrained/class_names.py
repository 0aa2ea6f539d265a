"""Which outputs of a fetched network are the classes of a dataset."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

from edpipe.errors import TeacherError, nearest
from edpipe.params.teacher import IMAGENET


def output_rows(
    class_names: Sequence[str],
    listed: str | Sequence[str],
    class_map: Mapping[str, str],
    known: Sequence[str],
    title: str,
) -> list[int]:
    """For each class the number of the network's output that stands for it.

    Args:
        class_names: the classes that are wanted.
        listed: the network's own, in the order of its outputs, or "imagenet".
        class_map: the network's names of classes that are called otherwise there.
        known: all classes of the dataset; those of class_map must be among them.
        title: of the teacher, for the error's text.

    Raises:
        TeacherError: a class is not among the outputs, or two are the same output, or class_map names a class that the
            dataset does not have.
    """
    for name in class_map:
        if name not in known:
            raise TeacherError(f"{title}: network.class_map: the dataset has no class {name!r}{nearest(name, known)}")
    places = _imagenet_places() if listed == IMAGENET else _listed_places(listed)
    rows = [_row(name, class_map.get(name, name), places, listed == IMAGENET, title) for name in class_names]
    _check_different(rows, class_names, title)
    return rows


def count_outputs_listed(listed: str | Sequence[str]) -> int:
    """How many outputs the network has.

    >>> count_outputs_listed("imagenet"), count_outputs_listed(["cat", "dog"])
    (1000, 2)
    """
    return 1000 if listed == IMAGENET else len(listed)


def _row(name: str, their_name: str, places: Mapping[str, Sequence[int]], is_imagenet: bool, title: str) -> int:
    found = places.get(_plain(their_name) if is_imagenet else their_name, ())
    if len(found) == 1:
        return found[0]
    if not found:
        raise TeacherError(
            f"{title}: network.class_names has no {their_name!r} for class {name!r}; name it in network.class_map"
            f"{_hint(their_name, places)}"
        )
    raise TeacherError(
        f"{title}: class {name!r}: outputs {', '.join(map(str, found))} are all called {their_name!r}; name its "
        f"WordNet id, such as n02012849, in network.class_map"
    )


def _hint(name: str, places: Mapping[str, object]) -> str:
    hint = nearest(name, places)
    return hint if "did you mean" in hint else ""  # a thousand known names would be no help


def _check_different(rows: Sequence[int], class_names: Sequence[str], title: str) -> None:
    seen: dict[int, str] = {}
    for row, name in zip(rows, class_names, strict=True):
        if row in seen:
            raise TeacherError(
                f"{title}: network.class_map: classes {seen[row]!r} and {name!r} are both output {row}; tell them apart"
            )
        seen[row] = name


def _listed_places(listed: Sequence[str]) -> dict[str, list[int]]:
    return {name: [place] for place, name in enumerate(listed)}


def _imagenet_places() -> dict[str, list[int]]:
    """Outputs by WordNet id and by each name of a class, as timm lists them for ImageNet-1k."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place in range(info.num_classes()):
        words = map(_plain, info.index_to_description(place).split(","))
        for name in dict.fromkeys(chain([info.index_to_label_name(place)], words)):
            places[name].append(place)
    return dict(places)


def _plain(name: str) -> str:
    """
    >>> _plain(" Tiger_shark")
    'tiger shark'
    """
    return name.strip().lower().replace("_", " ")
