"""Every block of README.md and docs/ that can be typed is run, or tests/docs/blocks.yaml says why it cannot be.

The blocks of a page are run in order, in one folder. The tutorial makes a project; each other page begins with a copy
of it. Budgets in params.yaml are made tiny. Of what is shown as output, the words are compared, not the numbers.
"""

import re
import shutil
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import yaml
from doc_pages import READ, ROOT, RUN, all_blocks, blocks_of, inline_commands, missing_lines, pages, words_of
from doc_runs import PageRun
from project import Project
from shipped import shipped_and_examples
from warm_tools import warm_tools

from edpipe.cli.main import _parser_of
from edpipe.errors import EdpipeError
from edpipe.params.load import parse_params
from edpipe.params.schema import Params
from edpipe.params.yaml_file import load_raw

BLOCKS = all_blocks()
SETTINGS = yaml.safe_load(Path(__file__).with_name("blocks.yaml").read_text(encoding="utf-8"))
TUTORIAL = "tutorial.md"
FIRST_PARAMS = ROOT / "edpipe/pipeline/project/templates/params.yaml"
WRITTEN_INTO_PARAMS = {"tuning.md": 0}
"""Pages that say of such a block of YAML that it is to be written into params.yaml before their commands are called."""


def is_named(kind, block):
    """Whether blocks.yaml has a reason of this kind for a block."""
    return any(block.first_line.startswith(beginning) for beginning in SETTINGS[kind].get(block.page, {}))


def is_run(block):
    return block.language in RUN and not is_named("not_run", block)


RUN_PAGES = list(dict.fromkeys(block.page for block in BLOCKS if is_run(block) and block.page != TUTORIAL))


def of_language(*languages):
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


# Every block is of a kind that is looked at


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_a_block_is_run_or_read(block):
    assert block.language in RUN + READ
    if block.language == "console":
        assert block.commands
    if block.language in ("text", "json"):
        assert not any(line.startswith("$ ") for line in block.text.splitlines()), "commands belong into `console`"


@pytest.mark.parametrize("kind", ["not_run", "not_compared"])
def test_every_reason_is_of_one_block(kind):
    for page, reasons in SETTINGS[kind].items():
        for beginning, why in reasons.items():
            found = [b for b in BLOCKS if b.page == page and b.first_line.startswith(beginning) and b.language in RUN]
            assert found, (page, beginning)
            assert len(why.split()) > 1
            tests = [word.rstrip(";,:") for word in why.split() if word.startswith("tests/")]
            assert [name for name in tests if not (ROOT / name).is_file()] == []


@of_language("yaml")
def test_yaml_can_be_read(block):
    found = yaml.safe_load(block.text)
    assert isinstance(found, dict)
    if set(found) <= set(Params.model_fields):
        parse_params(merged(load_raw(ROOT / "params.yaml"), found))


def merged(into, more):
    """The mapping with another one laid over it."""
    if not (isinstance(into, dict) and isinstance(more, dict)):
        return more
    return into | {key: merged(into.get(key), value) for key, value in more.items()}


@of_language("python")
def test_python_can_be_compiled(block):
    compile(block.text, block.place, "exec")


# Commands in running text


def refusal(command):
    """What the command line says against these words, without doing what they say; None: nothing.

    A name that stands for something, and a command that is only mentioned, lack words that must be given.
    """
    words = [word.rstrip("…") for word in words_of(command)[1:]]
    if not words or words[0] in ("--help", "--version") or words[0].isupper():
        return None
    try:
        _parser_of(words[0]).parse_args(words[1:])
    except EdpipeError as error:
        return None if "are required: " in str(error) else str(error)
    except SystemExit:  # after --help
        return None
    return None


@pytest.mark.parametrize(("page", "command"), sorted(set(inline_commands("edpipe"))))
def test_a_command_in_running_text_is_understood(page, command):
    assert refusal(command) is None


def test_a_command_that_is_not_there_is_found():
    assert refusal("edpipe compare results/a.json --per-class > a.txt") is None
    assert "unknown option" in refusal("edpipe compare results/a.json --perclass")
    assert "unknown command" in refusal("edpipe chek")


TARGET = re.compile(r"results/(?:search_|study_)?(\w+)\.(?:json|html)")
OWN_NAMES = ("photos_", "drawings_", "digits_sharp")
"""Experiments that a page itself makes."""


@pytest.mark.slow
def test_targets_of_snakemake_in_running_text_are_shipped():
    from snakemake.cli import get_argument_parser

    parser, named = get_argument_parser(), []
    for _, command in inline_commands("snakemake"):
        words = words_of(command)[1:]
        targets = parser.parse_args(words).targets
        named += [name for name in TARGET.findall(" ".join(targets)) if not name.startswith(OWN_NAMES)]
    shipped = shipped_and_examples()
    assert named
    assert set(named) <= set(shipped["experiments"]) | set(shipped["studies"])


