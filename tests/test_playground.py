"""The playground in a real browser: the models give what torch gives, and everything works by hand, key and touch."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from barriers import axe_findings
from book_build import ROOT
from browser import FLAGS, find_browser, open_browser
from figure_page import move, press
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import weights_root
from pddm_utils.diffusion.boxes import BoxGrid, boxes_with_content
from pddm_utils.diffusion.network import make_network, parameter_count
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.metrics import average_precision, dice
from pddm_utils.evaluation.postprocess import anomaly_map, median_filter
from pddm_utils.methods.registry import make_method
from pddm_utils.publish import web_runtime
from pddm_utils.publish.onnx_models import to_onnx, web_models
from pddm_utils.publish.play_scans import patient_slabs, people_slabs, slab_file
from pddm_utils.publish.playground import build_playground
from pddm_utils.publish.web_runtime import fetch_runtime
from test_randomise import write_ixi

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from playground import one_button

SIDE = 96
PATIENCE_MS = 120_000
TOLERANCE = 1e-3  # of [-1, 1], what the page promises
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Play</title>
<meta name="viewport" content="width=device-width"></head><body><main><h1>Play</h1>
<div id="pddm-play" class="pddm-figure" data-folder="play/"><img class="recorded" src="play/recorded.png" alt="A run">
</div></main><script src="play/play.js"></script></body></html>"""


def save_small(folder: Path, method: str, noise: str = "gaussian") -> None:
    """An untrained model of the smallest size, as it would be shipped."""
    torch.manual_seed(3)
    settings = load_settings("smoke", {"noise": noise})
    made = make_method(method, settings)
    folder.mkdir(parents=True)
    made.save(make_network("smoke"), folder)
    facts = {"cohort": "made-up", "contrast": "T2", "method": method, "timestep": 499}
    (folder / "detection.json").write_text(json.dumps(facts | {"thresholds": {"healthy-quantile-0.99": 0.2}}))
    (folder / "training.json").write_text(json.dumps({"method": method, "settings": settings.to_dict()}))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped models of simulated T2 scans; beside them a DAE, and a patched model with simplex noise."""
    root = tmp_path_factory.mktemp("weights")
    for folder in [*weights_root().glob("simulated-t2-*ddpm"), weights_root() / "simulated-t2-atlas"]:
        shutil.copytree(folder, root / folder.name)
    save_small(root / "made-up-t2-dae", "dae")
    save_small(root / "made-up-t2-pddpm", "pddpm", "simplex")
    return root


def test_a_model_of_the_newer_recipe_takes_the_place_of_the_older(tmp_path: Path) -> None:
    for name, noise in (("a-t2-pddpm", "gaussian"), ("a-t2-pddpm-simplex", "simplex"), ("a-t2-ddpm", "gaussian")):
        save_small(tmp_path / name, name.split("-")[2], noise)
    assert [model.facts["name"] for model in web_models(tmp_path)] == ["a-t2-pddpm-simplex", "a-t2-ddpm"]


@pytest.fixture(scope="module")
def site(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page and the files of the playground."""
    root = tmp_path_factory.mktemp("site")
    made = build_playground(root / "play", root / "runs", weights, subjects=1, scans=1)
    if made.missing:
        pytest.skip(f"the runtime is not at hand: {made.missing}")
    (root / "index.html").write_text(PAGE)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


def open_play(browser: Browser, address: str, **options: object) -> Page:
    """The page before its start; its `troubles` collect errors and requests that leave it."""
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE_MS)
    page.troubles, page.asked = [], []
    inside = (address.rsplit("/", 1)[0], "blob:", "data:")
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda m: page.troubles.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: (page.asked if r.url.startswith(inside) else page.troubles).append(r.url))
    page.goto(address)
    page.locator("[data-ready]").wait_for()
    return page


def start(page: Page, group: int = 0) -> None:
    page.locator('[data-control="group"]').select_option(index=group)
    page.locator('[data-control="start"]').click()
    page.locator("[data-running]").wait_for()


def said(page: Page, name: str) -> str:
    return page.locator(f'[data-say="{name}"]').inner_text()


