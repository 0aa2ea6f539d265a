"""The page: all numbers on it, nothing fetched, nothing that a hostile name could run."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from examples import COSTS, DATASET, DIGITS, PARTITION, evaluation, rewrite_result, write_result
from watching import TIMEOUT_S

from edpipe.errors import CorruptFileError
from edpipe.pipeline.jobs.paths import student_path
from edpipe.results.measures.cost import CostPart
from edpipe.results.page.files import PageFiles
from edpipe.steps.report import report
from edpipe.storage.records import read_record

VOID = {"meta", "link", "br", "img"}
HOSTILE = '<script src="https://evil.example/x.js"></script>&\'"'


class Page(HTMLParser):
    """Tags, text and attributes; refuses tags that do not close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folder, records=None, experiment="digits_ed"):
    path = write_result(folder, records, experiment)
    out = folder / "page.html"
    report(PageFiles(path), out)
    return out.read_text(encoding="utf-8")


@pytest.fixture
def ed(tmp_path):
    return page_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["digits_ed", "digits_kd", "digits_ce"])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_page_is_well_formed(tmp_path, experiment, seeds):
    text = page_of(tmp_path, [evaluation(seed, experiment) for seed in seeds], experiment)
    assert text.startswith("<!doctype html>")
    assert {"html", "title", "main", "svg", "table"} <= set(Page(text).tags)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "88.5 % ± 1.0",  # top1
        "95 % interval 86.0 % to 91.0 %",
        "; 1 of 3 blocks",
        "360 test images, 10 classes",
        "seeds 0, 1, 2",
        "primary +7.0 pp ± 1.0",  # forgetting: 0.08, 0.07, 0.06
        "Backward transfer −6.0 pp ± 1.0",
        "zero primary 36 81.0 % 80.0 % 82.0 %",
        "On the validation split, by which knobs can be chosen: 87.5 % ± 1.0 of 120 images.",
        "digits_specialists/middle 110 98.0 % 2.0 % 92.0 % ± 1.0 89.5 % to 94.5 %",
        "Hardest for the last student: zero (81.0 %), one (82.0 %), two (83.0 %).",
        "Training, each seed 168 GMACs",
        "Teacher forwards saved here 62,900",
        "Time of students and their evaluation, all seeds 2 min 2 s",
        "Time of data, teachers and soft labels, shared with other experiments 2 min 32 s",
        "Most memory of one process 1.5 GB; GPU 5 MB",
        "Expected calibration error 3.8 % ± 0.2",
        "0.3 task + 0.7 kd at temperature 4",
        "digits_specialists: primary, middle, university",
        f"Dataset {DATASET} Partition {PARTITION}",
        "numpy 2.3.0",
    ],
)
def test_page_holds(ed, words):
    assert words in Page(ed).text


def test_pictures_say_their_numbers(ed):
    said = " ".join(value for name, value in Page(ed).attributes if name == "aria-label")
    assert "After university: primary 89.0 %; middle 85.0 %; university 91.0 %." in said
    assert "After primary: primary 96.0 %; middle not known yet; university not known yet." in said
    assert "Top1 on primary after each stage: 96.0 %, 92.0 %, 89.0 %" in said


def test_the_page_says_where_the_student_is_and_how_to_use_it(ed):
    text = Page(ed).text
    assert "edpipe export digits_ed writes the student of seed 0 to a folder" in text
    assert "edpipe predict results/digits_ed.json IMAGE" in text
    assert str(student_path("digits_ed", 0, 3, "university")) in text


