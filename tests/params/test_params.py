"""params.yaml: how it is read, what is refused and in which words, and the pages made from its schema."""

import copy
import json
import math
import os
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from shipped import shipped_and_examples

from edpipe.cli.main import main
from edpipe.errors import ParamsError
from edpipe.params import yaml_file
from edpipe.params.base import canonical_json
from edpipe.params.load import load_params, parse_params
from edpipe.params.schema import json_schema
from edpipe.params.text.reference_page import reference_page
from edpipe.params.yaml_file import load_raw, parse_text

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = shipped_and_examples()
METHODS = (
    "'aver', 'ebkd', 'aekd', 'ca_mkd', 'at', 'ce', 'ctkd', 'dist', 'dkd', 'ed', 'fitnet', 'kd', 'logit_std', 'teskd'"
)
MISSING = object()


def changed(path, value):
    """The shipped params with one value replaced, added or taken away."""
    raw = copy.deepcopy(SHIPPED)
    place = raw
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return raw


def only(raw, *experiments):
    """The same with these experiments alone."""
    kept = {name: raw["experiments"][name] for name in experiments}
    return raw | {"experiments": kept, "studies": {}, "tracked": []}


def complaint(path, value):
    with pytest.raises(ParamsError) as caught:
        parse_params(changed(path, value))
    return str(caught.value)


def written(folder, text):
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_params_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert set(params.tracked) <= set(params.experiments)


def test_shipped_params_fit_the_schema_that_editors_use():
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    validator.validate(SHIPPED)
    wrong = changed("experiments.digits_kd.method.temperature", 0)
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-2", 0.05),
        ("5E2", 500.0),
        ("1e5", 100000.0),
        ("+1.5e-3", 0.0015),
        (".5", 0.5),
        ("5.", 5.0),
        ("5", 5),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("1_000", 1000),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.0.0", "1.0.0"),
        ("'5e-2'", "5e-2"),
    ],
)
def test_values_are_read_as_yaml_1_2(tmp_path, text, value):
    found = load_raw(written(tmp_path, f"a: {text}\n"))["a"]
    assert (found, type(found)) == (value, type(value))
    # DVC reads with ruamel: the two must see the same values.
    assert YAML(typ="safe").load(f"a: {text}\n")["a"] == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_that_python_writes_is_read_back(number):
    assert parse_text(f"a: {number!r}")["a"] == number


@given(st.integers(-(10**20), 10**20))
def test_any_whole_number_is_read_back(number):
    found = parse_text(f"a: {number}")["a"]
    assert (found, type(found)) == (number, int)


def test_keys_are_texts(tmp_path):
    assert load_raw(written(tmp_path, "1: x\ntrue: y\n010: z\n")) == {"1": "x", "True": "y", "10": "z"}


SHARED = "is not allowed: `dvc exp run -S` would change every place that shares the value; write the value out at each"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ": line 3: key 'a' is given twice; keep one"),
        ("a:\n  b: 1\n  b: 1\n", ": line 3: key 'b' is given twice; keep one"),
        ("a: [{b: 1, b: 2}]\n", ": line 1: key 'b' is given twice; keep one"),
        ("a: 1\n'a': 1\n", ": line 2: key 'a' is given twice; keep one"),
        ("1: x\n'1': y\n", ": line 2: key '1' is given twice; keep one"),
        ("a: [1\nb: 2\n", ":2: not valid YAML: did not find expected ',' or ']'"),
        ("a: 1\n---\na: 2\n", ":2: not valid YAML: but found another document"),
        ("a: \0\n", ": not valid YAML: unacceptable character #x0000: control characters are not allowed"),
        ("a: 2026-13-01\n", ": a value cannot be read: month must be in 1..12"),
        ("a: 1\nb: &b {c: 1}\n", f": line 2: the anchor '&b' {SHARED} place"),
        ("b: &b 1\na: *b\n", f": line 1: the anchor '&b' {SHARED} place"),
        ("a:\n  - *nothing\n", f": line 2: the alias '*nothing' {SHARED} place"),
        ("a:\n  b: 1\n  <<: {c: 2}\n", f": line 3: the merge key '<<' {SHARED} place"),
        ("a: 1\nb: !!bool x\n", ": line 2: the tag '!!bool' is not allowed; write the value without it"),
        ("a: !!map [a]\n", ": line 1: the tag '!!map' is not allowed; write the value without it"),
        ("a: !ours {b: 1}\n", ": line 1: the tag '!ours' is not allowed; write the value without it"),
        ("a: !!python/name:os.system 1\n", ": line 1: the tag '!!python/name:os.system' is not allowed; write the"),
        (f"a: {'[' * 100_000}{']' * 100_000}\n", ": line 1: more than 50 levels of nesting; write it with fewer"),
        ("- 1\n", ": must be a mapping of sections, got list"),
        ("", ": must be a mapping of sections, got NoneType"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ParamsError) as caught:
        load_raw(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghijkl")
    )
    with pytest.raises(ParamsError, match=r": line 1: the anchor '&a' is not allowed"):
        load_raw(written(tmp_path, bomb))


