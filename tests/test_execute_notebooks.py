"""The book's notebooks are executed several at a time, and the build finds what they gave."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache

from book_build import ROOT

sys.path.insert(0, str(ROOT / "book"))
import execute_notebooks

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of a good notebook, one whose cell raises, and a page that is no notebook."""
    for name, code in {"good": "print(6 * 7)", "broken": "raise RuntimeError('no such scan')"}.items():
        notebook = nbformat.v4.new_notebook(metadata=KERNEL, cells=[nbformat.v4.new_code_cell(code)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    (tmp_path / "page.md").write_text("# A page\n")
    (tmp_path / "_toc.yml").write_text("parts: [{chapters: [{file: broken}, {file: page}, {file: good}]}]\n")
    (tmp_path / "_config.yml").write_text("execute: {timeout: 60}\n")
    monkeypatch.setattr(execute_notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(execute_notebooks, "CACHE", tmp_path / "cache")
    return tmp_path


def test_a_failing_notebook_is_reported_and_does_not_cost_the_others(book: Path, capsys) -> None:
    assert execute_notebooks.main(jobs=2) == 1
    said = capsys.readouterr().err
    assert "broken.ipynb failed" in said and "no such scan" in said
    cache = get_cache(str(book / "cache"))
    assert [path.name for path in execute_notebooks.missing(cache)] == ["broken.ipynb"]
    _, executed = cache.merge_match_into_notebook(nbformat.read(book / "good.ipynb", as_version=4))
    assert executed.cells[0].outputs[0].text == "42\n"
    assert cache.match_cache_notebook(executed).data["execution_seconds"] > 0
    assert nbformat.read(book / "good.ipynb", as_version=4).cells[0].outputs == []


def test_what_the_cache_holds_is_not_executed_again(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (book / "_toc.yml").write_text("parts: [{chapters: [{file: good}]}]\n")
    assert execute_notebooks.main(jobs=1) == 0
    monkeypatch.setattr(execute_notebooks, "execute", lambda *_: pytest.fail("executed again"))
    assert execute_notebooks.main(jobs=1) == 0
