"""What changes the digest of a piece of code, and what does not."""

import ast

import pytest
from source_trees import meaning, reached, write_tree

MODULE = '''"""A module."""

import numpy as np
from edpipe.other import helper, LIMIT

SCALE = 2.0


class NoSuchError(Exception):
    """An error."""


def entry(values: list[int], flag: bool = False) -> float:
    """Adds up.

    Raises:
        NoSuchError: nothing there.
    """
    # a comment
    if not values:
        raise NoSuchError(f"no values among {LIMIT}; {remedy()}")
    total: float = np.sum(values) * SCALE
    if flag and total > LIMIT:
        print(f"large: {total}")
    return helper(total)


def remedy():
    return "give some"


def unused(x):
    return x + 1
'''
OTHER = """LIMIT = 10


def helper(value):
    return value - 1


def unused():
    return 0
"""


@pytest.fixture
def tree_of(tmp_path):
    count = iter(range(100))

    def write(module=MODULE, other=OTHER):
        return write_tree(tmp_path / str(next(count)), m=module, other=other)

    return write


NO_CHANGE = {
    "comment": lambda text: text.replace("# a comment", "# another\n    # comment"),
    "module docstring": lambda text: text.replace("A module.", "Another."),
    "function docstring": lambda text: text.replace("Adds up.", "Sums."),
    "no docstring": lambda text: text.replace('    """An error."""', "    pass\n").replace("    pass\n", '    "x"\n'),
    "annotation of a parameter": lambda text: text.replace("values: list[int]", "values"),
    "annotation of a result": lambda text: text.replace(" -> float", ""),
    "annotation of a variable": lambda text: text.replace("total: float", "total"),
    "error text": lambda text: text.replace("no values among {LIMIT}", "nothing"),
    "error text from a function": lambda text: text.replace("give some", "give at least one"),
    "text for people": lambda text: text.replace("large: {total}", "{total} is large"),
    "formatting": lambda text: text.replace(
        "np.sum(values) * SCALE", "(\n        np.sum( values )\n        * SCALE\n    )"
    ),
    "quotes": lambda text: text.replace('f"large: {total}"', "f'large: {total}'"),
    "another function": lambda text: text.replace("return x + 1", "return x + 2"),
    "order of definitions": lambda text: text.replace("SCALE = 2.0\n", "") + "\n\nSCALE = 2.0\n",
    "unused import": lambda text: text.replace("import numpy", "import os\nimport numpy"),
    "another word for an import": lambda text: text.replace("numpy as np", "numpy as n").replace("np.sum", "n.sum"),
}
CHANGE = {
    "constant": lambda text: text.replace("SCALE = 2.0", "SCALE = 2.5"),
    "operator": lambda text: text.replace("* SCALE", "/ SCALE"),
    "comparison": lambda text: text.replace("total > LIMIT", "total >= LIMIT"),
    "default": lambda text: text.replace("flag: bool = False", "flag: bool = True"),
    "name of another library": lambda text: text.replace("import numpy as np", "import torch as np"),
    "kind of error": lambda text: text.replace("raise NoSuchError", "raise ValueError"),
    "condition of an error": lambda text: text.replace("if not values", "if values is None"),
    "same word for something else": lambda text: text.replace("import helper, LIMIT", "import unused as helper, LIMIT"),
    "decorator": lambda text: text.replace("def entry", "@np.vectorize\ndef entry"),
    "new statement of the module": lambda text: text + "\n\nnp.seterr(all='raise')\n",
    "second assignment": lambda text: text.replace("SCALE = 2.0", "SCALE = 2.0\nSCALE += 1"),
}


@pytest.mark.parametrize("edit", NO_CHANGE.values(), ids=NO_CHANGE)
def test_what_changes_no_result_changes_no_digest(tree_of, edit):
    edited = edit(MODULE)
    assert edited != MODULE
    ast.parse(edited)
    assert meaning(tree_of(edited), "m.entry") == meaning(tree_of(), "m.entry")


