"""The easiest samples of each class: how they are chosen, and that a school level sees exactly these."""

import copy
import math
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from distributed_runs import Runs
from hypothesis import given
from hypothesis import strategies as st
from project import tiny_params
from small_world import CPU, make_world

from edpipe.datasets.dataset_file import open_dataset
from edpipe.datasets.partition_file import read_partition
from edpipe.errors import ParamsError
from edpipe.params.load import parse_params
from edpipe.params.plans.curriculum import curriculum
from edpipe.params.soft_labels import ViewUse
from edpipe.params.stage import StageKnobs
from edpipe.pipeline.jobs import students
from edpipe.runtime.distributed import Group
from edpipe.soft_labels.difficulty import TIE_DECIMALS, easiest, hardest, label_losses, num_easiest
from edpipe.soft_labels.file.store import open_store
from edpipe.steps import run_stage as stage_step
from edpipe.steps.run_stage import run_stage
from edpipe.storage.weights import read_weights
from edpipe.training.stage import inputs
from edpipe.training.stage.task import StageTask

pytestmark = pytest.mark.usefixtures("one_thread")

SHARES = st.sampled_from([1e-9, 0.07, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1.0])


@st.composite
def samples(draw):
    """Ids in any order, labels of up to four classes, and losses, many of which tie."""
    ids = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True))
    labels = draw(st.lists(st.integers(0, 3), min_size=len(ids), max_size=len(ids)))
    losses = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 7.5]), min_size=len(ids), max_size=len(ids)))
    return np.array(ids), np.array(labels), np.array(losses)


# choosing


def test_the_lowest_losses_of_each_class_are_chosen_by_hand():
    ids = np.array([10, 11, 12, 13, 14, 15, 16])
    labels = np.array([5, 5, 5, 2, 2, 2, 2])
    losses = np.array([0.9, 0.1, 0.5, 3.0, 2.0, 2.0, 9.0])
    assert easiest(ids, labels, losses, 0.5).tolist() == [11, 12, 14, 15]
    assert easiest(ids, labels, losses, 0.25).tolist() == [11, 14]  # 14 and 15 tie: the smaller id
    assert easiest(ids[::-1], labels[::-1], losses[::-1], 0.25).tolist() == [14, 11]
    assert easiest(ids, labels, losses, 0.01).tolist() == [11, 14]


def test_the_highest_losses_of_each_class_are_the_hardest_by_hand():
    ids = np.array([10, 11, 12, 13, 14, 15, 16])
    labels = np.array([5, 5, 5, 2, 2, 2, 2])
    losses = np.array([0.9, 0.1, 0.5, 3.0, 2.0, 2.0, 9.0])
    assert hardest(ids, labels, losses, 0.5).tolist() == [10, 12, 13, 16]
    assert hardest(ids, labels, losses, 0.75).tolist() == [10, 11, 12, 13, 15, 16]  # 14 and 15 tie: the larger id
    assert hardest(ids, labels, losses, 0.01).tolist() == [10, 16]


@given(samples(), SHARES)
def test_what_is_left_beside_the_easiest_are_the_hardest(given_samples, share):
    ids, labels, losses = given_samples
    chosen = set(easiest(ids, labels, losses, share).tolist())
    for class_id in set(labels.tolist()):
        own = labels == class_id
        left = [sample for sample in ids[own].tolist() if sample not in chosen]
        if left:
            exactly = len(left) / own.sum()
            hard = hardest(ids[own], labels[own], losses[own], exactly).tolist()
            assert set(left) <= set(hard)
            assert len(hard) - len(left) in (0, 1)  # a share is rounded up


def test_rounding_makes_no_difference():
    losses = np.array([0.3, 0.1 + 0.2, 0.30000000001])
    assert easiest(np.array([7, 3, 5]), np.zeros(3, int), losses, 0.1).tolist() == [3]


def class_by_class(ids, labels, losses, share):
    """The easiest, found by going through all samples once for each class."""
    order = np.lexsort((ids, np.round(losses, TIE_DECIMALS)))
    is_chosen = np.zeros(len(ids), dtype=bool)
    for class_id in np.unique(labels):
        ranked = order[labels[order] == class_id]
        is_chosen[ranked[: num_easiest(len(ranked), share)]] = True
    return ids[is_chosen]


@given(samples(), SHARES)
def test_sorting_by_class_finds_what_going_through_each_class_finds(given_samples, share):
    assert easiest(*given_samples, share).tobytes() == class_by_class(*given_samples, share).tobytes()


def test_of_no_samples_none_are_chosen():
    nothing = np.array([], dtype=np.int64)
    assert easiest(nothing, nothing, np.array([]), 0.5).tolist() == []


