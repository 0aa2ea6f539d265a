"""What is public, and that naming it costs nothing."""

import subprocess
import sys

import pytest

import edpipe


def test_what_is_public_is_listed_once():
    assert set(edpipe.__all__) == {*edpipe._PUBLIC, "__version__"}
    assert sorted(edpipe.__all__) == edpipe.__all__
    assert set(edpipe.__all__) <= set(dir(edpipe))


@pytest.mark.parametrize("name", edpipe.__all__)
def test_a_public_name_leads_somewhere(name):
    assert getattr(edpipe, name).__doc__


def test_another_name_is_refused_in_one_line():
    with pytest.raises(AttributeError, match=r"^module 'edpipe' has no attribute 'Nothing'; public are EdpipeError, "):
        _ = edpipe.Nothing


def test_the_package_alone_imports_no_torch():
    check = "import sys, edpipe; edpipe.EdpipeError; dir(edpipe); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
