"""A page names the code that drew it, and its results."""

import pytest

from edpipe.results.page.page import FOLDER
from edpipe.results.page.page_code import generator, named_results, read_page_code, read_page_results


def test_what_the_template_writes_is_read_again(tmp_path):
    text = (FOLDER / "page.html.jinja").read_text(encoding="utf-8")
    head = text[text.index("<!doctype html>") :].replace("{{ generator }}", generator("0123456789abcdef"))
    head = head.replace("{{ named_results }}", named_results(["fedcba9876543210", "0123456701234567"]))
    (tmp_path / "page.html").write_text(head, encoding="utf-8")
    assert read_page_code(tmp_path / "page.html") == "0123456789abcdef"
    assert read_page_results(tmp_path / "page.html") == ("fedcba9876543210", "0123456701234567")


@pytest.mark.parametrize("contents", [b"", b"<!doctype html>", b"\xff", None])
def test_a_page_that_names_none_has_none(tmp_path, contents):
    if contents is not None:
        (tmp_path / "page.html").write_bytes(contents)
    assert read_page_code(tmp_path / "page.html") is None
    assert read_page_results(tmp_path / "page.html") == ()