@pytest.mark.parametrize("filler", ["#", "b", "\n"])
def test_a_file_is_read_up_to_its_largest_size(tmp_path, monkeypatch, filler):
    monkeypatch.setattr(yaml_file, "LARGEST_BYTES", 1000)
    text = "a: 1 #"
    assert load_raw(written(tmp_path, text + filler * (1000 - len(text)))) == {"a": 1}
    path = written(tmp_path, text + filler * (1001 - len(text)))
    with pytest.raises(ParamsError) as caught:
        load_raw(path)
    assert str(caught.value) == f"{path}: is larger than 1,000 bytes; remove what is no knob from it"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"params.yaml: is a pipe; it must be a file$"):
        load_raw(tmp_path / "params.yaml")


def test_a_device_without_end_is_refused(tmp_path):
    (tmp_path / "params.yaml").symlink_to("/dev/zero")
    with pytest.raises(ParamsError, match=r"params.yaml: is larger than 4,000,000 bytes; remove what is no knob"):
        load_raw(tmp_path / "params.yaml")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path, line_end):
    path = tmp_path / "params.yaml"
    path.write_bytes(line_end.join(["a: 1", "b:", "  c: 2", ""]).encode())
    assert load_raw(path) == {"a": 1, "b": {"c": 2}}


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match=r"params.yaml: not found; run edpipe in the folder that holds params.yaml"):
        load_raw(path)
    path.mkdir()
    with pytest.raises(ParamsError, match=r"params.yaml: cannot be read: .*"):
        load_raw(path)
    path.rmdir()
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ParamsError, match=r"params.yaml: cannot be read: .*utf-8"):
        load_raw(path)


