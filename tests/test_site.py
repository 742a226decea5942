"""The built site in a real browser: no network, no errors, no barriers, no dead links; light, dark, phone, paper."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib.image as mpimg
import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from fontTools.ttLib import TTFont
from playwright.sync_api import Browser, BrowserContext, Page

from barriers import axe_findings
from book_build import ROOT, built_site, toc_pages
from browser import open_browser
from fits import misfits

SCREENSHOTS = ROOT / "_build" / "screenshots"
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
}
PAYLOAD_BYTES = 3_000_000
WELCOME_BYTES = 1_000_000  # of all files that the first page loads
PICTURE_BYTES = 300_000
SCREENSHOT_ROWS = 10_000
PATIENCE_MS = 120_000  # of a page on a busy machine
# axe-core's rules for each look: all of them once, then those that depend on colours or width.
RULES = {"light": None, "dark": ["color-contrast"], "phone": ["scrollable-region-focusable", "aria-hidden-focus"]}

pytestmark = [pytest.mark.browser, pytest.mark.notebook]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal for each."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> dict[str, BrowserContext]:
    """One context per look: a page finds in its cache what the pages before it loaded."""
    opened = {look: browser.new_context(**options) for look, options in LOOKS.items()}
    for context in opened.values():
        context.set_default_timeout(PATIENCE_MS)
    return opened


def watch(page: Page, address: str) -> list[str]:
    """Collect everything that may go wrong while pages load; requests that leave the site are stopped."""
    troubles: list[str] = []

    def stay_on_site(route) -> None:
        url = route.request.url
        if url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            troubles.append(f"external request: {url}")
            route.abort()

    page.route("**/*", stay_on_site)
    page.on("pageerror", lambda error: troubles.append(f"page error: {error}"))
    page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
    page.on("response", lambda r: troubles.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    bad = ("error", "warning")
    page.on("console", lambda m: troubles.append(f"console: {m.text}") if m.type in bad else None)
    return troubles


def settle(page: Page) -> None:
    """Wait until scripts, formulas, pictures and figures are there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !document.querySelector('.pddm-figure:not([data-ready])')")
    page.evaluate("() => window.MathJax?.startup?.promise")
    # A picture that is not shown (of the other theme, in a closed fold) is never fetched: to wait for it is to hang.
    shown = "[...document.images].filter(i => i.checkVisibility() || i.loading !== 'lazy')"
    page.evaluate(f"() => {shown}.forEach(i => (i.loading = 'eager'))")
    page.evaluate(f"() => Promise.all({shown}.map(image => image.decode().catch(() => null)))")


