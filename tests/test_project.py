"""The project's own files agree with each other, and hold nothing that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from book_build import ROOT, toc_pages
from rooms import ORDER

TEXT_SUFFIXES = {"", *".py .md .yml .yaml .toml .cff .json .ipynb .css .js .svg .csv .lock".split()}
# Spelled in parts, so that this file does not hold what it forbids.
FORBIDDEN = [
    re.compile(r"/(?:home|Users)/\w+|/ro" + "ot/"),
    re.compile("/wo" + r"rk/(?:main|shared|plan)|(?<![\w.])/t" + r"mp/\w"),
    re.compile("files\\.python" + "hosted|py" + "pi\\.org|registry\\.npm" + "js"),
    re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b"),
]


def tracked_files() -> list[Path]:
    """Files of the project: those git knows or would add; every file where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]
    hidden = {".venv", ".git", "_build", "runs"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not hidden & set(p.relative_to(ROOT).parts)]


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def all_requirements(pyproject: dict) -> list[Requirement]:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    # What `make env` installs; brain extraction is left to the user, for its dependencies' licence.
    groups = [project["dependencies"], *(names for extra, names in extras.items() if extra != "extraction")]
    requirements = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


def test_lock_satisfies_every_range(pyproject: dict, lock: dict[str, Version]) -> None:
    for requirement in all_requirements(pyproject):
        assert lock[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_lock_is_public_and_leaves_the_project_out(lock: dict[str, Version]) -> None:
    assert "pddm-utils" not in lock
    assert all(version.local is None for version in lock.values())


def test_environment_runs_the_locked_versions(lock: dict[str, Version]) -> None:
    installed = {canonicalize_name(d.metadata["Name"]): Version(d.version) for d in distributions()}
    other = {
        name: (str(version), str(installed[name]))
        for name, version in lock.items()
        if name in installed and installed[name].public != version.public
    }
    assert other == {}, "these differ from requirements.lock: run `make env`"


def test_conda_environment_installs_from_pyproject(pyproject: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *plain, pip = environment["dependencies"]
    assert environment["name"] == pyproject["project"]["name"]
    assert plain == ["python=3.11", "pip"]
    assert Version("3.11") in Requirement(f"python{pyproject['project']['requires-python']}").specifier
    assert list(pip) == ["pip"]
    assert len(pip["pip"]) == 1
    extras = re.fullmatch(r"-e \.\[(.+)\]", pip["pip"][0]).group(1).split(",")
    assert set(extras) <= set(pyproject["project"]["optional-dependencies"])
    assert {"book", "test"} <= set(extras)


def test_citation_has_the_package_version(pyproject: dict) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pyproject["project"]["version"]
    assert " AND ".join(citation["license"]) == pyproject["project"]["license"]


def test_every_page_of_the_toc_exists_and_none_is_left_out() -> None:
    pages = toc_pages()
    assert len(pages) == len(set(pages))
    files = {str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "book").rglob("*.md")}
    files |= {str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(pages) == files


def test_every_room_has_its_page_of_the_reference() -> None:
    index = (ROOT / "book" / "api.md").read_text()
    for room in ORDER:
        page = (ROOT / "book" / "api" / f"{room}.md").read_text()
        assert re.findall(r"^```\{room\} (.+)$", page, flags=re.M) == [room]
        assert f"(api/{room}.md)" in index
    assert [Path(page).name for page in toc_pages() if page.startswith("book/api/")] == list(ORDER)


def test_no_file_holds_what_belongs_to_one_machine() -> None:
    found = []
    for path in tracked_files():
        if path.suffix not in TEXT_SUFFIXES:
            continue
        text = path.read_text(encoding="utf-8")
        matches = [match.group() for rule in FORBIDDEN for match in rule.finditer(text)]
        found += [f"{path.relative_to(ROOT)}: {match}" for match in matches]
    assert found == []


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.M).group(1).split()
    command = ["make", "-C", str(ROOT), "help"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listing.stdout.splitlines() if line.startswith("  ")] == phony