METHOD = "experiments.digits_kd.method"
SOFT, PHOTOS = "soft_labels.digits", "soft_labels.food101"  # of an exhaustive and of a drawn space
CROP = {"kind": "pad_crop", "padding": 1}
THIRDS = "partitions.thirds"
TEACHER = "teachers.digits_teacher"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # unknown keys, with the nearest one known at that place
        ("experiment", {}, "experiment: unknown key; did you mean 'experiments'?"),
        ("datasets.digits.image_sise", 3, "datasets.digits.image_sise: unknown key; did you mean 'image_size'?"),
        ("students.resnet8.widht", 1, "students.resnet8.widht: unknown key; known: model, reference"),
        (f"{TEACHER}.network.modle", "x", f"{TEACHER}.network.modle: unknown key; did you mean 'model'?"),
        (f"{TEACHER}.fitting.epoch", 1, f"{TEACHER}.fitting.epoch: unknown key; did you mean 'epochs'?"),
        (f"{METHOD}.temprature", 3, f"{METHOD}.temprature: unknown key; did you mean 'temperature'?"),
        (
            f"{METHOD}.replay",
            True,
            f"{METHOD}.replay: unknown key; known: distill_weight, name, phases, rate_schedule, standardise, "
            "task_weight, teacher, temperature",
        ),
        (f"{SOFT}.spaces", {}, f"{SOFT}.spaces: unknown key; did you mean 'space'?"),
        (f"{SOFT}.precision", "uint8", f"{SOFT}.precision: unknown key; known: space, storage, views"),
        (f"{SOFT}.space.exaustive", True, f"{SOFT}.space.exaustive: unknown key; did you mean 'exhaustive'?"),
        (f"{SOFT}.space.augment.paddin", 3, f"{SOFT}.space.augment.paddin: unknown key; did you mean 'padding'?"),
        (
            f"{PHOTOS}.space.augment.min_arae",
            3,
            f"{PHOTOS}.space.augment.min_arae: unknown key; did you mean 'min_area'?",
        ),
        (
            f"{PHOTOS}.space.augment.padding",
            3,
            f"{PHOTOS}.space.augment.padding: unknown key; known: flip, jitter, kind, max_stretch, min_area, rand_augm",
        ),
        (
            f"{PHOTOS}.space.augment.jitter",
            {"brightnes": 0.1},
            f"{PHOTOS}.space.augment.jitter.brightnes: unknown key; did you mean 'brightness'?",
        ),
        (
            f"{PHOTOS}.space.augment.rand_augment",
            {"magnitud": 1},
            f"{PHOTOS}.space.augment.rand_augment.magnitud: unknown key; did you mean 'magnitude'?",
        ),
        (
            f"{PHOTOS}.space.mixing",
            {"cutmx": 1},
            f"{PHOTOS}.space.mixing.cutmx: unknown key; did you mean 'cutmix'?",
        ),
        (f"{SOFT}.views.views", 8, f"{SOFT}.views.views: unknown key; known: choice, number, per_file"),
        (f"{SOFT}.views.nmber", 8, f"{SOFT}.views.nmber: unknown key; did you mean 'number'?"),
        (f"{SOFT}.storage.topk", 8, f"{SOFT}.storage.topk: unknown key; did you mean 'top_k'?"),
        (
            "experiments.digits_ed.stages.primary.imagse",
            2,
            "experiments.digits_ed.stages.primary.imagse: unknown key; did you mean 'images'?",
        ),
        # what must be given
        (f"{THIRDS}.confusion", {}, f"{THIRDS}.confusion.teacher: missing; it must be given"),
        (
            f"{THIRDS}.confusion",
            {"teacher": "digits_teacher", "togehter": True},
            f"{THIRDS}.confusion.togehter: unknown key; did you mean 'together'?",
        ),
        (
            f"{THIRDS}.confusion",
            {"teacher": "digits_teacher", "together": 1},
            f"{THIRDS}.confusion.together: got 1; input should be true or false",
        ),
        ("datasets", MISSING, "datasets: missing; it must be given"),
        ("datasets.digits.image_size", MISSING, "datasets.digits.image_size: missing; it must be given"),
        (f"{TEACHER}.network.model", MISSING, f"{TEACHER}.network.model: missing; it must be given"),
        (f"{METHOD}.name", MISSING, f"{METHOD}.name: missing; it must be given, one of {METHODS}"),
        (
            f"{SOFT}.space.augment.kind",
            MISSING,
            f"{SOFT}.space.augment.kind: missing; it must be given, one of 'pad_crop', 'resized_crop'",
        ),
        *(
            (f"{SOFT}.{group}", MISSING, f"{SOFT}.{group}: missing; it must be")
            for group in ("space", "views", "storage")
        ),
        (f"{SOFT}.space.augment", MISSING, f"{SOFT}.space.augment: missing; it must be given"),
        (f"{METHOD}.teacher", MISSING, f"{METHOD}.teacher: missing; it must be given"),
        # one of a few words
        (f"{METHOD}.name", "kdd", f"{METHOD}.name: 'kdd' is not allowed; did you mean 'kd'; allowed: {METHODS}"),
        ("datasets.digits.channels", 2, "datasets.digits.channels: 2 is not allowed; allowed: 1 or 3"),
        ("datasets.digits.channels", True, "datasets.digits.channels: True is not allowed; allowed: 1 or 3"),
        ("datasets.digits.channels", 3.0, "datasets.digits.channels: 3.0 is not allowed; allowed: 1 or 3"),
        (
            "recipes.tiny_images.optimizer",
            "adam",
            "recipes.tiny_images.optimizer: 'adam' is not allowed; allowed: 'sgd' or 'adamw'",
        ),
        (
            f"{SOFT}.space.augment.kind",
            "padcrop",
            f"{SOFT}.space.augment.kind: 'padcrop' is not allowed; did you mean 'pad_crop'; allowed: 'pad_crop', "
            "'resized_crop'",
        ),
        (
            f"{SOFT}.views.choice",
            "every",
            f"{SOFT}.views.choice: 'every' is not allowed; allowed: 'random' or 'cycle'",
        ),
        (
            f"{SOFT}.storage.precision",
            "int8",
            f"{SOFT}.storage.precision: 'int8' is not allowed; allowed: 'float32', 'float16', 'uint8', 'uint4', ",
        ),
        # kinds
        ("datasets", "x", "datasets: got 'x'; input should be a mapping"),
        ("datasets.digits", None, "datasets.digits: got None; input should be a mapping"),
        (METHOD, "kd", f"{METHOD}: got 'kd'; input should be a mapping"),
        ("datasets.digits.image_size", 8.0, "datasets.digits.image_size: got 8.0; input should be a whole number"),
        ("datasets.digits.root", 3, "datasets.digits.root: got 3; input should be a text"),
        (f"{METHOD}.temperature", "4", f"{METHOD}.temperature: got '4'; input should be a number"),
        (f"{METHOD}.temperature", True, f"{METHOD}.temperature: got True; input should be a number"),
        (f"{METHOD}.temperature", math.nan, f"{METHOD}.temperature: got nan; input should be a finite number"),
        (
            "recipes.tiny_images.nesterov",
            "yes",
            "recipes.tiny_images.nesterov: got 'yes'; input should be true or false",
        ),
        ("tracked", "digits_ed", "tracked: got 'digits_ed'; input should be a list"),
        ("tracked", "d" * 99, f"tracked: got '{'d' * 56}…; input should be a list"),
        (f"{SOFT}.space", None, f"{SOFT}.space: got None; input should be a mapping"),
        (f"{SOFT}.space.exhaustive", "all", f"{SOFT}.space.exhaustive: got 'all'; input should be true or false"),
        (f"{PHOTOS}.space.augment.jitter", 3, f"{PHOTOS}.space.augment.jitter: got 3; input should be a mapping"),
        (f"{PHOTOS}.space.mixing", True, f"{PHOTOS}.space.mixing: got True; input should be a mapping"),
        (f"{PHOTOS}.views.number", "all", f"{PHOTOS}.views.number: got 'all'; input should be a whole number"),
        (f"{SOFT}.views.per_file", None, f"{SOFT}.views.per_file: got None; input should be a whole number"),
        (f"{SOFT}.storage.max_kl", "none", f"{SOFT}.storage.max_kl: got 'none'; input should be a number"),
        (f"{SOFT}.storage.hint", 2, f"{SOFT}.storage.hint: got 2; input should be a mapping"),
        (f"{SOFT}.storage.hint", {"side": 4}, f"{SOFT}.storage.hint.feature_stage: missing"),
        (
            f"{SOFT}.storage.hint",
            {"feature_stage": 0},
            f"{SOFT}.storage.hint.feature_stage: got 0; input should be greater than or equal to 1",
        ),
        (
            f"{SOFT}.storage.hint",
            {"feature_stage": 2, "side": 0},
            f"{SOFT}.storage.hint.side: got 0; input should be greater than or equal to 1",
        ),
        (
            f"{SOFT}.storage.hint",
            {"feature_stage": 2, "sides": 4},
            f"{SOFT}.storage.hint.sides: unknown key; did you mean 'side'?",
        ),
        (f"{SOFT}.storage.attention", "yes", f"{SOFT}.storage.attention: got 'yes'; input should be true or false"),
        # ranges
        (
            "datasets.digits.image_size",
            2,
            "datasets.digits.image_size: got 2; input should be greater than or equal to 4",
        ),
        (f"{METHOD}.temperature", 0, f"{METHOD}.temperature: got 0; input should be greater than 0"),
        (
            "recipes.tiny_images.milestones",
            [0.5, 2],
            "recipes.tiny_images.milestones.1: got 2; input should be less than or equal to 1",
        ),
        (
            "experiments.digits_ed.seeds",
            [2**32],
            "experiments.digits_ed.seeds.0: got 4294967296; input should be less than 4294967296",
        ),
        (f"{THIRDS}.subsets", [], f"{THIRDS}.subsets: got []; input should be a list with at least 1 item"),
        (
            f"{THIRDS}.subsets",
            ["a", "B"],
            f"{THIRDS}.subsets.1: got 'B'; input should be a text that matches '^[a-z][a-z0-9_]*$'",
        ),
        (
            f"{TEACHER}.network.sha256",
            "abc",
            f"{TEACHER}.network.sha256: got 'abc'; input should be a text that matches '^[0-9a-f]{{64}}$'",
        ),
        (
            f"{PHOTOS}.space.augment.jitter",
            {"brightness": 1},
            f"{PHOTOS}.space.augment.jitter.brightness: got 1; input should be less than 1",
        ),
        (
            f"{PHOTOS}.space.augment.jitter",
            {"contrast": -0.1},
            f"{PHOTOS}.space.augment.jitter.contrast: got -0.1; input should be greater than or equal to 0",
        ),
        (
            f"{PHOTOS}.space.augment.jitter",
            {"saturation": 1.5},
            f"{PHOTOS}.space.augment.jitter.saturation: got 1.5; input should be less than 1",
        ),
        (
            f"{PHOTOS}.space.augment.jitter",
            {"hue": 0.6},
            f"{PHOTOS}.space.augment.jitter.hue: got 0.6; input should be less than or equal to 0.5",
        ),
        (
            f"{PHOTOS}.space.augment.rand_augment",
            {"num_ops": 0},
            f"{PHOTOS}.space.augment.rand_augment.num_ops: got 0; input should be greater than or equal to 1",
        ),
        (
            f"{PHOTOS}.space.augment.rand_augment",
            {"magnitude": 31},
            f"{PHOTOS}.space.augment.rand_augment.magnitude: got 31; input should be less than or equal to 30",
        ),
        (
            f"{PHOTOS}.space.mixing",
            {"mixup": 11},
            f"{PHOTOS}.space.mixing.mixup: got 11; input should be less than or equal to 10",
        ),
        (
            f"{PHOTOS}.space.mixing",
            {"cutmix": -1},
            f"{PHOTOS}.space.mixing.cutmix: got -1; input should be greater than or equal to 0",
        ),
        (
            f"{PHOTOS}.space.mixing",
            {"mixup": 1, "probability": 0},
            f"{PHOTOS}.space.mixing.probability: got 0; input should be greater than 0",
        ),
        (f"{SOFT}.space.seed", -1, f"{SOFT}.space.seed: got -1; input should be greater than or equal to 0"),
        (f"{PHOTOS}.views.number", 0, f"{PHOTOS}.views.number: got 0; input should be greater than or equal to 1"),
        (f"{SOFT}.views.per_file", 0, f"{SOFT}.views.per_file: got 0; input should be greater than or equal to 1"),
        (f"{SOFT}.storage.max_kl", 0, f"{SOFT}.storage.max_kl: got 0; input should be greater than 0"),
        (
            f"{SOFT}.storage",
            {"precision": "top_k", "top_k": 0},
            f"{SOFT}.storage.top_k: got 0; input should be greater than or equal to 1",
        ),
        (
            f"{SOFT}.storage",
            {"precision": "sampled", "draws": 65_536, "temperature": 4},
            f"{SOFT}.storage.draws: got 65536; input should be less than or equal to 65535",
        ),
        (
            f"{SOFT}.storage",
            {"precision": "sampled", "draws": 1, "temperature": 0},
            f"{SOFT}.storage.temperature: got 0; input should be greater than 0",
        ),
        # values of one kind or another
        (
            f"{THIRDS}.classes",
            {"primary": [1.5]},
            f"{THIRDS}.classes.primary.0: got 1.5; input should be a text, or a whole number",
        ),
        # names
        (
            "datasets.Digits",
            SHIPPED["datasets"]["digits"],
            "datasets.Digits: names are lower-case letters, digits and _, beginning with a letter",
        ),
        # knobs that do not go together
        (
            "datasets.digits.stored_side",
            9,
            "datasets.digits: stored_side belongs to encoding: jpeg; leave it out for raw",
        ),
        ("datasets.food101.stored_side", 9, "datasets.food101: stored_side 9 is smaller than image_size 224"),
        (f"{THIRDS}.subsets", ["a", "a"], f"{THIRDS}: subsets must be distinct and not 'all', got ['a', 'a']"),
        (f"{THIRDS}.subsets", ["all"], f"{THIRDS}: subsets must be distinct and not 'all', got ['all']"),
        (f"{THIRDS}.ratio", [1, 1], f"{THIRDS}: ratio has 2 numbers for 3 subsets"),
        (f"{THIRDS}.classes", {"a": [1]}, f"{THIRDS}: give ratio or classes, not both"),
        (
            THIRDS,
            {"subsets": ["a"], "classes": {"b": [1]}},
            f"{THIRDS}: classes names ['b'], subsets names ['a']",
        ),
        (
            THIRDS,
            {"subsets": ["a", "b"], "classes": {"a": [1], "b": []}},
            f"{THIRDS}: classes.b has no class; give it at least one, or drop the subset",
        ),
        (
            THIRDS,
            {"subsets": ["a", "b"], "classes": {"a": [1, "x"], "b": [0, "x"]}},
            f"{THIRDS}: classes: 'x' is listed in a and in b; each belongs to one subset",
        ),
        (
            THIRDS,
            {"subsets": ["a"], "classes": {"a": [1]}, "class_order_seed": 1},
            f"{THIRDS}: class_order_seed belongs to ratio; with classes the order is given",
        ),
        (
            THIRDS,
            {"subsets": ["a"], "classes": {"a": [1]}, "confusion": {"teacher": "digits_teacher"}},
            f"{THIRDS}: confusion deals the classes out; with classes that is done; remove one of the two",
        ),
        (
            THIRDS,
            {"subsets": ["a"], "class_order_seed": 1, "confusion": {"teacher": "digits_teacher"}},
            f"{THIRDS}: confusion gives the classes an order; remove it, or class_order_seed",
        ),
        (f"{TEACHER}.network.source", "file", f"{TEACHER}.network: source: file needs location and sha256"),
        (f"{TEACHER}.network.location", "x", f"{TEACHER}.network: source: train takes neither location nor sha256"),
        (f"{TEACHER}.fitting.epochs", 0, f"{TEACHER}: source: train needs fitting.epochs > 0"),
        *(
            (
                f"{SOFT}.space",
                {"exhaustive": True, **space},
                f"{SOFT}.space: exhaustive: true needs views that can be co",
            )
            for space in (
                {"augment": {"kind": "resized_crop"}},
                {"augment": CROP | {"jitter": {}}},
                {"augment": CROP | {"rand_augment": {}}},
                {"augment": CROP, "mixing": {"mixup": 1}},
            )
        ),
        (
            f"{SOFT}.views.number",
            3,
            f"{SOFT}: views.number: an exhaustive space has its own number of views; remove it",
        ),
        (
            f"{PHOTOS}.views.number",
            MISSING,
            f"{PHOTOS}: views.number: missing; say how many views of each image to draw, or set space.exhaustive: true",
        ),
        (
            f"{PHOTOS}.space.mixing",
            {},
            f"{PHOTOS}.space.mixing: mixup and cutmix are both 0; give one of them, or leave mixing out",
        ),
        (f"{SOFT}.storage.top_k", 3, f"{SOFT}.storage: precision: uint8 has no top_k; remove it"),
        (f"{SOFT}.storage.draws", 3, f"{SOFT}.storage: precision: uint8 has no draws; remove it"),
        (f"{SOFT}.storage.temperature", 3, f"{SOFT}.storage: precision: uint8 has no temperature; remove it"),
        (f"{SOFT}.storage.precision", "top_k", f"{SOFT}.storage: precision: top_k needs top_k; give it"),
        (
            f"{SOFT}.storage",
            {"precision": "top_k", "top_k": 3, "draws": 9},
            f"{SOFT}.storage: precision: top_k has no draws; remove it",
        ),
        (f"{SOFT}.storage.precision", "sampled", f"{SOFT}.storage: precision: sampled needs draws; give it"),
        (
            f"{SOFT}.storage",
            {"precision": "sampled", "draws": 9},
            f"{SOFT}.storage: precision: sampled needs temperature; give it",
        ),
        (
            f"{SOFT}.storage",
            {"precision": "sampled", "draws": 9, "temperature": 4},
            f"{SOFT}.storage: precision: sampled is an estimate, no error is certified; give max_kl: null to",
        ),
        (
            "experiments.digits_ed.stages.primary.epochs",
            2,
            "experiments.digits_ed.stages.primary: give exactly one of epochs, images and compute, got epochs and "
            "images",
        ),
        ("experiments.digits_ed.seeds", [0, 0], "experiments.digits_ed: seeds must differ, got [0, 0]"),
        # names that point nowhere
        ("tracked", ["digits_edd"], "tracked: 'digits_edd' is not in experiments; did you mean 'digits_ed'?"),
        ("students", {}, "experiments.digits_ce.student: 'resnet8' is not in students; known: none"),
        (
            "soft_labels.digit",
            SHIPPED["soft_labels"]["digits"],
            "soft_labels.digit: 'digit' is not in datasets; did you mean 'digits'?",
        ),
        (
            f"{TEACHER}.fitting.recipe",
            "tiny",
            f"{TEACHER}.fitting.recipe: 'tiny' is not in recipes; known: cifar_crd, imagenet_usual, photographs, "
            "small_batches, small_images, tiny_imagenet_dot, tiny_images",
        ),
        (
            f"{TEACHER}.partition",
            "third",
            f"{TEACHER}.partition: 'third' is not in partitions; did you mean 'thirds'?",
        ),
        (
            "experiments.digits_ed.dataset",
            "digit",
            "experiments.digits_ed.dataset: 'digit' is not in datasets; did you mean 'digits'?",
        ),
        ("soft_labels.digits", MISSING, "experiments.digits_ce.dataset: 'digits' is not in soft_labels; known: "),
        (
            "experiments.digits_ed.partition",
            "third",
            "experiments.digits_ed.partition: 'third' is not in partitions; did you mean 'thirds'?",
        ),
        (
            "experiments.digits_ed.recipe",
            "tiny_image",
            "experiments.digits_ed.recipe: 'tiny_image' is not in recipes; did you mean 'tiny_images'?",
        ),
        (
            f"{METHOD}.teacher",
            "digits_teachr",
            f"{METHOD}.teacher: 'digits_teachr' is not in teachers; did you mean 'digits_teacher'?",
        ),
        (
            f"{THIRDS}.confusion",
            {"teacher": "digits_teachr"},
            f"{THIRDS}.confusion.teacher: 'digits_teachr' is not in teachers; did you mean 'digits_teacher'?",
        ),
        # parts that do not fit together
        (
            f"{THIRDS}.confusion",
            {"teacher": "fashion_specialists"},
            f"{THIRDS}.confusion.teacher: 'fashion_specialists' knows only subsets of partition 'thirds', but only a "
            "teacher of all classes confuses any two of them; name one whose partition is absent",
        ),
        (
            f"{METHOD}.teacher",
            "digits_specialists",
            f"{METHOD}.teacher: 'digits_specialists' knows only subsets of partition 'thirds', but method 'kd' needs a "
            "teacher of all classes; name one whose partition is absent",
        ),
        (
            "experiments.digits_ed.stages",
            {},
            "experiments.digits_ed.stages: needs exactly ['primary', 'middle', 'university'] (one for each subset of "
            "partition 'thirds'), got []",
        ),
        (
            "experiments.digits_kd.stages",
            {"main": {"epochs": 1}},
            "experiments.digits_kd.stages: needs exactly ['only'] (method 'kd' has one stage), got ['main']",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(path, value, message):
    found = complaint(path, value)
    assert found.startswith(message)
    assert "\n" not in found


def test_a_specialist_of_another_partition_is_refused():
    raw = changed("partitions.halves", {"subsets": ["primary", "middle"]})
    raw["experiments"]["digits_ed"] |= {
        "partition": "halves",
        "stages": {"primary": {"epochs": 1}, "middle": {"epochs": 1}},
    }
    with pytest.raises(
        ParamsError, match="'digits_specialists' is made for partition 'thirds', this experiment teaches"
    ):
        parse_params(raw)


def test_every_mistake_has_its_own_line():
    raw = changed(f"{METHOD}.temperature", 0)
    raw["datasets"]["digits"]["image_sise"] = 3
    raw["soft_labels"]["digits"]["views"]["per_file"] = 0
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "datasets.digits.image_sise",
        f"{SOFT}.views.per_file",
        f"{METHOD}.temperature",
    ]