def settled(page: Page) -> str:
    """Wait until all maps are there; what was said then."""
    page.wait_for_function("() => !document.getElementById('pddm-play').play.state.busy")
    return said(page, "compare")


def array(page: Page, expression: str, *shape: int) -> np.ndarray:
    """Numbers of the page: `expression` of the state `s` and of the noise `n(model, ...seeds)`."""
    code = f"""() => {{
        const {{ state: s, noiseField: n }} = document.getElementById("pddm-play").play;
        const bytes = new Uint8Array(Float32Array.from({expression}).buffer);
        let text = "";
        for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
        return btoa(text);
    }}"""
    return np.frombuffer(base64.b64decode(page.evaluate(code)), dtype=np.float32).reshape(shape).copy()


def slab(page: Page, name: str) -> np.ndarray:
    """Five planes of the page, such as `work.image`."""
    return array(page, f"s.{name}", 5, SIDE, SIDE)


def inside(page: Page, panel: str, down: float, right: float) -> tuple[float, float]:
    """A place in a picture, by shares of its height and width, as x and y in the window."""
    canvas = page.locator(f'[data-panel="{panel}"]')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return box["x"] + right * box["width"], box["y"] + down * box["height"]


def drag(page: Page, panel: str, *places: tuple[float, float]) -> None:
    """Move a pressed mouse over places of a picture."""
    page.mouse.move(*inside(page, panel, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*inside(page, panel, *place), steps=3)
    page.mouse.up()


def swipe(page: Page, panel: str, *places: tuple[float, float]) -> None:
    """Move a finger over places of a picture."""
    fingers = page.context.new_cdp_session(page)
    for kind, place in zip(("touchStart", *["touchMove"] * (len(places) - 1)), places, strict=True):
        x, y = inside(page, panel, *place)
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    fingers.detach()


@pytest.fixture(scope="module")
def started(site: Path, browser: Browser) -> Iterator[Page]:
    """The page as a file, with the shipped models running."""
    page = open_play(browser, (site / "index.html").as_uri(), viewport={"width": 1000, "height": 900})
    start(page)
    settled(page)
    yield page
    assert page.troubles == []


def predict(page: Page, name: str, x: np.ndarray, t: int) -> np.ndarray:
    code = """([name, x, t]) => document.getElementById('pddm-play').play.engine
        .predict(name, Float32Array.from(x), t).then(({ y }) => [...y])"""
    return np.array(page.evaluate(code, [name, x.ravel().tolist(), t]), dtype=np.float32).reshape(1, 1, SIDE, SIDE)


@pytest.mark.browser
def test_the_shipped_networks_give_what_torch_gives(started: Page, weights: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    models = [model for model in web_models(weights) if model.facts["cohort"] == "simulated"]
    assert len(models) >= 2
    for model in models:
        unet = load_pipeline(model.folder).unet.cpu()
        for t in (0, model.facts["timestep"], 999):
            x = torch.randn(1, 1, SIDE, SIDE, generator=generator).clamp(-3, 3)
            with torch.inference_mode():
                theirs = unet(x, t).sample.numpy()
            np.testing.assert_allclose(predict(started, model.facts["name"], x.numpy(), t), theirs, atol=TOLERANCE)


def rebuilt_by_package(page: Page, number: int, model: dict, z: int, grid: BoxGrid) -> np.ndarray:
    """Plane z as the pipeline rebuilds the page's plane with the page's noise."""
    pipeline = load_pipeline(Path(model["folder"]))
    image, brain = (torch.from_numpy(slab(page, name)[z])[None, None] for name in ("work.image", "slab.brain"))
    held = boxes_with_content(grid.boxes, brain > 0)[0].nonzero()[:, 0].tolist()
    fields = [array(page, f"n(s.models[{number}], s.set.seed, {z}, {box})", 1, SIDE, SIDE) for box in held]
    noise = torch.from_numpy(np.stack(fields))
    return pipeline(image, brain > 0, noise=noise, boxes=grid).reconstruction[0, 0].numpy()


def check_against_package(page: Page, weights: Path, box: int = 48, stride: int = 48) -> None:
    """Reconstruction, map, AUPRC and Dice of every method, from the slab and the noise of the page."""
    image, truth, eroded = slab(page, "work.image"), slab(page, "work.truth") > 0, slab(page, "slab.brain") > 0
    models = page.evaluate("() => document.getElementById('pddm-play').play.state.models")
    for number, model in enumerate(models):
        whole, card = model["box"] == SIDE, page.locator(f'[aria-label="{model["label"]}"]')
        grid = BoxGrid(SIDE, SIDE) if whole else BoxGrid(SIDE, box, stride)
        mine = slab(page, f"all[{number}].rebuilt")
        for z in (2, 0):
            theirs = rebuilt_by_package(page, number, model | {"folder": str(weights / model["name"])}, z, grid)
            np.testing.assert_allclose(mine[z], theirs, atol=TOLERANCE)
        shown = array(page, f"s.all[{number}].map", 1, SIDE, SIDE)
        np.testing.assert_allclose(shown[0], anomaly_map(image, mine, eroded)[2], atol=1e-6)
        threshold = float(card.locator("output").inner_text().removeprefix("> "))
        precision, score, overlap = (
            average_precision(shown, truth[2:3]),
            *card.locator("[data-scores]").inner_text().split(", "),
        )
        assert score == f"AUPRC {precision:.2f}"
        assert float(overlap.removeprefix("Dice ")) == pytest.approx(dice(shown > threshold, truth[2:3]), abs=0.03)


@pytest.mark.browser
def test_a_painted_slice_is_rebuilt_and_scored_as_in_the_package(started: Page, weights: Path) -> None:
    page = started
    before, lesion = slab(page, "work.image"), slab(page, "work.truth")
    drag(page, "paint", (0.4, 0.66), (0.4, 0.7))
    words = settled(page)
    after, truth = slab(page, "work.image"), slab(page, "work.truth")
    row, column = round(SIDE - 0.5 - 0.4 * SIDE), round(SIDE - 0.5 - 0.66 * SIDE)
    assert truth[2, row, column] == 1 and truth.sum() > lesion.sum() and after[2, row, column] > 0.7
    changed = np.argwhere(np.abs(after - before).max(axis=0) > 0)
    assert np.abs(changed - (row, column)).max() < 14, "only what is under the brush"
    assert f"{int(truth[2].sum())} pixels of this slice are lesion" in said(page, "paint")
    assert "AUPRC" in words and "passes, one WebAssembly thread, this machine" in words
    check_against_package(page, weights)


@pytest.mark.browser
def test_the_brush_has_brightness_softness_and_texture(started: Page) -> None:
    """A stroke at the same place: faint or bright, with a hard or soft edge, even or grained."""
    page = started

    def stroke(**brush: int) -> np.ndarray:
        for name, value in brush.items():
            move(page, name, value)
        clean = slab(page, "work.image")
        drag(page, "paint", (0.4, 0.66))
        painted = slab(page, "work.image")
        page.locator('[data-control="undo"]').click()
        np.testing.assert_array_equal(slab(page, "work.image"), clean)
        return painted[2][np.abs(painted - clean)[2] > 1e-6]

    hard = stroke(brightness=60, softness=0, texture=0)
    assert np.mean(np.isclose(hard, 0.6, atol=1e-5)) > 0.7
    assert np.median(stroke(brightness=80)) == pytest.approx(0.8, abs=1e-5)
    assert np.mean(np.isclose(stroke(softness=100), 0.8, atol=1e-3)) < 0.2
    assert np.mean(np.isclose(stroke(softness=0, texture=100), 0.8, atol=1e-3)) < 0.2
    for name, value in {"brightness": 90, "softness": 40, "texture": 30}.items():
        move(page, name, value)


@pytest.mark.browser
def test_the_floor_is_the_median_of_the_signed_score_by_place(started: Page) -> None:
    names = ("work.image", "slab.mean", "slab.deviation", "slab.eroded")
    image, mean, deviation, eroded = (slab(started, name) for name in names)
    scores = np.where(eroded > 0, ((image - mean) / (deviation + 0.02)).clip(min=0), 0).astype(np.float32)
    theirs = median_filter(scores, eroded > 0)[2]
    np.testing.assert_allclose(array(started, "s.all.at(-1).map", SIDE, SIDE), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.browser
def test_other_boxes_are_run_and_named_as_untrained(started: Page, weights: Path) -> None:
    page = started
    move(page, "box", 64)
    move(page, "stride", 20)
    settled(page)
    assert "trained on boxes of 48 px, not of 64 px" in said(page, "trained")
    assert page.locator('[data-control="stride"]').get_attribute("aria-valuetext") == "20 px, 9 boxes"
    check_against_package(page, weights, 64, 20)
    move(page, "timestep", 300)
    assert "own noise level" in said(page, "trained")
    assert not page.locator('[data-control="own"]').is_checked()
    move(page, "box", 48)
    move(page, "stride", 48)
    page.locator('[data-control="own"]').check()
    assert said(page, "trained") == ""


@pytest.mark.browser
def test_erase_undo_and_the_healthy_twin(started: Page) -> None:
    page = started
    page.locator('[data-control="reset"]').click()
    first, healthy = slab(page, "work.image"), slab(page, "slab.healthy")
    page.locator('[data-control="heal"]').click()
    np.testing.assert_array_equal(slab(page, "work.image"), healthy)
    assert "no lesion, " in settled(page)
    page.locator('[data-control="undo"]').click()
    np.testing.assert_array_equal(slab(page, "work.image"), first)
    middle = np.argwhere(slab(page, "work.truth")[2]).mean(axis=0)
    page.locator('[data-control="erase"]').check()
    drag(page, "paint", tuple((SIDE - 0.5 - middle) / SIDE))
    place = (2, *middle.round().astype(int))
    assert slab(page, "work.truth")[place] == 0
    assert slab(page, "work.image")[place] == pytest.approx(healthy[place], abs=1e-6)
    page.locator('[data-control="paint"]').check()
    page.locator('[data-control="undo"]').click()


@pytest.mark.browser
def test_swipe_views_and_thresholds(started: Page) -> None:
    page = started
    name = page.locator("[data-scores]").first.get_attribute("data-scores")
    card, scores = page.locator(f'[data-panel="card-{name}"]'), page.locator(f'[data-scores="{name}"]')
    drag(page, f"card-{name}", (0.1, 0.1), (0.1, 0.501))
    assert page.locator('[data-control="wipe"]').input_value() == "49"
    assert card.get_attribute("aria-label").endswith("the scan at the left")
    press(page, "wipe", "Home")
    for view, words in (("residual", "residual"), ("map", "anomaly map"), ("found", "above the threshold")):
        page.locator(f'[data-control="{view}"]').check()
        assert card.get_attribute("aria-label").startswith(words)
        assert page.locator('[data-control="wipe"]').is_hidden()
    settled(page)
    before = scores.inner_text()
    press(page, f"threshold-{name}", "Home", "ArrowRight")
    assert scores.inner_text() != before
    page.locator(f'[data-control="show-{name}"]').uncheck()
    assert card.is_hidden()
    page.locator(f'[data-control="show-{name}"]').check()
    page.locator('[data-control="rebuilt"]').check()


@pytest.mark.browser
def test_a_box_is_dragged_and_the_grid_runs(started: Page) -> None:
    page, before = started, started.locator('[data-panel="box-before"]')

    def await_words(words: str) -> None:
        page.wait_for_function(
            "words => document.querySelector('[data-say=box]').textContent.includes(words)", arg=words
        )

    drag(page, "box-before", (0.3, 0.3), (0.501, 0.501))
    await_words("box at row 23, column 23, t = ")
    data = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"
    noisy = before.evaluate(data)
    page.locator('[data-control="box-noise"]').click()
    assert before.evaluate(data) != noisy
    page.locator('[data-control="grid"]').click()
    await_words("4 boxes in")
    assert "across the seams" in said(page, "box")
    before.press("Shift+ArrowUp")
    await_words("box at row 31, column 23")


@pytest.mark.browser
def test_by_keyboard_alone_and_without_barriers(started: Page) -> None:
    page = started
    before = slab(page, "work.truth")[2].sum()
    canvas = page.locator('[data-panel="paint"]')
    canvas.focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "ArrowUp", "Space"):
        page.keyboard.press(key)
    assert slab(page, "work.truth")[2].sum() > before
    for control in page.locator("#pddm-play input[type=range]:visible").all():
        assert control.get_attribute("aria-valuetext") and control.evaluate("c => c.labels.length") == 1
    for picture in page.locator("#pddm-play canvas[data-panel]").all():
        assert picture.get_attribute("aria-label")
    assert axe_findings(page) == []
    page.locator('[data-control="undo"]').click()


@pytest.mark.browser
def test_nothing_is_loaded_before_the_start_and_nothing_from_outside(site: Path, browser: Browser) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/index.html"
    page = open_play(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    # A graphics card that is promised and not there: the models start all the same, in WebAssembly.
    page.evaluate(
        "() => Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({ info: {} }) } })"
    )
    page.wait_for_load_state("networkidle")
    assert {url.rsplit("/", 1)[1] for url in page.asked if "favicon" not in url} == {
        "index.html",
        "play.js",
        "recorded.png",
    }
    start(page, group=1)  # the DAE, and the patched model with simplex noise
    words = settled(page)
    assert "DAE" in words and "no network" not in words and "one WebAssembly thread" in words
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    spot, before = inside(page, "paint", 0.4, 0.66), slab(page, "work.truth").sum()
    scrolled = page.evaluate("() => scrollY")
    page.touchscreen.tap(*spot)
    tapped = slab(page, "work.truth").sum()
    assert tapped > before and page.evaluate("() => scrollY") == scrolled
    swipe(page, "paint", (0.4, 0.6), (0.45, 0.55), (0.5, 0.5))
    assert slab(page, "work.truth").sum() > tapped
    settled(page)
    card = page.locator("[data-scores]").first.get_attribute("data-scores")
    swipe(page, f"card-{card}", (0.1, 0.1), (0.1, 0.3), (0.1, 0.501))
    assert page.locator('[data-control="wipe"]').input_value() == "49"
    swipe(page, "box-before", (0.3, 0.3), (0.4, 0.4), (0.501, 0.501))
    page.wait_for_function(
        "() => document.querySelector('[data-say=box]').textContent.includes('box at row 23, column 23')"
    )
    assert axe_findings(page, ["color-contrast"]) == []
    noise = array(page, "n(s.models[0], 1, 2, 0)", SIDE, SIDE)
    assert abs(noise.std() - 1) < 0.7 and np.abs(np.diff(noise)).mean() < 0.7, "coarse, as simplex noise is"
    assert [line for line in page.troubles if "favicon" not in line and "404" not in line] == []
    page.close()
    server.shutdown()
    server.server_close()


@pytest.mark.browser
def test_one_button_loads_and_starts_all_of_it(site: Path, browser: Browser) -> None:
    found = json.loads((site / "play" / "contents.json").read_text())
    assert one_button("play/", found | {"missing": "npm"}) == ""
    lines = PAGE.split('<div id="pddm-play"')[0] + one_button("play/", found) + "</main></body></html>"
    (site / "small.html").write_text(lines)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "small.html").as_uri())
    assert len(asked) == 1 and page.locator("#pddm-play").count() == 0
    page.get_by_role("button", name="Run the models here").press("Enter")
    page.locator("[data-running]").wait_for()
    assert "AUPRC" in settled(page) and page.locator(".run-here").count() == 0
    page.close()


@pytest.mark.browser
def test_where_nothing_runs_the_recorded_picture_stays(site: Path, browser: Browser) -> None:
    page = open_play(browser, (site / "index.html").as_uri())
    page.evaluate("() => { delete self.Worker; }")
    page.locator('[data-control="start"]').click()
    page.locator("[data-failed]").wait_for()
    assert "do not run in this browser" in said(page, "start") and page.locator(".recorded").is_visible()
    page.close()


def test_a_build_without_npm_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path / "weights" / "made-up-t2-pddpm", "pddpm")
    monkeypatch.setenv("PATH", str(tmp_path))
    made = build_playground(tmp_path / "play", tmp_path / "runs", tmp_path / "weights", scans=1)
    assert "npm, which is not installed" in made.missing
    assert json.loads((made.folder / "contents.json").read_text())["missing"] == made.missing
    assert (made.folder / "recorded.png").is_file()


