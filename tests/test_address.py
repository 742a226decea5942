"""The project's public address: launch buttons and absolute addresses appear with it, and only with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from book_build import ROOT, notebook_paths

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from address import public_address


@pytest.mark.parametrize("address", ["https://github.com/a-b/c.d", "https://github.com/a-b/c.d.git"])
def test_variable_goes_before_the_setting(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_REPOSITORY", address)
    assert public_address("https://github.com/x/y") == "https://github.com/a-b/c.d"
    monkeypatch.delenv("PDDM_REPOSITORY")
    assert public_address("https://github.com/x/y") == "https://github.com/x/y"
    assert public_address("") == ""


def test_a_folder_is_no_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_REPOSITORY", str(ROOT))
    assert public_address("") == ""


def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_REPOSITORY", "github.com/a")
    with pytest.raises(Exception, match="https://github.com/owner/name"):
        public_address("")


@pytest.mark.notebook
@pytest.mark.parametrize("address", ["", "https://github.com/someone/book"])
def test_buttons_appear_with_the_address_only(address: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "book" / "_ext", tmp_path / "book" / "_ext")
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    shutil.copy2(ROOT / "book" / "references.bib", tmp_path / "book")
    (tmp_path / "notebooks").mkdir()
    name = notebook_paths()[0].stem
    notebook = "# A chapter\n\nWhat it says in its first paragraph.\n"
    cells = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": notebook}]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    text = json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    (tmp_path / "notebooks" / f"{name}.ipynb").write_text(text)
    (tmp_path / "index.md").write_text("# Front\n\nWelcome.\n")
    (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n- file: notebooks/{name}\n")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(tmp_path), "-W", "--keep-going"]
    environment = {key: value for key, value in os.environ.items() if key != "PDDM_REPOSITORY"}
    if address:
        environment["PDDM_REPOSITORY"] = address
    build = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert build.returncode == 0, build.stderr[-3000:]
    soup = BeautifulSoup((tmp_path / "_build" / "html" / "notebooks" / f"{name}.html").read_text(), "html.parser")
    links = [tag["href"] for tag in soup.select(".dropdown-launch-buttons a[href]")]
    picture = soup.select_one('meta[property="og:image"]')["content"]
    assert soup.select_one('meta[property="og:description"]')["content"] == "What it says in its first paragraph."
    if address:
        place = f"/blob/main/notebooks/{name}.ipynb"
        assert f"https://colab.research.google.com/github/someone/book{place}" in links
        assert f"https://mybinder.org/v2/gh/someone/book/main?urlpath=tree/notebooks/{name}.ipynb" in links
        assert picture == "https://someone.github.io/book/_static/social.png"
        assert soup.select_one('meta[property="og:url"]')["content"].endswith(f"/book/notebooks/{name}.html")
    else:
        assert links == [] and soup.select(".dropdown-launch-buttons") == []
        assert picture == "../_static/social.png" and soup.select('meta[property="og:url"]') == []