def test_an_entry_of_the_form_before_views_had_a_space_is_told_line_by_line():
    old = {"views": {"augment": CROP, "views": 8}, "precision": "uint8"}
    assert complaint(SOFT, old).splitlines() == [
        f"{SOFT}.space: missing; it must be given",
        f"{SOFT}.views.augment: unknown key; known: choice, number, per_file",
        f"{SOFT}.views.views: unknown key; known: choice, number, per_file",
        f"{SOFT}.storage: missing; it must be given",
        f"{SOFT}.precision: unknown key; known: space, storage, views",
    ]


def test_mixed_views_need_teachers_that_know_what_is_mixed():
    raw = changed("soft_labels.fashion_mnist.space.mixing", {"mixup": 0.2})
    raw = only(raw, "fashion_mnist_ce", "fashion_mnist_kd", "fashion_mnist_ed_paper")
    assert parse_params(raw).soft_labels["fashion_mnist"].space.mixing.probability == 1
    raw["experiments"]["fashion_mnist_ed_paper"]["method"]["teacher"] = "fashion_teacher"
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "experiments.fashion_mnist_ed_paper.method.teacher: 'fashion_teacher' knows all classes, so "
        "soft_labels.fashion_mnist.space.mixing would mix images with those of classes not taught yet; name a teacher "
        "that has a partition, or remove mixing"
    )


