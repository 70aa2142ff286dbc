"""Every example that a reader may copy runs: docstrings, README, docs."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import tether

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def public():
    """Find the public objects, by the name that a reader would write."""
    for module in (tether, tether.native):
        for name in module.__all__:
            yield f"{module.__name__}.{name}".removeprefix("tether."), getattr(module, name)


def docstrings():
    """Find the docstring of each public object and of its public members."""
    for name, value in public():
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value.__doc__
        if inspect.isclass(value):
            for member in vars(value):
                text = inspect.getattr_static(value, member)
                text = getattr(text, "__func__", text).__doc__ if not member.startswith("__") else None
                yield f"{name}.{member}", text
    yield "tether", tether.__doc__
    yield "native", tether.native.__doc__


DOCSTRINGS = {name: text for name, text in docstrings() if isinstance(text, str) and ">>>" in text}


def blocks():
    """Find the python blocks of the pages; a page may show a block that is not to be run by writing ```py."""
    for page in PAGES:
        if page.is_file():
            found = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
            for n, code in enumerate(found, 1):
                yield pytest.param(code, id=f"{page.relative_to(ROOT)}-{n}")


@pytest.mark.parametrize("name", sorted(DOCSTRINGS))
def test_docstring_example_runs(name):
    test = doctest.DocTestParser().get_doctest(DOCSTRINGS[name], {"tether": tether}, name, None, 0)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_main_entry_points_have_an_example_that_runs():
    wanted = {"spawn", "scope", "scoped", "options", "JoinGuard"}
    with_example = {name.split(".")[0] for name in DOCSTRINGS}
    assert wanted <= with_example


@pytest.mark.parametrize("code", list(blocks()))
def test_example_of_a_page_runs(code, run_python, tmp_path):
    if code.lstrip().startswith(">>>"):
        script = tmp_path / "page.txt"
        script.write_text(code)
        run_python(None, args=("-m", "doctest", str(script)), check=True)
    else:
        script = tmp_path / "example.py"
        script.write_text(code)
        result = run_python(None, args=(str(script),))
        assert result.rc == 0, result.err


def test_readme_has_an_example():
    assert "```python" in (ROOT / "README.md").read_text()


def named_tests():
    """Find the tests that the pages name as their witnesses."""
    for page in PAGES:
        for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text() if page.is_file() else ""):
            yield page.name, file, name


def test_tests_that_the_docs_name_exist():
    missing = [
        f"{page}: {file}::{name}"
        for page, file, name in named_tests()
        if not re.search(rf"^ *def {name}\(", (ROOT / "tests" / file).read_text(), flags=re.MULTILINE)
    ]
    assert missing == []
    assert len(list(named_tests())) > 100
