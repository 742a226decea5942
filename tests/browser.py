"""Finds the browser that the site tests use, and starts it. Run as a script, it checks that one can be had.

Order: the variable CHROMIUM, an installed Chromium or Chrome, Playwright's own download.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
# The browser itself must not call home: every request that the tests see comes from a page.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ADVICE = (
    "no browser for the site tests: install Chromium or Chrome (Debian: apt-get install chromium), or run "
    "`.venv/bin/playwright install chromium`, or set CHROMIUM to a browser's path; "
    "without any, `pytest -m 'not slow and not browser'` runs the other tests"
)


def find_browser() -> Path | None:
    """Path of the browser to use, or None where there is none.

    Raises:
        FileNotFoundError: if CHROMIUM is set but is no program.
    """
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise FileNotFoundError(f"CHROMIUM={chosen}: no such program; correct or unset the variable")
        return Path(found)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return next((path for path in (*APPLICATIONS, own) if path.exists()), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A running headless browser.

    Raises:
        FileNotFoundError: with advice, if no browser is found.
    """
    path = find_browser()
    if path is None:
        raise FileNotFoundError(ADVICE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def main() -> int:
    """Print the browser's path; where there is none, let Playwright download its own."""
    try:
        path = find_browser()
        if path is None:
            print("no Chromium or Chrome is installed: trying Playwright's own download", flush=True)
            subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
            path = find_browser()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if path is None:
        print(ADVICE, file=sys.stderr)
        return 1
    print(f"site tests use {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