def test_views_that_tell_no_confusions_are_refused():
    raw = changed(f"{THIRDS}.confusion", {"teacher": "digits_teacher"})
    assert parse_params(raw).partitions["thirds"].confusion.together
    raw["soft_labels"]["fashion_mnist"]["space"]["mixing"] = {"mixup": 0.2}
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "experiments.fashion_mnist_ce.partition: 'thirds' asks what a teacher confuses, but "
        "soft_labels.fashion_mnist.space.mixing shows it mixed images, of which it names both classes; remove mixing, "
        "or use a partition without confusion"
    )


@pytest.mark.parametrize("temperature", [1, 4])
def test_sampled_rows_tell_confusions_at_temperature_1_alone(temperature):
    raw = changed(f"{THIRDS}.confusion", {"teacher": "digits_teacher"})
    raw = only(raw, "digits_ce", "digits_kd", "digits_ed")
    sampled = {"precision": "sampled", "draws": 9, "temperature": temperature, "max_kl": None}
    raw["soft_labels"]["digits"]["storage"] = sampled
    for experiment in ("digits_kd", "digits_ed"):
        raw["experiments"][experiment]["method"]["temperature"] = temperature
    if temperature == 1:
        assert parse_params(raw)
        return
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "experiments.digits_ce.partition: 'thirds' asks what a teacher confuses at temperature 1, but "
        "soft_labels.digits.storage samples at temperature 4; use another precision, or a partition without confusion"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"max_kl": None},
        {"precision": "uint4", "attention": True},
        {"precision": "uint8", "hint": {"feature_stage": 2, "side": 4}},
        {"precision": "float16", "attention": True, "hint": {"feature_stage": 1}},
        {"precision": "top_k", "top_k": 10},
        {"precision": "sampled", "draws": 50, "temperature": 4, "max_kl": None},
    ],
)
def test_each_way_of_storing_can_be_asked_for(storage):
    raw = changed(f"{SOFT}.storage", storage)
    assert parse_params(raw).soft_labels["digits"].storage.model_dump(exclude_unset=True) == storage
    jsonschema.Draft202012Validator(json.loads(json_schema())).validate(raw)


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


