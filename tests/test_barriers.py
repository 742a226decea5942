"""The search for barriers finds what it should, although it looks at one text of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from barriers import axe_findings
from browser import open_browser

pytestmark = pytest.mark.browser
STYLE = "<style>body { background: #fff; color: #222 } .faint { color: #bbb }</style><html lang='en'><title>t</title>"
TEXT = "<p>A plain sentence with <a href='#'>a link</a>.</p>" * 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.mark.parametrize(
    "faint",
    [
        "<p class='faint'>hardly to be read</p>",
        "<div style='background: #333'><p>dark on dark, in the colour of all others</p></div>",
        "<div style='opacity: 0.2'><p>as all others, but shining through</p></div>",
        "<p><b><span style='color: #ccc'>inside of others</span></b></p>",
        "<button style='color: #fff; background: #eee'>to press</button>",
    ],
)
def test_one_faint_text_among_many_is_found(faint: str, browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(f"{STYLE}<body><main><h1>Page</h1>{TEXT}{faint}{TEXT}</main></body>")
    (finding,) = axe_findings(page, ["color-contrast"])
    assert "color-contrast" in finding
    page.set_content(f"{STYLE}<body><main><h1>Page</h1>{TEXT}</main></body>")
    assert axe_findings(page) == []
    assert page.locator("[data-contrast]").count() == 0
    page.close()


def test_other_rules_are_asked_too(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(f"{STYLE}<body><main><h1>Page</h1><img src='data:,'><button></button></main></body>")
    assert {finding.split()[1] for finding in axe_findings(page)} == {"image-alt:", "button-name:"}
    page.close()
