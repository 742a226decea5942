"""The repository's address: in all files or in none, installed from by the set-up cell, followed by the book."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from book_build import ROOT, TIMEOUT_S, notebook_paths
from pddm_utils.core.errors import InputError
from pddm_utils.publish.address import set_address
from published import ADDRESS, machine, published_repository, setup_cell

MISSING = "import sys\nsys.modules['pddm_utils'] = None"  # importing it fails, as where it is not installed


def contents(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


@pytest.fixture
def checked_out(tmp_path: Path) -> Path:
    """A copy of the files that can have an address."""
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "book").mkdir()
    pages = [ROOT / "book" / f"{name}.md" for name in ("welcome", "running")]
    for path in (ROOT / "_config.yml", ROOT / "CITATION.cff", *pages, *notebook_paths()):
        shutil.copy2(path, folder / path.relative_to(ROOT))
    return folder


def test_all_files_here_have_the_address_or_none_has(checked_out: Path) -> None:
    address = re.search(r'^address = "(.*)"$', setup_cell(notebook_paths()[0]), re.MULTILINE)[1]
    assert set_address(checked_out, address or None) == [], "run `python -m pddm_utils.publish address` again"


@pytest.fixture
def project(checked_out: Path) -> Path:
    """The same without an address."""
    set_address(checked_out, None)
    return checked_out


def test_what_is_written_is_taken_out_again(project: Path) -> None:
    before = contents(project)
    assert sorted(set_address(project, ADDRESS)) == sorted(before)
    assert set_address(project, ADDRESS + ".git") == []
    other = contents(project)
    set_address(project, "https://github.com/a-b/c.d")
    assert all(b"a-b/c.d" in text and b"someone" not in text for text in contents(project).values())
    set_address(project, ADDRESS + "/")
    assert contents(project) == other
    assert sorted(set_address(project, None)) == sorted(before)
    assert contents(project) == before
    assert set_address(project, None) == []


def test_chapters_say_where_they_open(project: Path) -> None:
    before = {path: json.loads(path.read_text()) for path in (project / "notebooks").iterdir()}
    set_address(project, ADDRESS)
    for path, old in before.items():
        nbformat.validate(nbformat.read(path, as_version=4))
        new = json.loads(path.read_text())
        title, empty, badges, _, *rest = new["cells"][0]["source"]
        assert [title, empty, *rest] == old["cells"][0]["source"] and title.startswith("# ")
        colab = f"https://colab.research.google.com/github/someone/book/blob/main/notebooks/{path.name}"
        binder = f"https://mybinder.org/v2/gh/someone/book/main?urlpath=lab/tree/notebooks/{path.name}"
        assert f"]({colab}) [![Open in Binder](" in badges and badges.endswith(f"]({binder})\n")
        changed = [cell for cell, was in zip(new["cells"][1:], old["cells"][1:], strict=True) if cell != was]
        assert ["".join(cell["source"]) for cell in changed] == [setup_cell(path)]


def test_config_and_citation_are_valid_with_and_without(project: Path) -> None:
    def read() -> tuple[dict, dict]:
        return tuple(yaml.safe_load((project / name).read_text()) for name in ("_config.yml", "CITATION.cff"))

    config, citation = read()
    assert "html_baseurl" not in config["sphinx"]["config"] and "repository-code" not in citation
    set_address(project, ADDRESS)
    with_address, cited = read()
    theme = with_address["sphinx"]["config"]["html_theme_options"]
    assert (theme.pop("repository_url"), theme.pop("repository_branch")) == (ADDRESS, "main")
    assert theme.pop("launch_buttons").keys() == {"notebook_interface", "binderhub_url", "colab_url"}
    assert theme.pop("use_repository_button") is True
    assert with_address["sphinx"]["config"].pop("html_baseurl") == "https://someone.github.io/book/"
    assert cited.pop("repository-code") == ADDRESS
    assert (with_address, cited) == (config, citation)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "github.com/owner/name",
        "http://github.com/owner/name",
        "https://gitlab.com/owner/name",
        "https://github.com/owner",
        "https://github.com/owner/..",
        "https://github.com/owner/name/tree/main",
        'https://github.com/owner/name"',
        "https://github.com/owner/name\n",
        "notebooks",
    ],
)
def test_what_is_no_address_is_refused(address: str, project: Path) -> None:
    before = contents(project)
    with pytest.raises(InputError, match=r"write https://github\.com/owner/name$"):
        set_address(project, address)
    assert contents(project) == before


def test_all_files_are_checked_before_one_is_written(project: Path) -> None:
    last = project / notebook_paths()[-1].relative_to(ROOT)
    last.write_text(last.read_text().replace("address = ", "place = "))
    before = contents(project)
    with pytest.raises(InputError, match=f"{last.name}: 0 places for the address"):
        set_address(project, ADDRESS)
    assert contents(project) == before
    (project / "_config.yml").unlink()
    with pytest.raises(InputError, match=r"_config\.yml: cannot be read; run this in the project's folder"):
        set_address(project, ADDRESS)


def test_set_up_cell_is_short_and_the_same_everywhere(project: Path) -> None:
    for address in (None, ADDRESS):
        set_address(project, address)
        (cell,) = {setup_cell(path) for path in (project / "notebooks").iterdir()}
        assert f'address = "{address or ""}"\n' in cell
        assert max(map(len, cell.splitlines())) <= 76


@pytest.mark.notebook
def test_without_an_address_the_set_up_cell_says_what_to_do(project: Path) -> None:
    cells = [MISSING, setup_cell(project / notebook_paths()[0].relative_to(ROOT)), "print('went on')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    (error,) = [output for output in notebook.cells[1].outputs if output.output_type == "error"]
    assert error.evalue.startswith("pddm_utils is not installed: write its repository's address above")
    said = [line for line in "\n".join(error.traceback).splitlines() if line]
    assert len(said) == 2 and "%tb" in said[0] and said[1].endswith(error.evalue), "no traceback"
    assert notebook.cells[2].outputs == []


@pytest.mark.notebook
def test_with_an_address_the_set_up_cell_installs_package_models_and_results(tmp_path: Path) -> None:
    repository, target = published_repository(tmp_path / "repository"), tmp_path / "site"
    # Of the project alone, into a folder of its own, with the build tools that are here: no network.
    pip = {"PIP_TARGET": str(target), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    cell = setup_cell(repository / "notebooks" / "01_quickstart.ipynb")

    def run(code: str, environment: dict[str, str]) -> str:
        command, options = [sys.executable, "-c", code], {"capture_output": True, "text": True, "check": False}
        done = subprocess.run(command, env=environment, cwd=tmp_path, timeout=TIMEOUT_S, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(f"{MISSING}\n{cell}", machine(repository) | pip)
    found = "import pddm_utils.core.shipped as w; print(w.weights_folder('simulated-t2-pddpm'), w.results_root())"
    printed = run(found, machine(repository) | {"PYTHONPATH": str(target)})
    assert all(Path(path).is_dir() and Path(path).is_relative_to(target) for path in printed.split())


@pytest.mark.notebook
@pytest.mark.parametrize("address", [None, ADDRESS])
def test_pages_can_be_launched_with_an_address_only(address: str, project: Path) -> None:
    """One chapter with a text of its own, under the real configuration."""
    path = project / notebook_paths()[0].relative_to(ROOT)
    notebook = json.loads(path.read_text())
    notebook["cells"] = notebook["cells"][:2]
    notebook["cells"][0]["source"] = ["# A chapter\n", "\n", "What it says in its first paragraph."]
    path.write_text(json.dumps(notebook, indent=1))
    set_address(project, address)

    for folder in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / folder, project / "book" / folder)
    shutil.copy2(ROOT / "book" / "references.bib", project / "book")
    (project / "index.md").write_text("# Front\n\nWelcome.\n")
    (project / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n- file: notebooks/{path.stem}\n")
    config = (project / "_config.yml").read_text()
    (project / "_config.yml").write_text(config.replace("execute_notebooks: cache", 'execute_notebooks: "off"'))
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(project), "-W", "--keep-going"]
    build = subprocess.run(command, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr[-3000:]

    page = project / "_build" / "html" / "notebooks" / f"{path.stem}.html"
    soup = BeautifulSoup(page.read_text(), "html.parser")
    links = [tag["href"] for tag in soup.select(".dropdown-launch-buttons a[href]")]
    badges = {tag.text: tag["href"] for tag in soup.select(".bd-article a") if tag.text.startswith("Open in")}
    picture = soup.select_one('meta[property="og:image"]')["content"]
    assert soup.select_one('meta[property="og:description"]')["content"] == "What it says in its first paragraph."
    assert not [tag for tag in soup.select("[src]") if "://" in tag["src"]], "nothing comes from other sites"
    if address:
        assert f"https://colab.research.google.com/github/someone/book/blob/main/notebooks/{path.name}" in links
        assert f"https://mybinder.org/v2/gh/someone/book/main?urlpath=lab/tree/notebooks/{path.name}" in links
        assert sorted(badges.values()) == sorted(links)
        assert soup.select_one(".btn-source-repository-button")["href"] == ADDRESS
        assert picture == "https://someone.github.io/book/_static/social.png"
        assert soup.select_one('meta[property="og:url"]')["content"].endswith(f"/book/notebooks/{path.stem}.html")
    else:
        assert links == [] and badges == {} and soup.select(".dropdown-launch-buttons") == []
        assert picture == "../_static/social.png" and soup.select('meta[property="og:url"]') == []