def _places(value, prefix=()):
    for key, inner in value.items():
        yield (*prefix, key)
        if isinstance(inner, dict):
            yield from _places(inner, (*prefix, key))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(_places(SHIPPED))), JUNK)
def test_whatever_stands_in_the_file_is_read_or_refused_with_its_place(place, junk):
    raw = copy.deepcopy(SHIPPED)
    inner = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    try:
        parse_params(raw)
    except ParamsError as error:
        for line in str(error).splitlines():
            path, _, words = line.partition(": ")
            assert words
            assert path.split(".")[0] in SHIPPED


def test_knobs_are_read_only():
    params = parse_params(SHIPPED)
    with pytest.raises(ValueError, match="frozen"):
        params.datasets["digits"].image_size = 9


def test_canonical_json_is_one_text_for_equal_values():
    assert canonical_json({"b": [1, 0.05], "a": "é"}) == '{"a":"é","b":[1,0.05]}'
    recipe = parse_params(SHIPPED).recipes["tiny_images"]
    assert canonical_json(recipe) == canonical_json(json.loads(canonical_json(recipe)))
    with pytest.raises(TypeError, match="cannot be written as JSON: set"):
        canonical_json({1, 2})


def printed(capsys, command):
    assert main([command]) == 0
    return capsys.readouterr().out


