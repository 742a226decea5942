"""Which browser the tests take, and that they say clearly when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import browser


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any browser: an empty folder for programs, another for Playwright's downloads."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloads"))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(browser, "APPLICATIONS", ())
    return tmp_path


def test_variable_goes_before_an_installed_browser(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = program(bare / "bin" / "google-chrome")
    assert browser.find_browser() == installed
    chosen = program(bare / "mine")
    monkeypatch.setenv("CHROMIUM", str(chosen))
    assert browser.find_browser() == chosen
    monkeypatch.setenv("CHROMIUM", str(bare / "gone"))
    with pytest.raises(FileNotFoundError, match="no such program"):
        browser.find_browser()


def test_no_browser_is_an_error_with_advice(bare: Path) -> None:
    assert browser.find_browser() is None
    with pytest.raises(FileNotFoundError, match="install Chromium or Chrome"), browser.open_browser():
        pass


def test_make_stops_where_no_browser_can_be_had(bare: Path) -> None:
    nowhere = {"PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, browser.__file__],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1 and "Playwright's own download" in done.stdout
    assert done.stderr.rstrip().endswith(browser.ADVICE)
