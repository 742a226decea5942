"""What the tests of interactive figures share: a small scan, a page that holds a figure, and its pixels."""

from __future__ import annotations

import json

import numpy as np
import torch
from playwright.sync_api import Browser, Page

from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.show.widgets.comparison import Reconstruct
from pddm_utils.show.widgets.interactive import InteractiveFigure

SIZE, DEPTH = 32, 16
ALPHA_BARS = make_scheduler().alphas_cumprod


def small_scan() -> Scan:
    """A made-up scan of `(16, 32, 32)` voxels with a bright box for a lesion."""
    rng = np.random.default_rng(0)
    brain = np.zeros((DEPTH, SIZE, SIZE), dtype=bool)
    brain[:, 3:-3, 4:-4] = True
    lesion = np.zeros_like(brain)
    lesion[5:8, 18:24, 7:12] = True
    image = np.where(brain, rng.uniform(0.2, 0.6, brain.shape), 0) + 0.3 * lesion
    image = image.astype(np.float32)
    return Scan("s1", "simulated-t2-tumour", "T2", image, brain, lesion, np.diag([2.0, 2, 2, 1]))


def small_pipelines() -> dict[str, PatchedReconstructionPipeline]:
    """A whole-image and a patched pipeline with untrained networks."""
    made = {}
    for name, box in (("ddpm", SIZE), ("pddpm", SIZE // 2)):
        torch.manual_seed(box)
        network = make_network("smoke", SIZE).eval()
        made[name] = PatchedReconstructionPipeline(network, make_scheduler(), box, box)
    return made


def small_methods() -> dict[str, Reconstruct]:
    """What reconstructs with `small_pipelines`."""
    return {name: pipeline.reconstruct_volume for name, pipeline in small_pipelines().items()}


def open_page(browser: Browser, body: str, **options: object) -> Page:
    """A page that holds `body`; its `troubles` collect errors and every request that leaves the page."""
    page = browser.new_page(**options)
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda m: page.troubles.append(m.text) if m.type in ("error", "warning") else None)
    inside = ("blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(inside) else page.troubles.append(r.url))
    head = '<meta name="viewport" content="width=device-width"><title>A figure</title>'
    page.set_content(
        f'<!doctype html><html lang="en"><head>{head}</head><body><main><h1>A figure</h1>{body}</main></body></html>'
    )
    page.locator("[data-ready]").first.wait_for(timeout=30_000)
    return page


def open_live(browser: Browser, figure: InteractiveFigure) -> Page:
    """A page that holds a figure as a kernel would serve it: `probe` has its listeners and what it sent."""
    source, frames = json.dumps(str(figure._esm)), json.dumps(figure.frames)
    return open_page(
        browser,
        f"""<div id="el"></div><script type="module">
            const module = await import(URL.createObjectURL(new Blob([{source}], {{type: "text/javascript"}})));
            const state = {{ frames: {frames}, live: true }}, listeners = {{}}, sent = [];
            const model = {{ get: (name) => state[name], on: (name, f) => (listeners[name] = f),
                             off: (name) => delete listeners[name], send: (message) => sent.push(message) }};
            window.probe = {{ listeners, sent }};
            window.probe.cleanup = await module.default.render({{ model, el: document.getElementById("el") }});
        </script>""",
    )


def move(page: Page, control: str, value: int) -> None:
    """Put a slider at a value, as a user's drag does."""
    page.locator(f'[data-control="{control}"]').fill(str(value))


def press(page: Page, control: str, *keys: str) -> None:
    """Focus a control and press keys."""
    page.locator(f'[data-control="{control}"]').focus()
    for key in keys:
        page.keyboard.press(key)


def point(page: Page, panel: str, column: int, row: int) -> None:
    """Press the mouse on the middle of a pixel of a picture."""
    canvas = page.locator(f'[data-panel="{panel}"]')
    canvas.scroll_into_view_if_needed()
    box, (width, height) = canvas.bounding_box(), canvas.evaluate("c => [c.width, c.height]")
    page.mouse.click(box["x"] + (column + 0.5) / width * box["width"], box["y"] + (row + 0.5) / height * box["height"])


def pixels(page: Page, panel: str) -> np.ndarray:
    """RGB of a canvas, uint8 (H, W, 3)."""
    width, height, values = page.locator(f'[data-panel="{panel}"]').evaluate(
        "c => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]