def test_a_package_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\necho other > {web_runtime.PACKAGE}-{web_runtime.VERSION}.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="checksum"):
        fetch_runtime()
    npm.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(InputError, match="exit code 1"):
        fetch_runtime()


def test_weights_that_half_precision_cannot_hold_stay_as_they_are() -> None:
    torch.manual_seed(0)
    network = make_network("smoke").eval()
    whole, half = len(to_onnx(network)), len(to_onnx(network.half().float()))
    assert 1.5 < (whole - half) / parameter_count(network) <= 2, "two bytes of all that is not a one or a zero"


def test_people_come_with_their_healthy_twin_where_the_build_has_their_scans(tmp_path: Path) -> None:
    root = write_ixi(tmp_path, intensities=0)  # one test subject
    ill, healthy = people_slabs(root, None, tmp_path / "runs")
    assert "inserted tumour" in ill.title and "healthy" in healthy.title and "person 1" in ill.title
    assert ill.scan.lesion_mask.any() and not healthy.scan.lesion_mask.any()
    outside = ~ill.scan.lesion_mask
    assert ill.scan.image.shape == ill.healthy.shape == (5, SIDE, SIDE)
    assert np.abs(ill.scan.image - ill.healthy)[outside].mean() < np.abs(ill.scan.image - ill.healthy)[~outside].mean()
    np.testing.assert_array_equal(healthy.scan.image, healthy.healthy)
    assert slab_file("T1", None, [ill], "from people")["credit"] == "from people"
    for without in (None, tmp_path / "elsewhere"):
        assert list(people_slabs(without, None, tmp_path / "runs")) == []
        assert list(patient_slabs(without, None, tmp_path / "runs")) == []