def test_the_schema_for_editors_is_in_step(capsys):
    stored = (ROOT / "workflow" / "params.schema.json").read_text(encoding="utf-8")
    assert printed(capsys, "schema") == stored, "run `edpipe schema > workflow/params.schema.json`"


def test_the_page_of_knobs_is_in_step(capsys):
    stored = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    assert printed(capsys, "knobs") == stored, "run `edpipe knobs > docs/params.md`"


def test_the_page_has_every_knob_with_type_default_and_range():
    page = reference_page()
    named = {line.split("`")[1].replace("<name>", "*") for line in page.splitlines() if line.startswith("| `")}
    for place in _places(SHIPPED):
        if not isinstance(_value(place), dict):
            # Of a mapping by level the page has one row, which names no level.
            assert any(_fits(p, path.split(".")) for path in named for p in (place, place[:-1])), place
    assert "| `datasets.<name>.image_size` | whole number | required | ≥ 4, ≤ 1024 | Side of the square" in page
    assert "| `experiments.<name>.method.temperature` | number | `4` | > 0 | Divides the logits" in page
    assert "| `recipes.<name>.milestones` | list of number | `[0.625, 0.75, 0.875]` | ≥ 0, ≤ 1 |" in page
    assert "| `soft_labels.<name>.views.number` | whole number | `absent` | ≥ 1, ≤ 100000 | Drawn views" in page
    # null stands in the type where it means something else than leaving the knob out.
    assert "| `soft_labels.<name>.storage.max_kl` | number or `null` | `0.01` | > 0 | A dump whose" in page
    # A group that may be left out has a row of its own, before its knobs.
    group = "| `soft_labels.<name>.space.mixing` | group | `absent` |  | Mix each view"
    assert page.index(group) < page.index("| `soft_labels.<name>.space.mixing.mixup` | number | `0` | ≥ 0, ≤ 10 |")
    assert "| `soft_labels.<name>.space.augment.jitter.hue` | number | `0` | ≥ 0, ≤ 0.5 |" in page
    assert "| `teachers.<name>.partition` | name | `absent` |  |" in page


