"""The page that `detect` writes for one scan, opened from disk in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from barriers import axe_findings
from browser import open_browser
from figure_page import DEPTH, small_scan
from pddm_utils.detection.report import report_page, slices_of_interest

SCAN = small_scan()
MAP = (np.random.default_rng(1).uniform(0, 0.2, SCAN.image.shape) + 0.3 * SCAN.lesion_mask) * SCAN.brain_mask
FACTS = {
    "scan": "patient <one>_T2.nii.gz",
    "contrast": "T2",
    "model": "simulated-t2-pddpm",
    "timestep": 818,
    "reference_scans": "healthy",
    "threshold_rule": "healthy-quantile-0.99",
    "threshold": 0.25,
    "map": "residual",
    "map_unit": "scaled intensity",
    "anomalous_ml": 1.2,
    "assessed_ml": 30.0,
    "brain_ml": 60.0,
    "out_of_distribution": 7.5,
    "quality": {"brain_ml": 60.0},
    "deviations": {"brain_ml": -7.5},
    "warnings": ["The brain volume (ml) is 60."],
    "notice": "For research and teaching, not for diagnosis.",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


def opened(browser: Browser, folder: Path, **options: object) -> Page:
    """The report as a file on disk; `troubles` collect errors and every request for anything else."""
    path = folder / "report.html"
    path.write_text(report_page(SCAN, SCAN.image, MAP.astype(np.float32), FACTS), encoding="utf-8")
    page = browser.new_page(**options)
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda m: page.troubles.append(m.text) if m.type in ("error", "warning") else None)
    allowed = (path.as_uri(), "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(allowed) else page.troubles.append(r.url))
    page.goto(path.as_uri())
    page.locator("[data-ready]").wait_for(timeout=30_000)
    return page


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}],
    ids=["light", "dark", "phone"],
)
def test_report_needs_nothing_but_itself_and_has_no_barrier(browser: Browser, tmp_path: Path, options: dict) -> None:
    page = opened(browser, tmp_path, **options)
    text = page.locator("body").inner_text()
    for expected in ("not for diagnosis", "The brain volume (ml) is 60.", "patient <one>_T2.nii.gz", "-7.5 robust"):
        assert expected in text
    assert page.locator("img").count() == len(slices_of_interest(MAP, SCAN.brain_mask))
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert axe_findings(page) == [] and page.troubles == []


def test_report_holds_the_viewer(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path)
    before = page.locator('[data-say="volume"]').inner_text()
    page.locator('[data-control="z"]').focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator('[data-say="volume"]').inner_text() != before


def test_slices_of_interest_are_the_strongest_and_apart() -> None:
    values = np.zeros((40, 4, 4))
    values[[10, 11, 30], 1, 1] = (5, 4, 3)
    chosen = slices_of_interest(values, np.ones_like(values, dtype=bool), count=2)
    assert chosen == [10, 30]
    assert len(slices_of_interest(MAP, SCAN.brain_mask)) <= DEPTH
