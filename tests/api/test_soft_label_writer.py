"""A teacher of one's own is stored as the pipeline stores its teachers; what is not the teacher's is found."""

import json
import multiprocessing
import os
import re
import signal

import pytest
import torch
from project import tiny_params
from small_world import CPU, NINE, make_world
from soft_label_examples import small_blocks
from torch import nn

from edpipe import EdpipeError, SoftLabelDataset, SoftLabelWriter
from edpipe.cli.adoption.claim import Claim
from edpipe.cli.adoption.soft_labels import show_soft_labels
from edpipe.datasets.dataset_file import open_dataset
from edpipe.errors import OverwriteError, ParamsError, TeacherError, VerificationError
from edpipe.params.load import load_params
from edpipe.params.soft_labels import DumpKnobs, SoftLabelKnobs, StorageKnobs, ViewUse
from edpipe.soft_labels.file.reader import read_header
from edpipe.soft_labels.teacher_outputs import load_teacher
from edpipe.storage.job import Job
from edpipe.storage.records import read_record, record_path
from edpipe.training.stage.inputs import open_stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SHIFTS = {"augment": {"kind": "pad_crop", "padding": 1, "flip": False}, "exhaustive": True}
ENTRY = {"space": SHIFTS, "views": {"per_file": 5}, "storage": {"precision": "float32"}}
CUTMIX = {"augment": {"kind": "pad_crop", "padding": 1}, "mixing": {"cutmix": 1.0, "probability": 0.7}, "seed": 5}
MIXED = {"space": CUTMIX, "views": {"number": 3, "per_file": 2}, "storage": {"precision": "uint8"}}
DRAWS = {"precision": "sampled", "draws": 6, "temperature": 2.0, "max_kl": None}
SAMPLED = {"space": SHIFTS, "views": {"per_file": 9}, "storage": DRAWS}
ROWS = 9 * 80
"""All views of all training samples."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), per_class=8)


@pytest.fixture(scope="module")
def files(world):
    return world.teacher()


def network_of(world, files):
    return load_teacher(files, open_dataset(world.dataset)).network.to(memory_format=torch.channels_last).eval()


@pytest.fixture(scope="module")
def network(world, files):
    return network_of(world, files)


@pytest.fixture
def index(tmp_path):
    return tmp_path / "mine" / "all.json"


def writer(world, index, network, entry=ENTRY, **settings):
    weights = {"teacher": "general", "weights": network.state_dict()}
    return SoftLabelWriter(index, world.dataset, entry, **(weights | settings))


def store(writer, network, most=10**9):
    """How many images the teacher was asked about, of `most` batches."""
    asked = 0
    with writer, torch.inference_mode():
        for number, images in enumerate(writer):
            if number == most:
                break
            writer.write(network(images))
            asked += len(images)
    return asked


def contents(index):
    return [path.read_bytes() for path in sorted(index.with_suffix("").glob("*.h5"))]


def knobs_of(entry):
    return SoftLabelKnobs.model_validate(entry)


@pytest.mark.parametrize("entry", [ENTRY, MIXED, SAMPLED], ids=["all views", "mixed", "sampled"])
def test_files_are_those_of_the_pipeline_byte_for_byte(world, files, network, index, entry):
    knobs = knobs_of(entry)
    paths = world.store(files, knobs.space, knobs.views, knobs.storage)
    opened = writer(world, index, network, entry)
    assert not opened.is_complete
    num_rows = 80 * SoftLabelDataset(world.index(files), world.dataset).num_views
    assert store(opened, network) == num_rows + min(num_rows, 1000)
    assert opened.is_complete
    assert contents(index) == [path.read_bytes() for path in paths]
    own, theirs = (SoftLabelDataset(each, world.dataset) for each in (index, world.index(files)))
    items = zip(own.__getitems__(range(80)), theirs.__getitems__(range(80)), strict=True)
    assert all(torch.equal(*pair) for item in items for pair in zip(*item, strict=True))


def test_records_say_what_was_made_and_that_no_step_made_it(world, network, index):
    store(writer(world, index, network), network)
    record = read_record(index)
    assert (record["step"], record["made_by"], record["code"]) == ("verify_soft_labels", "edpipe.SoftLabelWriter", {})
    assert (record["files"], record["num_views"]) == (["views_0-4.h5", "views_5-8.h5"], 9)
    assert (record["teacher_forwards"], record["verified_rows"]) == (ROWS, 720)
    file = read_record(index.with_suffix("") / "views_5-8.json")
    assert (file["views"], file["num_samples"], file["teacher_forwards"]) == ("5-8", 80, 4 * 80)
    assert file["digest"] == record["inputs"]["soft_labels"][1]
    assert file["kl_bound"] == 0


def test_the_pipeline_teaches_from_them_if_it_has_the_teacher(world, files, network):
    index = world.root / "soft_labels" / "general" / "all.json"
    for path in [*index.with_suffix("").glob("*"), index]:
        path.unlink(missing_ok=True)
    entry = ENTRY | {"views": {"per_file": 9}}
    store(writer(world, index, network, entry), network)
    paths = [index.with_suffix("") / "views_0-8.h5"]
    task = open_stage(0, *world.stage([files], paths), CPU)
    assert task.teachers[0].labels.store.num_forwards == ROWS
    assert record_path(files.weights_path).is_file()


def test_a_file_can_be_adopted_by_a_pipeline_that_has_the_teacher(world, files, network, index):
    store(writer(world, index, network), network)
    path = index.with_suffix("") / "views_0-4.h5"
    knobs = DumpKnobs(NINE, StorageKnobs(precision="float32"), 0.0)
    teacher = (files.weights_path, record_path(files.weights_path))
    inputs = {"dataset": (world.dataset,), "partition": (), "teacher": teacher}
    arguments = {"teacher": "general", "subset": "all", "views": "0-4"}
    job = Job("dump_soft_labels", arguments, knobs, inputs, (path, record_path(path)))
    record = read_record(record_path(path))
    assert record["knobs"] == json.loads(job.knobs_text)
    shown = show_soft_labels(Claim(job, record, world.root, False)).shown
    assert (shown["compared_rows"], shown["bad_rows"]) == (256, 0)


class Failing:
    """A teacher that fails after some images."""

    def __init__(self, network, most):
        self.network, self.most, self.asked = network, most, 0

    def __call__(self, images):
        if self.asked >= self.most:
            raise RuntimeError("out of memory")
        self.asked += len(images)
        return self.network(images)


def test_it_is_resumed_where_an_error_or_a_break_stopped_it(world, network, index):
    with small_blocks(32):
        failing = Failing(network, 160)
        with pytest.raises(RuntimeError, match="out of memory"):
            store(writer(world, index, network), failing)
        asked = failing.asked
        assert not index.exists()
        assert not contents(index)
        assert store(writer(world, index, network), network, most=4) == 112
        asked += 112
        assert not index.exists()
        asked += store(writer(world, index, network), network)
        assert asked == ROWS + 720
        resumed = contents(index)
        whole = index.with_name("again.json")
        store(writer(world, whole, network), network)
    assert contents(whole) == resumed


def _store_until_killed(world, index, network):
    with writer(world, index, network) as opened:
        for number, images in enumerate(opened):
            if number == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            opened.write(network(images))


def test_a_kill_costs_no_finished_block(world, network, index):
    with small_blocks(32):
        child = multiprocessing.get_context("fork").Process(target=_store_until_killed, args=(world, index, network))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        asked = store(writer(world, index, network), network)
    # 20 batches were answered and stored: three for each view of 80 images.
    assert asked == ROWS + 720 - 6 * 80 - 64


def test_the_same_call_compares_again_and_asks_no_more(world, network, index):
    store(writer(world, index, network), network)
    before, record = contents(index), index.read_bytes()
    (index.with_suffix("") / "views_0-4.json").unlink()
    index.unlink()
    assert store(writer(world, index, network), network) == 720
    assert (contents(index), index.read_bytes()) == (before, record)
    assert (index.with_suffix("") / "views_0-4.json").is_file()


def test_uint8_is_certified(world, network, index):
    store(writer(world, index, network, ENTRY | {"storage": {"precision": "uint8"}}), network)
    bound = read_header(index.with_suffix("") / "views_0-4.h5").kl_bound(4.0)
    assert 0 < bound < 1e-2
    tight = ENTRY | {"storage": {"precision": "uint4", "max_kl": 1e-9}}
    with pytest.raises(TeacherError, match=r"may cost .* nats of KL at temperature 4, storage.max_kl allows 1e-09"):
        store(writer(world, index.with_name("tight.json"), network, tight), network)


def test_specialists_are_stored_with_their_own_columns(world, index):
    files = world.teacher("middle")
    network = network_of(world, files)
    settings = {"teacher": "specialists", "subset": "middle", "partition": world.partition}
    opened = writer(world, index, network, **settings)
    assert (opened.class_ids, opened.classes) == ((5, 6, 7, 8, 9), tuple("56789"))
    store(opened, network)
    assert contents(index) == [path.read_bytes() for path in world.store(files, use=ViewUse(per_file=5))]
    assert SoftLabelDataset(index, world.dataset).class_ids == (5, 6, 7, 8, 9)


def test_a_teacher_that_sees_its_own_normalisation_and_batches(world, network, index):
    with writer(world, index, network, mean=(0.25,), std=(0.5,), batch_size=30) as opened:
        images = next(iter(opened))
    assert len(images) == 30
    assert (images * 0.5 + 0.25).min() >= -1e-6
    assert (images * 0.5 + 0.25).max() <= 1 + 1e-6


@pytest.mark.parametrize("teacher", ["dropout", "shuffled"])
def test_logits_that_are_not_the_teachers_are_found(world, network, index, teacher):
    dropout = nn.Dropout(0.5)
    torch.manual_seed(0)
    change = dropout if teacher == "dropout" else lambda logits: logits.flip(0)
    line = f"{index.with_suffix('')}/views_0-4.h5: for sample "
    with pytest.raises(VerificationError, match=re.escape(line) + ".*evaluation mode.*delete .*/all and write again$"):
        store(writer(world, index, network), lambda images: change(network(images)))
    assert not index.exists()


def test_each_batch_is_answered_once(world, network, index):
    opened = writer(world, index, network)
    with pytest.raises(ValueError, match="must be used in a `with` block"):
        iter(opened)
    with pytest.raises(ValueError, match="the latest batch was not answered; call write"), opened:
        list(opened)
    with pytest.raises(ValueError, match="write: no batch waits for its logits"), opened:
        opened.write(torch.zeros(1, 10))
    shapes = re.escape("write: logits must have shape (80, 10) (image, class), got (80, 9)")
    with pytest.raises(ValueError, match=shapes):
        store(writer(world, index, network), lambda images: network(images)[:, 1:])
    with pytest.raises(TeacherError, match="gives a logit that is not finite for sample"):
        store(writer(world, index, network), lambda images: torch.full((len(images), 10), torch.nan))


def test_other_soft_labels_in_the_way_are_kept(world, network, index):
    store(writer(world, index, network), network)
    before = contents(index)
    line = "views_0-4.h5: is in the way: soft labels of teacher 'general' with weights [0-9a-f]{16}, or of other views"
    with pytest.raises(OverwriteError, match=line):
        store(writer(world, index, network, weights="another"), network)
    assert contents(index) == before
    path = index.with_suffix("") / "views_0-4.h5"
    path.write_bytes(before[0][:-1])
    with pytest.raises(OverwriteError, match=re.escape(f"{path}: is in the way, and damaged; delete it")):
        store(writer(world, index, network), network)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"entry": ENTRY | {"view": {}}}, "soft_labels.digits.view: unknown"),
        ({"entry": {"space": SHIFTS, "views": {}}}, "soft_labels.digits.storage: missing; it must be given"),
        ({"entry": ENTRY | {"storage": {"attention": True}}}, "stores logits alone; remove attention and hint"),
        ({"entry": ENTRY | {"storage": {"precision": "top_k", "top_k": 10}}}, "soft_labels.digits.storage: "),
        ({"subset": "middle"}, "subset 'middle' with partition None: give both, or subset='all' without partition"),
    ],
)
def test_knobs_that_are_wrong_are_one_line(world, network, index, settings, line):
    with pytest.raises(ParamsError, match=re.escape(line)) as caught:
        writer(world, index, network, **settings)
    assert "\n" not in str(caught.value)


def test_arguments_that_are_wrong_are_one_line(world, network, index):
    with pytest.raises(EdpipeError, match=re.escape(f"{index.parent}: must end in .json, such as")):
        writer(world, index.parent, network)
    with pytest.raises(ParamsError, match=re.escape("has no 'midle'; did you mean 'middle'?")):
        writer(world, index, network, subset="midle", partition=world.partition)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        writer(world, index, network, batch_size=0)
    with pytest.raises(ValueError, match="teacher and weights must not be empty, got 'general' and ''"):
        writer(world, index, network, weights="")


def test_knobs_may_come_from_params_yaml(world, network, index, tmp_path):
    path, text = tmp_path / "params.yaml", json.dumps(tiny_params())
    path.write_text(text)
    assert writer(world, index, network, path)._plan.knobs == load_params(path).soft_labels["digits"]
    path.write_text(text.replace('"digits"', '"numbers"').replace('"reader": "numbers"', '"reader": "digits"'))
    line = f"{path}: soft_labels has no entry 'digits', the name of the dataset; known: numbers"
    with pytest.raises(ParamsError, match=re.escape(line)):
        writer(world, index, network, path)
