"""Barriers for readers with a disability, as axe-core finds them in a page; its script comes from a package."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

CONTRAST = "color-contrast"
# The contrast of a text depends on its colour, size and weight and on what lies behind it: one element of each kind is
# marked, because axe-core takes milliseconds for every one, and a page has thousands.
_MARK_ONE_OF_EACH = """() => {
    const seen = new Set();
    const behind = new Map([[null, ""]]);
    const ground = (e) => {
        if (!behind.has(e)) {
            const s = getComputedStyle(e);
            const own = [s.backgroundColor, s.backgroundImage, s.opacity, s.filter, s.mixBlendMode].join();
            const plain = "rgba(0, 0, 0, 0),none,1,none,normal";
            behind.set(e, ground(e.parentElement) + (own === plain ? "" : own + ";"));
        }
        return behind.get(e);
    };
    for (const e of document.querySelectorAll("body *")) {
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
        const s = getComputedStyle(e);
        const kind = [s.color, s.fontSize, s.fontWeight, s.textShadow, s.position, ground(e)].join("|");
        if (!seen.has(kind)) { seen.add(kind); e.dataset.contrast = ""; }
    }
    document.querySelectorAll("input, select, textarea, button").forEach((e) => (e.dataset.contrast = ""));
    return seen.size;
}"""


def axe_findings(page: Page, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds on a page, of any impact; all rules, or those named."""
    others: dict = {"rules": {CONTRAST: {"enabled": False}}}
    if rules is not None:
        others = {"runOnly": {"type": "rule", "values": [rule for rule in rules if rule != CONTRAST]}}
    found = _violations(page, others) if rules != [CONTRAST] else []
    if rules is None or CONTRAST in rules:
        page.evaluate(_MARK_ONE_OF_EACH)
        found += _violations(page, {"runOnly": {"type": "rule", "values": [CONTRAST]}}, "[data-contrast]")
        page.evaluate("() => document.querySelectorAll('[data-contrast]').forEach((e) => delete e.dataset.contrast)")
    return [
        f"{one['impact']} {one['id']}: {node['target']} {node['html'][:120]}" for one in found for node in one["nodes"]
    ]


def _violations(page: Page, options: dict, context: str | None = None) -> list[dict]:
    return Axe().run(page, context=context, options={"resultTypes": ["violations"]} | options).response["violations"]