@given(samples())
def test_a_share_of_one_is_every_sample_in_the_same_order(given_samples):
    ids, labels, losses = given_samples
    assert easiest(ids, labels, losses, 1.0).tobytes() == ids.tobytes()


@given(samples(), SHARES)
def test_each_class_keeps_its_share_rounded_up(given_samples, share):
    ids, labels, losses = given_samples
    chosen = set(easiest(ids, labels, losses, share).tolist())
    for class_id in set(labels.tolist()):
        members = ids[labels == class_id].tolist()
        assert len(chosen & set(members)) == math.ceil(Fraction(str(share)) * len(members)) >= 1


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_percentages_are_counted_as_they_are_written(percent, num_samples):
    """Without a sample more where the product of the numbers in binary is a little too large."""
    assert num_easiest(num_samples, float(f"{percent / 100:.2f}")) == -(-percent * num_samples // 100)


@given(samples(), SHARES, SHARES)
def test_a_lower_share_is_a_part_of_a_higher_one(given_samples, one, other):
    low, high = (set(easiest(*given_samples, share).tolist()) for share in sorted((one, other)))
    assert low <= high


@given(samples(), SHARES)
def test_no_sample_that_is_left_out_is_easier_than_one_of_its_class_that_is_kept(given_samples, share):
    ids, labels, losses = given_samples
    is_kept = np.isin(ids, easiest(ids, labels, losses, share))
    for class_id in set(labels.tolist()):
        kept, left = (losses[(labels == class_id) & mask] for mask in (is_kept, ~is_kept))
        assert len(left) == 0 or kept.max() <= left.min()


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    for choose in (easiest, hardest):
        with pytest.raises(ValueError, match=rf"share must be above 0 and at most 1, got {share}"):
            choose(np.array([1]), np.array([0]), np.array([0.5]), share)


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_losses_are_cross_entropies_at_temperature_1(num_rows, num_classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (num_rows, num_classes)).astype(np.float32)
    columns = rng.integers(0, num_classes, num_rows)
    wanted = F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(columns), reduction="none")
    assert np.allclose(label_losses(logits, columns), wanted.numpy(), rtol=1e-12)


# params.yaml


def school(**method):
    """Two school levels taught by specialists."""
    raw = copy.deepcopy(tiny_params())
    raw["experiments"]["ed"]["method"] |= method
    return raw


def shares(**method):
    return [plan.easiest for plan in curriculum(parse_params(school(**method)), "ed")]


def complaint(raw):
    with pytest.raises(ParamsError) as caught:
        parse_params(raw)
    return str(caught.value)


def test_a_level_teaches_the_share_that_is_named_for_it():
    assert shares() == [1.0, 1.0]
    assert shares(easiest={"primary": 0.3}) == [0.3, 1.0]
    assert shares(easiest={"middle": 1}) == [1.0, 1.0]


def test_a_share_of_one_is_the_same_job_as_none():
    plain, whole = (
        students.run_stage(parse_params(school(easiest=easy)), "ed", 0, "primary") for easy in ({}, {"primary": 1})
    )
    assert whole == plain


@pytest.mark.parametrize(
    ("easy", "line"),
    [
        ({"primry": 0.5}, "easiest: 'primry' is not in the levels; did you mean 'primary'?"),
        ({"university": 0.5}, "easiest: 'university' is not in the levels; known: middle, primary"),
        ({"primary": 0}, "easiest.primary: got 0; input should be greater than 0"),
        ({"primary": 1.5}, "easiest.primary: got 1.5; input should be less than or equal to 1"),
        ({"primary": "half"}, "easiest.primary: got 'half'; input should be a number"),
    ],
)
def test_shares_that_cannot_be_are_one_line(easy, line):
    assert complaint(school(easiest=easy)) == f"experiments.ed.method.{line}"
    assert complaint(school(hardest=easy)) == f"experiments.ed.method.{line.replace('easiest', 'hardest')}"


def test_a_level_has_a_share_of_one_kind():
    assert complaint(school(easiest={"middle": 0.5, "primary": 0.5}, hardest={"primary": 0.2})) == (
        "experiments.ed.method.hardest: level 'primary' has a share of easiest as well; remove one of the two"
    )
    plans = curriculum(parse_params(school(easiest={"primary": 0.5}, hardest={"middle": 0.2})), "ed")
    assert [(plan.easiest, plan.hardest) for plan in plans] == [(0.5, 1.0), (1.0, 0.2)]


@pytest.mark.parametrize("knob", ["easiest", "hardest"])
def test_mixed_images_are_neither_easy_nor_hard(knob):
    raw = school(**{knob: {"primary": 0.5}})
    raw["soft_labels"]["digits"]["space"]["mixing"] = {"mixup": 0.2}
    assert complaint(raw) == (
        f"experiments.ed.method.{knob}: asks how well teachers name an image, but soft_labels.digits.space.mixing "
        f"shows them mixed images, of two classes each; remove mixing, or {knob}"
    )


