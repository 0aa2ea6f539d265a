"""Pages in a real browser: a silent console, charts drawn, tables as in the JSON, usable by keyboard and by ear."""

import shutil

import pytest
import torch
from examples import evaluation, write_result
from measured_world import curves, measured
from small_world import make_world

from edpipe.results.page.index import write_index
from edpipe.results.page.page import drawn
from edpipe.results.result_file import read_result

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
torch.set_num_threads(1)
PAGES = ("drawn", "index", "digits_ed")
WAYS = [(scheme, width) for scheme in ("light", "dark") for width in (400, 1400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of three kinds with their pages, and the page of all."""
    root = tmp_path_factory.mktemp("pages")
    files = measured(make_world(root / "world", per_class=12), root)
    pages = {"drawn": drawn(files, curves(files))}
    for experiment, shift in (("digits_ce", 0.03), ("digits_ed", 0.0)):
        result = write_result(root, [evaluation(seed, experiment, shift) for seed in (0, 1, 2)], experiment)
        pages[experiment] = drawn(type(files)(result, beside=tuple((root / "results").glob("digits_ce.json"))))
    for name, text in pages.items():
        (root / "results" / f"{name}.html").write_text(text, encoding="utf-8")
    write_index(root / "results")
    return root / "results"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, folder):
    """Opens a page; gives it and the list of what the browser complains about."""
    contexts = []

    def opening(name, scheme="light", width=1000, **more):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **more)
        contexts.append(context)
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto((folder / f"{name}.html").as_uri())
        return page, said

    yield opening
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), WAYS)
def test_pages_fit_and_nothing_is_complained_about(opened, name, scheme, width):
    page, said = opened(name, scheme, width)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), WAYS)
def test_axe_finds_nothing_serious(opened, name, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page, _ = opened(name, scheme, width, bypass_csp=True)
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_charts_are_drawn(opened, name):
    page, _ = opened(name)
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(e => {"
        " const b = e.getBoundingClientRect(); return [b.width, b.height, e.querySelectorAll('path, line').length] })"
    )
    assert len(sizes) >= 1
    assert all(width > 50 and height > 50 and marks > 0 for width, height, marks in sizes)


def rows(page, table):
    """Texts of a table's cells."""
    found = page.get_by_role("region", name=f"Table: {table}", exact=True).locator("tbody tr").all()
    return [[cell.strip() for cell in row.locator("th, td").all_inner_texts()] for row in found]


def test_tables_are_those_of_the_json(opened, folder):
    page, _ = opened("drawn")
    result = read_result(folder / "drawn.json")
    top1 = [seed.metrics.top1_by_class for seed in result.seeds]
    for row, name, *own in zip(rows(page, "Classes"), result.data.class_names, *top1, strict=True):
        assert row[0] == name
        assert row[3:] == [f"{value * 100:.1f} %" for value in (sum(own) / len(own), min(own), max(own))]
    assert page.locator(".headline").inner_text().startswith(f"{result.summary.top1.mean * 100:.1f} %")


def test_the_index_has_the_numbers_of_the_results(opened, folder):
    page, _ = opened("index", width=1400)
    found = {row[0]: row for row in rows(page, "Results on digits")}
    for name in ("digits_ce", "digits_ed"):
        top1 = read_result(folder / f"{name}.json").summary.top1
        assert found[name][3] == f"{top1.mean * 100:.2f} % ± {top1.std * 100:.2f}"
    page.get_by_role("link", name="digits_ed", exact=True).click()
    assert page.title() == "digits_ed: top1 88.5 %"
    page.get_by_role("link", name="All results").click()
    assert page.title() == "Results of edpipe"


def test_everything_that_scrolls_or_opens_is_reached_by_keyboard(opened):
    page, _ = opened("drawn", width=400)
    wanted = page.locator("[tabindex]:visible, a:visible, summary:visible").count()
    seen = set()
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        if len(seen) == wanted:
            break
    assert len(seen) >= wanted
    page.locator("summary").first.focus()
    before = page.locator("details").first.get_attribute("open")
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") != before


def test_data_of_charts_can_be_saved(opened):
    page, said = opened("drawn", accept_downloads=True)
    with page.expect_download() as saved:
        page.locator("a[download='confusions.csv']").click()
    assert saved.value.path().read_text(encoding="utf-8").startswith("label,named,share,teacher_share")
    assert said == []