@pytest.mark.slow
def test_commands_of_dvc_in_running_text_are_understood():
    from dvc.cli.parser import get_main_parser

    parser, known = get_main_parser(), 0
    for _, command in inline_commands("dvc"):
        words = words_of(command)[1:]
        if words and words not in (["exp"], ["get"], ["import"]):  # else it is only mentioned
            parser.parse_args(words)
            known += 1
    assert known > 10


# Blocks are run


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of all commands: fast, without network or DVC, and with a home folder of its own."""
    folder = tmp_path_factory.mktemp("docs")
    home = folder / "home"
    home.mkdir()
    own = Project(folder).environment(PYTHONPATH=ROOT, HOME=home, COLUMNS=200, GIT_CONFIG_GLOBAL="/dev/null")
    with warm_tools(folder / "tools", own) as environment:
        yield environment


@pytest.fixture(scope="module")
def project(environment, tmp_path_factory):
    """The project that a reader of the tutorial has at its end."""
    folder = tmp_path_factory.mktemp("tutorial") / "begin"
    folder.mkdir()
    run = PageRun(folder, environment)
    run.run_page(TUTORIAL, is_run, lambda block: not is_named("not_compared", block))
    return run.folder


@pytest.mark.slow
def test_the_tutorial_runs(project):
    assert {path.name for path in project.glob("results/*.json")} >= {"digits_ed.json", "photos_ed.json"}
    assert (project / "exports/photos_ce_seed0/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_blocks_of_a_page_run(page, project, environment, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True)
    run = PageRun(folder, environment)
    if page in WRITTEN_INTO_PARAMS:
        block = [block for block in blocks_of(page, pages()[page]) if block.language == "yaml"][
            WRITTEN_INTO_PARAMS[page]
        ]
        with (folder / "params.yaml").open("a", encoding="utf-8") as stream:
            stream.write(block.text)
        run.shrink()
    PREPARED.get(page, lambda _: None)(folder)
    run.run_page(page, is_run, lambda block: not is_named("not_compared", block))


def some_pictures(folder):
    """The digits as PNG files, for the page on predictions."""
    from PIL import Image
    from sklearn.datasets import load_digits

    (folder / "pngs/digits").mkdir(parents=True)
    for number in (163, 169):
        pixels = (load_digits().images[number] * 15.9375).astype("uint8")
        Image.fromarray(pixels).save(folder / f"pngs/digits/{number:06}.png")


PREPARED = {"export.md": some_pictures}


# What is wrong with a page is found


def test_words_that_were_not_printed_are_found():
    assert missing_lines(["would run  pack_dataset digits: absent"], "would run  pack_dataset digits: absent\n") == []
    assert missing_lines(["would run  pack_dataset digits: absent"], "would run  pack_dataset food: absent\n")
    assert missing_lines(["a 12 s", "…", "b … d"], "a 1 min 3 s\nb 1 c 2 d\n") == []


def test_a_block_that_fails_is_found(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    run = PageRun(folder, {"PATH": "/usr/bin:/bin"})
    (block,) = blocks_of("page.md", "```sh\nmkdir inner && cd inner\n```\n")
    assert run.run(block) == ""
    assert run.folder == folder / "inner"
    (block,) = blocks_of("page.md", "```sh\nls nothing_of_this_name\necho here\n```\n")
    with redirect_stderr(StringIO()), pytest.raises(AssertionError, match=r"page\.md:1: exit code 2"):
        run.run(block)


def test_a_fence_without_an_end_or_a_language_or_with_more_words_is_refused():
    for text in ("```sh\nls\n", "```sh here\nls\n```\n", "```\n48 jobs\n```\n"):
        with pytest.raises(ValueError, match=r"^page\.md:1: "):
            blocks_of("page.md", text)


def test_budgets_become_tiny_once(tmp_path):
    run = PageRun(tmp_path, {})
    path = tmp_path / "params.yaml"
    path.write_text(
        "validation_images: 1000\nonly: {images: 24000}\nseeds: [0, 1]\n    seeds:\n    - 0\n    - 1\n    - 2\n"
    )
    run.shrink()
    small = "validation_images: 1000\nonly: {images: 240}\nseeds: [0]\n    seeds:\n    - 0\n    - 1\n"
    assert path.read_text() == small
    path.write_text(small + "  compute: 325\n")
    run.shrink()
    assert path.read_text() == small + "  compute: 81\n"