def test_page_fetches_nothing_and_runs_nothing(ed):
    page = Page(ed)
    assert not re.search(r"https?:|url\(|@import|javascript:", ed)
    assert not {"script", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    links = {value for name, value in page.attributes if name in {"src", "href"}}
    assert all(value.startswith("data:") for value in links - {"index.html"})
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "default-src 'none'" in ed


def test_equal_results_give_equal_pages(tmp_path):
    path = write_result(tmp_path)
    report(PageFiles(path), tmp_path / "a.html")
    report(PageFiles(path), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_hostile_names_stay_text(tmp_path):
    names = (HOSTILE, *DIGITS[1:])
    page = Page(page_of(tmp_path, [evaluation(class_names=names)]))
    assert "script" not in page.tags
    assert HOSTILE in page.text


def test_pictures_and_tables_can_be_read_aloud(ed):
    for svg in re.findall(r"<svg[^>]*>", ed):
        assert 'role="img"' in svg
        assert "aria-label" in svg
    assert len(re.findall("<table", ed)) == len(re.findall("<caption", ed))
    assert not re.findall(r"<th(?![^>]*scope=)[ >]", ed)
    ids = re.findall(r'(?<![a-z])id="([^"]*)"', ed)
    assert len(ids) == len(set(ids))
    assert {i for group in re.findall(r'aria-labelledby="([^"]*)"', ed) for i in group.split()} <= set(ids)


def test_one_seed_claims_no_spread(tmp_path):
    text = Page(page_of(tmp_path, [evaluation()])).text
    assert "one seed, so nothing is known about the spread" in text
    assert "±" not in text.replace("mean ± standard deviation", "")


def test_one_stage_says_that_nothing_could_be_forgotten(tmp_path):
    text = Page(page_of(tmp_path, experiment="digits_ce")).text
    assert "No subset was taught by an earlier stage, so nothing could be forgotten." in text
    assert "No teacher took part." in text
    assert "No teacher’s soft labels were learnt from, so there is no agreement." in text


def test_without_validation_or_test_images_nothing_is_claimed(tmp_path):
    record = evaluation()
    record["metrics"] |= {"val_top1": None, "val_samples": 0}
    record["metrics"]["agreement"]["digits_specialists/middle"] = None
    record["teachers"]["digits_specialists/middle"] = {"top1": None, "ece": None, "test_samples": 0}
    text = Page(page_of(tmp_path, [record])).text
    assert "validation split" not in text
    assert "digits_specialists/middle 0 – – – – digits_specialists/university" in text


def test_teachers_stand_in_the_order_of_the_school(ed):
    text = Page(ed).text
    places = [text.index(f"digits_specialists/{name} ") for name in ("primary", "middle", "university")]
    assert places == sorted(places)


def test_what_is_not_known_of_the_cost_is_said(ed, tmp_path):
    assert "made elsewhere" not in Page(ed).text
    result = write_result(
        tmp_path, costs=[*COSTS, CostPart("evaluate", None), CostPart("verify_soft_labels", None, True)]
    )
    report(PageFiles(result), tmp_path / "page.html")
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "all seeds ≥ 2 min 2 s" in text
    assert "Time and memory are those of 6 of 8 artifacts: the others were made elsewhere" in text


def test_without_any_figures_there_are_dashes(tmp_path):
    report(PageFiles(write_result(tmp_path, costs=[CostPart("evaluate", None)])), tmp_path / "page.html")
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "all seeds – Time of data" in text
    assert "Most memory of one process – " in text
    assert "those of 0 of 1 artifact:" in text


def test_a_store_that_has_not_paid_off_is_named(tmp_path):
    record = evaluation()
    for stage in record["stages"]:
        for use in stage["soft_labels"]:
            use["teacher_forwards"] = 10_000
    text = Page(page_of(tmp_path, [record])).text
    assert "Taken alone, this experiment paid 6,000 more teacher forwards than it would have without a store." in text
    assert "Teacher forwards saved here −6,000" in text


def test_a_class_without_test_images_has_a_dash(tmp_path):
    record = evaluation()
    record["metrics"]["top1_by_class"][4] = None
    record["data"]["test_samples_by_class"][4] = 0
    assert "four middle 0 – – –" in Page(page_of(tmp_path, [record])).text


def test_many_stages_are_numbered(tmp_path):
    record = evaluation()
    record["stages"] += [{**record["stages"][-1], "name": "academy", "number": 4}]
    record["setup"]["stages"] += [{**record["setup"]["stages"][-1], "name": "academy", "number": 4}]
    assert "Stages by number: 1 primary, 2 middle, 3 university, 4 academy." in Page(page_of(tmp_path, [record])).text


def test_lists_of_other_lengths_are_refused(tmp_path):
    path = write_result(tmp_path)
    contents = read_record(path)
    contents["seeds"][1]["metrics"]["top1_by_class"].pop()
    rewrite_result(path, contents)
    with pytest.raises(
        CorruptFileError, match=r"digits_ed\.json: seed 1 does not fit 10 classes, 3 stages and subsets .*; make"
    ):
        report(PageFiles(path), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_steps_without_networks_do_not_import_torch():
    modules = "edpipe.steps.report, edpipe.steps.result, edpipe.cli.commands.compare"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S)


def test_stages_with_smaller_images_and_other_recipes_are_named(tmp_path):
    record = evaluation()
    record["setup"]["stages"][0]["budget"]["image_size"] = 5
    record["setup"]["stage_recipes"] = {"primary": record["setup"]["recipe"] | {"batch_size": 23}}
    text = Page(page_of(tmp_path, [record])).text
    assert "images of 5 × 5 pixels" in text
    assert "student knew by then, on images of the stage’s size; mean over seeds." in text
    assert "learning rate and float32 in stage university; 1 stage had another recipe (primary, see all knobs" in text
    assert "recipe of stage primary" in text


def test_without_them_nothing_of_the_kind_is_said(ed):
    text = Page(ed).text
    assert "student knew by then; mean over seeds." in text
    assert "another recipe" not in text