def take_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the page, cut below where it gets very long, if the variable PDDM_SCREENSHOTS asks for it."""
    if not os.environ.get("PDDM_SCREENSHOTS"):
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], SCREENSHOT_ROWS)}
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, clip=clip)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", toc_pages())
def test_page_loads_clean(name: str, look: str, contexts: dict[str, BrowserContext], address: str) -> None:
    page = contexts[look].new_page()
    troubles = watch(page, address)
    page.goto(f"{address}/{name}.html")
    settle(page)
    take_screenshot(page, f"{name.replace('/', '-')}-{look}")
    assert troubles == []
    assert page.locator("mjx-merror, .math:not(:has(mjx-container)):not(div)").count() == 0
    broken = "() => [...document.images].filter(i => !i.naturalWidth && i.checkVisibility()).map(i => i.src)"
    assert page.evaluate(broken) == []
    width = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(width) <= 1, "the page scrolls sideways"
    theme = page.evaluate("() => document.documentElement.dataset.theme")
    assert theme == LOOKS[look]["color_scheme"]
    assert axe_findings(page, RULES[look]) == []
    assert misfits(page) == []
    page.close()


def test_the_contents_of_a_page_open_from_their_button(browser: Browser, address: str) -> None:
    page = open_site(browser, f"{address}/book/method.html", viewport={"width": 1280, "height": 900})
    contents = page.locator("nav.page-toc").first
    assert contents.is_hidden()
    page.locator("button.secondary-toggle").click()
    assert contents.is_visible() and axe_findings(page, ["color-contrast"]) == []
    page.keyboard.press("Escape")
    assert contents.is_hidden()
    page.set_viewport_size({"width": 1500, "height": 900})
    assert contents.is_visible()
    page.close()


def open_site(browser: Browser, url: str, **options: object) -> Page:
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    settle(page)
    return page


def test_a_citation_tells_what_it_cites(browser: Browser, address: str) -> None:
    page = open_site(browser, f"{address}/book/method.html")
    link, note = page.locator("a[data-cite]").first, page.get_by_role("tooltip")
    assert link.get_attribute("title") is None and note.is_hidden()
    for act in (link.hover, link.focus):
        act()
        assert "Behrendt" in note.inner_text() and "Patched diffusion models" in note.inner_text()
        assert link.get_attribute("aria-describedby") == note.get_attribute("id")
        assert axe_findings(page, ["color-contrast", "aria-tooltip-name"]) == []
        page.keyboard.press("Escape")
        assert note.is_hidden()
        page.mouse.move(0, 0)
    page.close()


def test_code_can_be_copied(browser: Browser, address: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{address}/book/welcome.html")
    settle(page)
    block = page.locator("div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == block.locator("pre").inner_text().rstrip("\n")
    context.close()


def test_paper_shows_text_and_figures_alone(browser: Browser, address: str) -> None:
    page = open_site(
        browser,
        f"{address}/notebooks/08_patched_diffusion.html",
        color_scheme="dark",
        viewport={"width": 720, "height": 1000},
    )
    page.emulate_media(media="print", color_scheme="dark")
    for part in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-area"):
        assert page.locator(part).first.is_hidden()
    assert page.locator(".pddm-figure").first.is_visible()
    grounds = "e => [...document.querySelectorAll(e)].map(b => getComputedStyle(b).backgroundColor)"
    assert set(page.evaluate(grounds, ".pddm-figure, .bd-article pre")) == {"rgb(255, 255, 255)"}
    assert page.evaluate("() => getComputedStyle(document.querySelector('.bd-article p')).color") == "rgb(0, 0, 0)"
    overflow = "() => [...document.querySelectorAll('.bd-article pre')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert page.evaluate(overflow + ".length") == 0, "long lines of code wrap"
    take_screenshot(page, "print")
    page.close()


def loaded(browser: Browser, url: str, **options: object) -> dict[str, int]:
    """Every file that a fresh browser loads for a page, with its bytes on the wire."""
    page = browser.new_page(**options)
    session = page.context.new_cdp_session(page)
    names: dict[str, str] = {}
    sizes: dict[str, int] = {}
    session.send("Network.enable")
    session.on("Network.responseReceived", lambda e: names.update({e["requestId"]: e["response"]["url"]}))
    finished = "Network.loadingFinished"
    session.on(finished, lambda e: sizes.update({names.get(e["requestId"], "?"): int(e["encodedDataLength"])}))
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.close()
    return sizes


def test_the_first_page_is_light_and_has_its_icons(browser: Browser, address: str) -> None:
    sizes = loaded(browser, f"{address}/book/welcome.html")
    assert 100_000 < sum(sizes.values()) < WELCOME_BYTES, sizes
    assert not [name for name in sizes if "mathjax" in name or "searchindex" in name or "fontawesome.js" in name]
    page = open_site(browser, f"{address}/book/welcome.html")
    drawn = "() => document.fonts.load('900 16px \"Font Awesome 6 Free\"', '\\uf0c9').then((found) => found.length)"
    assert page.evaluate(drawn) == 1
    icons = "() => [...document.querySelectorAll('i[class*=fa-]')].map(i => getComputedStyle(i, '::before').content)"
    assert "none" not in page.evaluate(icons), "an icon without a rule"
    page.close()


def test_notes_have_their_icons(site: Path) -> None:
    """The font that is left draws what the style sheet puts before the title of a note."""
    style = (site / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    named = set(re.findall(r"--pst-icon-admonition-[a-z]+:var\((--pst-icon-[a-z-]+)\)", style))
    signs = {re.search(rf'{name}:"(.)"', style)[1] for name in named}
    font = TTFont(site / "_static" / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf")
    assert len(signs) > 3 and {ord(sign) for sign in signs} <= set(font.getBestCmap())


@pytest.mark.parametrize("look", LOOKS)
def test_results_begin_with_one_chart_and_closed_folds(look: str, browser: Browser, address: str) -> None:
    variant = {"light": "overview", "dark": "overview-dark", "phone": "overview-narrow"}[look]
    charts = [name for name in loaded(browser, f"{address}/book/results.html", **LOOKS[look]) if "/overview" in name]
    assert {name.rpartition("/")[2] for name in charts} <= {f"{variant}.svg"}, "of another theme or width"
    page = open_site(browser, f"{address}/book/results.html", **LOOKS[look])
    shown = page.locator('.bd-article img[src*="overview"]:visible')
    assert shown.count() == 1 and len(shown.get_attribute("alt")) > 80
    assert shown.get_attribute("src").endswith(f"/{variant}.svg")
    assert look == "phone" or shown.bounding_box()["y"] < 900, "the chart begins on the first screen"
    folds = page.locator(".bd-article details")
    assert folds.count() > 8 and page.locator(".bd-article details[open]").count() == 0
    assert page.locator(".bd-article figcaption:visible").count() == 1
    page.close()


def test_an_address_of_before_leads_to_the_page_that_took_it_in(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/book/leaderboard.html")
    page.wait_for_url("**/book/results.html#every-run")
    assert page.locator("#every-run").is_visible()
    page.close()


def is_exercise(tag: Tag) -> bool:
    """Whether a paragraph begins with a number in bold type."""
    first = next(tag.children, None) if tag.name == "p" else None
    return isinstance(first, Tag) and first.name == "strong" and re.fullmatch(r"\d+\.", first.text) is not None


@pytest.mark.parametrize("name", [name for name in toc_pages() if name.startswith("notebooks/")])
def test_an_exercise_tells_nothing_before_its_fold_is_opened(name: str, site: Path) -> None:
    section = BeautifulSoup((site / f"{name}.html").read_text(), "html.parser").find("section", id="exercises")
    parts = section.find_all(True, recursive=False)
    exercises = [parts.index(tag) for tag in parts if is_exercise(tag)]
    assert len(exercises) >= 3
    for start, end in zip(exercises, [*exercises[1:], len(parts)], strict=True):
        (fold,) = [tag for tag in parts[start:end] if "solution" in tag.get("class", ())]
        assert fold.name == "details" and not fold.has_attr("open") and fold.summary.text == "Solution"
        assert fold is parts[end - 1], "what follows the solution is inside it"
        assert fold.select(".cell_input") and fold.select(".cell_output") and not fold.select("details")


@pytest.mark.parametrize("name", toc_pages())
def test_a_shared_link_has_title_text_and_picture(name: str, site: Path) -> None:
    soup = BeautifulSoup((site / f"{name}.html").read_text(), "html.parser")
    tags = {tag["property"]: tag["content"] for tag in soup.select('meta[property^="og:"]')}
    assert tags["og:title"] in soup.h1.text and len(tags["og:description"]) > 20
    picture = ((site / f"{name}.html").parent / tags["og:image"]).resolve()
    assert picture.stat().st_size < PICTURE_BYTES
    assert mpimg.imread(picture).shape[:2] == (630, 1200)
    icon = soup.select_one('link[rel="icon"]')["href"]
    logo = soup.select_one("img.logo__image")
    assert ((site / f"{name}.html").parent / icon).resolve().is_file() and logo["alt"]


def test_chapters_can_be_launched_with_an_address_only(site: Path) -> None:
    has_address = "html_baseurl" in yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    for path in (site / "notebooks").glob("*.html"):
        text = path.read_text()
        assert ("colab.research.google.com" in text, "mybinder.org" in text) == (has_address, has_address)


def test_search_works_without_network(browser: Browser, address: str) -> None:
    page = browser.new_page()
    troubles = watch(page, address)
    page.goto(f"{address}/search.html?q=stitching")
    page.locator("#search-results ul.search li").first.wait_for(timeout=10_000)
    settle(page)
    assert troubles == []
    page.close()


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """Everything in a page that a link can point at."""
    soup = BeautifulSoup(path.read_text(), "html.parser")
    return frozenset(tag.get("id") or tag.get("name") for tag in soup.select("[id], a[name]"))


def dead_links(path: Path, site: Path) -> list[str]:
    """Links and sources of one page that lead nowhere inside the site."""
    dead = []
    for tag in BeautifulSoup(path.read_text(), "html.parser").select("[href], [src]"):
        link = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or not link:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        there = target.is_relative_to(site) and target.is_file()
        if there and parts.fragment and target.suffix == ".html":
            there = unquote(parts.fragment) in anchors(target)
        if not there:
            dead.append(link)
    return dead


@pytest.mark.parametrize("name", [*toc_pages(), "genindex", "search"])
def test_links_and_anchors_resolve(name: str, site: Path) -> None:
    assert dead_links(site / f"{name}.html", site) == []


@pytest.mark.parametrize("name", toc_pages())
def test_tables_are_tables(name: str, site: Path) -> None:
    paragraphs = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser").find_all("p")
    assert not [text for text in (p.get_text() for p in paragraphs) if text.startswith("| ")]


@pytest.mark.parametrize("name", toc_pages())
def test_own_payload_is_small(name: str, site: Path) -> None:
    page = site / f"{name}.html"
    pictures = BeautifulSoup(page.read_text(), "html.parser").select("img[src]:not(.only-dark)")  # of one theme
    images = {tag["src"] for tag in pictures}
    files = {(page.parent / unquote(src)).resolve() for src in images if not urlsplit(src).scheme}
    assert page.stat().st_size + sum(file.stat().st_size for file in files) < PAYLOAD_BYTES