@pytest.mark.parametrize("edit", CHANGE.values(), ids=CHANGE)
def test_what_may_change_a_result_changes_the_digest(tree_of, edit):
    edited = edit(MODULE)
    assert edited != MODULE
    ast.parse(edited)
    assert meaning(tree_of(edited), "m.entry") != meaning(tree_of(), "m.entry")


def test_an_edit_in_another_module_counts_where_it_is_reached(tree_of):
    before = meaning(tree_of(), "m.entry")
    assert meaning(tree_of(other=OTHER.replace("value - 1", "value - 2")), "m.entry") != before
    assert meaning(tree_of(other=OTHER.replace("return 0", "return 1")), "m.entry") == before
    assert meaning(tree_of(other=OTHER.replace("LIMIT = 10", "LIMIT = 11")), "m.entry") != before


def test_names_are_followed_through_modules_attributes_and_imports_inside_functions(tmp_path):
    tree = write_tree(
        tmp_path,
        a="from edpipe.p import b\nimport edpipe.p.c\n\ndef entry():\n    from edpipe.d import late\n"
        "    b.of_b()\n    edpipe.p.c.of_c()\n    late()\n",
        p__b="def of_b():\n    return 1\n\ndef unused():\n    return 2\n",
        p__c="def of_c():\n    return 1\n",
        d="from edpipe.e import late\n",
        e="def late():\n    return KEPT\n\nKEPT = 1\n",
    )
    assert reached(tree, "a.entry") == {"a.entry", "p.b.of_b", "p.c.of_c", "e.late", "e.KEPT"}


def test_a_module_that_is_handed_on_counts_as_a_whole(tmp_path):
    tree = write_tree(
        tmp_path,
        a="from edpipe import b\n\ndef entry():\n    return call(b)\n\ndef call(m):\n    return m.f()\n",
        b="def f():\n    return g()\n\ndef g():\n    return 1\n",
    )
    assert {"b.f", "b.g"} <= reached(tree, "a.entry")


def test_the_class_of_an_annotation_is_reached_and_an_alias_in_one_is_not(tmp_path):
    tree = write_tree(
        tmp_path,
        a="from edpipe.b import Base, Alias\n\ndef entry(base: Base, other: Alias):\n    return base.size()\n",
        b="class Base:\n    def size(self):\n        return helper()\n\ndef helper():\n    return 1\n\n"
        "class Other:\n    pass\n\nAlias = list[Other]\n",
    )
    assert reached(tree, "a.entry") == {"a.entry", "b.Base", "b.helper", "b.Other"}


def test_a_cut_is_named_and_not_followed(tmp_path):
    text = "TABLE = {'x': x, 'y': y}\n\ndef entry(k):\n    return TABLE[k]()\n\ndef x():\n    return z()\n\n"
    tree = write_tree(tmp_path, a=text + "def y():\n    return 1\n\ndef z():\n    return 2\n")
    assert reached(tree, "a.entry", cut=["a.x", "a.y"]) == {"a.entry", "a.TABLE"}
    assert reached(tree, "a.x", cut=["a.x", "a.y"]) == {"a.x", "a.z"}


KNOBS = """from pydantic import Field, model_validator
from edpipe.params.base import Knobs


class Some(Knobs):
    value: int = Field(1, description="A value.")

    @model_validator(mode="after")
    def _check(self):
        raise ValueError("no")

    @property
    def double(self):
        return 2 * self.value
"""


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("A value.", "Some value.", True),
        ("Field(1,", "Field(2,", True),  # a job's knobs are compared by their values
        ("value: int", "value: float", True),
        ('raise ValueError("no")', "return self", True),
        ("2 * self.value", "3 * self.value", False),
    ],
)
def test_knobs_count_by_what_their_methods_compute(tmp_path, old, new, is_same):
    base, entry = (
        "class Knobs:\n    pass\n",
        "from edpipe.params.some import Some\n\ndef entry(k: Some):\n    return k.double\n",
    )
    digests = [
        meaning(write_tree(tmp_path / name, a=entry, params__base=base, params__some=text), "a.entry")
        for name, text in (("one", KNOBS), ("other", KNOBS.replace(old, new)))
    ]
    assert (digests[0] == digests[1]) == is_same


