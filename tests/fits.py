"""Whether what a page shows fits into it: code, outputs, tables, formulas and pictures, with every fold open."""

from __future__ import annotations

from playwright.sync_api import Page

# Texts of a table that scrolls sideways say so (reader.js); everything else has to fit.
MEASURE = """
async () => {
  const article = document.querySelector(".bd-article");
  for (const fold of article.querySelectorAll("details")) fold.open = true;
  dispatchEvent(new Event("resize"));
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame); // tables in folds are measured then
  const edge = article.getBoundingClientRect().right, found = [];
  const says = (kind, box, by) => found.push(`${kind} by ${Math.round(by)} px: ${box.textContent.trim().slice(0, 60)}`);
  const scrolls = (box) => box.closest("table.scrolls");
  for (const box of article.querySelectorAll("pre, table, .output, .pddm-figure, img, svg")) {
    if (!box.checkVisibility() || scrolls(box) || box.parentElement.closest(".pddm-figure, mjx-container")) continue;
    if (box.scrollWidth > box.clientWidth + 1) says(`${box.tagName} is cut`, box, box.scrollWidth - box.clientWidth);
    const over = box.getBoundingClientRect().right - edge;
    if (over > 1) says(`${box.tagName} leaves the page`, box, over);
  }
  for (const picture of article.querySelectorAll("img")) {
    const [shown, own] = [picture.width / picture.height, picture.naturalWidth / picture.naturalHeight];
    if (picture.checkVisibility() && own && Math.abs(shown / own - 1) > 0.03) says("picture out of shape", picture, 0);
    // drawn at 200 dots an inch for 100 of a page, with letters of 10 points: 8 pixels at this share of its width
    const share = (2 * picture.width) / picture.naturalWidth;
    if (picture.closest(".cell_output") && picture.checkVisibility() && share < 0.57) says("too small", picture, 0);
  }
  for (const formula of article.querySelectorAll("mjx-math")) {
    if (!formula.checkVisibility() || scrolls(formula)) continue;
    const room = formula.closest("div.math, p, li, td, dd, div").getBoundingClientRect().right;
    const over = formula.getBoundingClientRect().right - room;
    if (over > 1) says("formula is cut", formula.parentElement, over);
  }
  for (const number of article.querySelectorAll(".eqno")) {
    const formula = number.parentElement.querySelector("mjx-math");
    if (!formula || !formula.checkVisibility()) continue;
    const [a, b] = [number, formula].map((one) => one.getBoundingClientRect());
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 0 && down > 2) says("formula under its number", formula.parentElement, across);
  }
  for (const table of article.querySelectorAll("table.scrolls"))
    if (!getComputedStyle(table, "::before").content.includes("sideways")) says("table scrolls silently", table, 0);
  return found;
}
"""


def misfits(page: Page) -> list[str]:
    """What is cut, scrolls sideways without a word, leaves the page or runs under its number."""
    return page.evaluate(MEASURE)