def _value(place):
    value = SHIPPED
    for key in place:
        value = value[key]
    return value


def _fits(place, path):
    return len(place) == len(path) and all(part in ("*", key) for key, part in zip(place, path, strict=True))


MIXED = {"augment": {"kind": "pad_crop", "padding": 1, "flip": False}, "mixing": {"cutmix": 1.0}}


def with_mixed_digits(teacher):
    raw = changed("soft_labels.digits.space", MIXED)
    raw["soft_labels"]["digits"]["views"]["number"] = 8
    raw["experiments"]["digits_ed"]["method"]["teacher"] = teacher
    return only(raw, "digits_ce", "digits_kd", "digits_ed")


def test_mixing_is_refused_where_partners_could_be_of_classes_not_taught_yet():
    with pytest.raises(ParamsError) as caught:
        parse_params(with_mixed_digits("digits_teacher"))
    assert str(caught.value) == (
        "experiments.digits_ed.method.teacher: 'digits_teacher' knows all classes, so soft_labels.digits.space.mixing "
        "would mix images with those of classes not taught yet; name a teacher that has a partition, or remove mixing"
    )


def test_mixing_is_accepted_with_teachers_of_one_subset_each_and_in_one_stage():
    params = parse_params(with_mixed_digits("digits_specialists"))
    assert params.soft_labels["digits"].space.mixing is not None
    assert params.experiments["digits_kd"].method.teacher == "digits_teacher"


@pytest.mark.parametrize(("temperature", "is_accepted"), [(4.0, True), (2.0, False)])
def test_sampled_rows_serve_the_temperature_at_which_they_are_drawn_and_no_other(temperature, is_accepted):
    storage = {"precision": "sampled", "draws": 50, "temperature": temperature, "max_kl": None}
    raw = changed("soft_labels.digits.storage", storage)
    if is_accepted:
        assert parse_params(raw).soft_labels["digits"].storage.temperature == temperature
        return
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == (
        "experiments.digits_kd.method.temperature: 4, but soft_labels.digits.storage samples at temperature 2, and "
        "sampled rows serve no other; use the same in both, or another precision"
    )


@pytest.mark.parametrize(
    ("beside", "line"),
    [
        (["digits_kf"], "'digits_kf' is not in experiments; did you mean 'digits_kd'?"),
        (["digits_ed"], "'digits_ed' cannot stand beside itself; remove it"),
        (["digits_ce", "digits_ce"], "names must differ, got ['digits_ce', 'digits_ce']"),
        (
            ["fashion_mnist_ce"],
            "'fashion_mnist_ce' is of dataset 'fashion_mnist', this one of 'digits'; name experiments of 'digits'",
        ),
    ],
)
def test_results_that_cannot_stand_beside_a_page_are_refused(beside, line):
    with pytest.raises(ParamsError) as caught:
        parse_params(changed("experiments.digits_ed.beside", beside))
    assert str(caught.value) == f"experiments.digits_ed.beside: {line}"


def test_more_than_four_results_beside_a_page_are_refused():
    with pytest.raises(ParamsError, match=r"experiments\.digits_ed\.beside: .*at most 4"):
        parse_params(changed("experiments.digits_ed.beside", ["a", "b", "c", "d", "e"]))


def test_no_experiment_takes_the_name_of_the_page_of_all_results():
    raw = changed("tracked", [])
    raw["experiments"]["index"] = raw["experiments"]["digits_ce"]
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    assert str(caught.value) == "experiments.index: results/index.html is the page of all results; rename it"