def test_a_template_counts_with_its_module(tmp_path):
    tree = write_tree(tmp_path / "one", page="def draw():\n    return 1\n")
    (tree.root / "page.html.jinja").write_text("<p>", encoding="utf-8")
    other = write_tree(tmp_path / "other", page="def draw():\n    return 1\n")
    (other.root / "page.html.jinja").write_text("<b>", encoding="utf-8")
    assert meaning(tree, "page.draw") != meaning(other, "page.draw")


def test_fields_of_a_class_that_holds_no_knobs_count(tmp_path):
    text = "from dataclasses import dataclass\n\n@dataclass\nclass Point:\n    x: int = {}\n\n"
    text += "def entry():\n    return Point()\n"
    digests = {meaning(write_tree(tmp_path / str(n), a=text.format(n)), "a.entry") for n in (1, 2)}
    assert len(digests) == 2


def test_of_an_error_class_names_and_bases_count(tmp_path):
    text = 'class Error(Exception):\n    def __str__(self):\n        return shown("a")\n\n'
    text += 'class Own(Error):\n    """x"""\n\n'
    text += "def shown(a):\n    return a\n"
    entry = "from edpipe.errors import Own\n\ndef entry():\n    raise Own('no')\n"
    edits = {
        "same": ("", ""),
        "text": ('"a"', '"b"'),
        "shown": ("return a\n", "return 2 * a\n"),
        "base": ("Own(Error)", "Own(Exception)"),
    }
    digests = {
        name: meaning(write_tree(tmp_path / name, a=entry, errors=text.replace(*edit) if edit[0] else text), "a.entry")
        for name, edit in edits.items()
    }
    assert digests["same"] == digests["text"] == digests["shown"] != digests["base"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x[1:]", "x[:1]"),
        ("x[2:]", "x[::2]"),
        ("f(*x)", "f(**x)"),
        ("(lambda *, a=1: a)", "(lambda a=1: a)"),
        ("x.info('mean')", "x.info('std')"),
        ("f(x, description='a')", "f(x, description='b')"),
        ("UnreadableImageError(x, 'broken')", "UnreadableImageError(x, 'damaged')"),
        ("{**x}", "{x: x}"),
        ("x if x else 1", "x if x else 2"),
    ],
)
def test_small_differences_of_an_expression_count(tmp_path, one, other):
    text = "def f(*a, **k):\n    return a\n\ndef entry(x):\n    return {}\n"
    digests = [meaning(write_tree(tmp_path / n, a=text.format(e)), "a.entry") for n, e in (("1", one), ("2", other))]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("try:\n        x()\n    except OSError:\n        pass\n    else:\n        x()", None),
        ("for a in x:\n        x()\n    else:\n        x()", "for a in x:\n        x()\n        x()"),
        ("assert x", "assert not x"),
        ("del x.a", "del x.b"),
    ],
)
def test_small_differences_of_a_statement_count(tmp_path, one, other):
    other = other or one.replace("else:", "finally:")
    text = "def entry(x):\n    {}\n"
    digests = [meaning(write_tree(tmp_path / n, a=text.format(e)), "a.entry") for n, e in (("1", one), ("2", other))]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "text",
    [
        "from edpipe.b import *\n\ndef entry():\n    return 1\n",
        "from .b import f\n\ndef entry():\n    return f\n",
        "def entry(k):\n    from edpipe.b import f\n    if k:\n        from edpipe.c import f\n    return f\n",
        "try:\n    from edpipe.b import f\nexcept ImportError:\n    from edpipe.c import f\n\nentry = f\n",
    ],
)
def test_imports_that_cannot_be_followed_are_refused(tmp_path, text):
    tree = write_tree(tmp_path, a=text, b="def f():\n    return 1\n", c="def f():\n    return 2\n")
    with pytest.raises(ValueError, match=r"^line \d+: "):
        meaning(tree, "a.entry")