@pytest.mark.parametrize("built", ["not at all", "without npm"])
def test_the_book_says_that_its_models_are_missing(built: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    if built == "without npm":
        made.mkdir()
        (made / "contents.json").write_text(json.dumps({"models": [], "missing": "npm is not installed"}))
        (made / "recorded.png").write_bytes(b"a picture")
    extensions = f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})"
    (tmp_path / "conf.py").write_text(f"{extensions}; extensions = ['myst_parser', 'playground']")
    (tmp_path / "index.md").write_text("# Play\n\n```{playground}\n```\n")
    command = [sys.executable, "-m", "sphinx", "-W", str(tmp_path), str(tmp_path / "site")]
    here = os.environ | {"PDDM_PLAYGROUND": str(made), "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=here)
    page = (tmp_path / "site" / "index.html").read_text()
    why = "npm is not installed" if built == "without npm" else "python -m pddm_utils.publish playground"
    assert sum("without models" in line and why in line for line in done.stdout.splitlines()) == 1
    assert "not part of this build of the book: " in page and why in page and "play.js" not in page
    assert ("_static/play/recorded.png" in page) == (tmp_path / "site/_static/play/recorded.png").is_file()


@pytest.mark.slow
@pytest.mark.browser
def test_webgpu_gives_what_torch_gives(site: Path, weights: Path, browser: Browser) -> None:
    """On a graphics card in software, which the page itself would not take: minutes for a few passes."""
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    flags += ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    graphics = browser.browser_type.launch(executable_path=find_browser(), headless=True, args=flags)
    page = open_play(graphics, (site / "index.html").as_uri())
    page.set_default_timeout(10 * PATIENCE_MS)
    if page.evaluate("async () => !(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this browser has no WebGPU, not even in software")
    page.evaluate(
        """() => {
            const ask = navigator.gpu.requestAdapter.bind(navigator.gpu);
            navigator.gpu.requestAdapter = async () => (await ask(), { info: {} });
        }"""
    )
    start(page, group=1)
    assert page.locator("[data-running]").get_attribute("data-running") == "webgpu"
    x = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = load_pipeline(weights / "made-up-t2-pddpm").unet.cpu()(x, 400).sample.numpy()
    np.testing.assert_allclose(predict(page, "made-up-t2-pddpm", x.numpy(), 400), theirs, atol=TOLERANCE)
    graphics.close()