@pytest.mark.parametrize("knob", ["easiest", "hardest"])
def test_sampled_rows_tell_the_easiest_at_temperature_1_alone(knob):
    raw = school(**{knob: {"primary": 0.5}})
    sampled = {"precision": "sampled", "draws": 9, "temperature": 2, "max_kl": None}
    raw["soft_labels"]["digits"]["storage"] = sampled
    raw["experiments"] = {"ed": raw["experiments"]["ed"]}
    raw["experiments"]["ed"]["method"]["temperature"] = 2
    assert complaint(raw) == (
        f"experiments.ed.method.{knob}: asks how well teachers name an image at temperature 1, but "
        f"soft_labels.digits.storage samples at temperature 2; use another precision, or remove {knob}"
    )
    sampled["temperature"] = raw["experiments"]["ed"]["method"]["temperature"] = 1
    assert parse_params(raw)


# stages


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


LEVEL = {
    "name": "primary",
    "number": 1,
    "num_stages": 2,
    "num_blocks": 2,
    "taught": ("primary",),
    "known": ("primary",),
}
LAST = LEVEL | {
    "name": "middle",
    "number": 2,
    "blocks": 2,
    "taught": ("primary", "middle"),
    "known": ("primary", "middle"),
}


def job_of(world, teachers, share, use=ViewUse(per_file=9), **plan):  # noqa: B008  (frozen)
    paths = [path for files in teachers for path in world.store(files, use=use)]
    return world.stage(teachers, paths, use=use, easiest=share, **(LEVEL | plan))


def chosen_by_hand(world, teachers, knobs, num_views):
    """Samples of the lowest mean cross-entropy, a class at a time, from what lies in the files."""
    dataset = open_dataset(world.dataset)
    partition = read_partition(world.partition, dataset)
    stores = [open_store(sorted(world.index(files).with_suffix("").glob("*.h5"))) for files in teachers]
    found = []
    for class_id in partition.classes_of(knobs.plan.taught):
        losses = {}
        for sample_id in dataset.sample_ids("train", (class_id,)):
            told = []
            for store in stores:
                if class_id in store.class_ids:
                    column = store.class_ids.tolist().index(class_id)
                    for view in range(num_views):
                        logits = store.logits(np.array([sample_id]), np.array([view]))[0].astype(np.float64)
                        told.append(np.log(np.exp(logits).sum()) - logits[column])
            losses[int(sample_id)] = np.mean(told)
        wanted = math.ceil(knobs.plan.easiest * len(losses))
        found += sorted(losses, key=losses.__getitem__)[:wanted]
    return sorted(found)


def opened(knobs, files):
    return inputs.open_stage(0, knobs, files, CPU)


def epoch_of(task):
    return sorted(task.stream.slice(0, task.stream.num_samples)[1].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_first_level_is_taught_exactly_the_easiest(world, share):
    teachers = [world.teacher("primary")]
    knobs, files = job_of(world, teachers, share)
    assert epoch_of(opened(knobs, files)) == chosen_by_hand(world, teachers, knobs, 8)


@pytest.mark.slow
def test_hard_samples_are_those_that_are_not_easy(world):
    teachers = [world.teacher("primary")]
    every, easy, hard = (
        epoch_of(opened(*job_of(world, teachers, **shares)))
        for shares in ({"share": 1.0}, {"share": 0.5}, {"share": 1.0, "hardest": 0.5})
    )
    assert sorted(easy + hard) == every
    assert len(easy) == len(hard)


@pytest.mark.slow
def test_later_levels_ask_each_subsets_own_specialist(world):
    teachers = [world.teacher("primary"), world.teacher("middle")]
    knobs, files = job_of(world, teachers, 0.5, **LAST, previous=None)
    assert epoch_of(opened(knobs, files)) == chosen_by_hand(world, teachers, knobs, 8)


@pytest.mark.slow
def test_every_teacher_that_knows_a_sample_has_a_say(world):
    teachers = [world.teacher("primary"), world.teacher("all", seed=5)]
    knobs, files = job_of(world, teachers, 0.4, **LAST | {"taught": ("primary",)})
    chosen = chosen_by_hand(world, teachers, knobs, 8)
    assert epoch_of(opened(knobs, files)) == chosen
    assert chosen != chosen_by_hand(world, teachers[:1], knobs, 8)
    assert chosen != chosen_by_hand(world, teachers[1:], knobs, 8)


@pytest.mark.slow
@pytest.mark.parametrize(("per_file", "num_views"), [(9, 8), (2, 2)])
def test_the_first_views_of_the_first_file_are_asked(tmp_path, per_file, num_views):
    world = make_world(tmp_path)
    teachers = [world.teacher("primary")]
    knobs, files = job_of(world, teachers, 0.4, ViewUse(per_file=per_file))
    assert epoch_of(opened(knobs, files)) == chosen_by_hand(world, teachers, knobs, num_views)
    other = 1 if num_views > 2 else 9
    assert epoch_of(opened(knobs, files)) != chosen_by_hand(world, teachers, knobs, other)


@pytest.mark.slow
def test_however_rows_are_cut_into_chunks_the_same_are_chosen(world, monkeypatch):
    knobs, files = job_of(world, [world.teacher("primary")], 0.5)
    whole = opened(knobs, files).taught_digest
    monkeypatch.setattr("edpipe.soft_labels.encoding.softmax.MOST_ROWS", 3)
    assert opened(knobs, files).taught_digest == whole


@pytest.mark.slow
def test_a_budget_in_epochs_is_of_passes_over_the_chosen(world, monkeypatch):
    teachers = [world.teacher("primary")]
    knobs, files = job_of(world, teachers, 0.5, budget=StageKnobs(epochs=2, learning_rate=0.05))
    chosen, seen, whole = chosen_by_hand(world, teachers, knobs, 8), [], StageTask.batch_of

    def noting(self, ids, views):
        seen.extend(ids.tolist())
        return whole(self, ids, views)

    monkeypatch.setattr(StageTask, "batch_of", noting)
    run_stage("t", 0, knobs, files)
    assert sorted(seen) == sorted(2 * chosen)
    _, record = read_weights(files.out)
    assert record["taught_samples"] == len(chosen)
    assert record["images_seen"] == 2 * len(chosen)
    assert record["knobs"]["plan"]["easiest"] == 0.5


@pytest.mark.slow
def test_a_level_of_all_samples_is_what_it_was(world):
    digests = set()
    for share in ({}, {"easiest": 1.0}, {"easiest": 0.5}):
        knobs, files = world.stage([t := world.teacher("primary")], world.store(t), **LEVEL | share)
        run_stage("t", 0, knobs, files)
        digests.add(read_weights(files.out)[1]["weights_digest"])
    assert len(digests) == 2


@pytest.mark.slow
def test_a_level_that_breaks_off_goes_on_to_the_same_bytes(world, monkeypatch):
    knobs, files = job_of(world, [world.teacher("primary")], 0.9, budget=StageKnobs(epochs=4, learning_rate=0.05))
    run_stage("t", 0, knobs, files)
    wanted = read_weights(files.out)[1]["weights_digest"]
    files = replace(files, out=files.out.with_name("broken.safetensors"))
    whole, num_losses = StageTask.loss, 0

    def breaking(self, network, batch):
        nonlocal num_losses
        num_losses += 1
        if num_losses == 3:
            raise RuntimeError("broken off")
        return whole(self, network, batch)

    monkeypatch.setenv("EDPIPE_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("edpipe.training.resumable.MOST_COST", 1e9)
    monkeypatch.setattr(StageTask, "loss", breaking)
    with pytest.raises(RuntimeError, match="broken off"):
        run_stage("t", 0, knobs, files)
    run_stage("t", 0, knobs, files)
    assert read_weights(files.out)[1]["weights_digest"] == wanted


@pytest.mark.slow
def test_processes_that_train_together_must_have_chosen_alike(world, monkeypatch):
    told = []

    class Witness(Group):
        def check_alike(self, what, number):
            told.append((what, number))

    @contextmanager
    def joined(device):
        yield Witness()

    monkeypatch.setattr(stage_step, "joined", joined)
    for share in (0.5, 0.5, 0.9):
        run_stage("t", 0, *job_of(world, [world.teacher("primary")], share))
    first, same, other = (number for what, number in told if what == "digest of the taught samples")
    assert first == same != other


@pytest.mark.slow
def test_two_processes_choose_what_one_chooses(tmp_path):
    world = make_world(tmp_path / "world")
    (tmp_path / "runs").mkdir()
    knobs, files = job_of(world, [world.teacher("primary")], 0.5)
    runs = Runs(tmp_path / "runs", knobs, files)
    try:
        assert [code for code, _ in runs.run("one 1")] == [0]
        assert [code for code, _ in runs.run("two 2")] == [0, 0]
    finally:
        runs.close()
    one, two = (read_weights(tmp_path / "runs" / name / "student.safetensors")[1] for name in ("one", "two"))
    assert one["taught_digest"] == two["taught_digest"] == opened(knobs, files).taught_digest
    assert (
        one["taught_samples"]
        == two["taught_samples"]
        == len(chosen_by_hand(world, [world.teacher("primary")], knobs, 8))
    )
