"""The interactive figures in a real browser: what they show equals what Python computes, by mouse and keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

import mirrors
from barriers import axe_findings
from browser import open_browser
from figure_page import SIZE, move, open_page, pixels, point, press, small_scan
from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.evaluation.metrics import average_precision, dice, precision_recall
from pddm_utils.show.widgets.box_explorer import explore_boxes
from pddm_utils.show.widgets.component_explorer import explore_components
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.noise_explorer import explore_forward
from pddm_utils.show.widgets.packing import to_levels, unpack
from pddm_utils.show.widgets.threshold_explorer import explore_thresholds
from pddm_utils.show.widgets.training_explorer import Film, explore_training
from pddm_utils.show.widgets.volume_viewer import view_volume

SCAN = small_scan()
MAP = (np.random.default_rng(1).uniform(0, 0.3, SCAN.image.shape) + 0.15 * SCAN.lesion_mask) * SCAN.brain_mask
REBUILT = {k: (SCAN.image[6] * share).astype(np.float32) for k, share in ((0, 0.0), (4, 0.5), (64, 0.9))}
SHARES = ([1.0, 0.5, 0.1], [0.0, 0.25, 0.75])
SCHEDULES = ("squaredcos_cap_v2", "linear")
ALPHA_BARS = {name: make_scheduler(name).alphas_cumprod for name in SCHEDULES}
FIELDS = {kind: draw((1, 1, 32, 32), torch.Generator().manual_seed(0))[0, 0] for kind, draw in NOISES.items()}
STEPS, LOSSES = [0, 3, 12], np.linspace(0.5, 0.1, 12)
FILMS = {
    "ddpm": Film(32, LOSSES, SCAN.image[None, [6, 9]] * np.float32([[[[0.0]]], [[[0.4]]], [[[0.8]]]])),
    "pddpm": Film(16, LOSSES / 2, SCAN.image[None, [6, 9]] * np.float32([[[[0.1]]], [[[0.7]]], [[[0.9]]]])),
}
FIGURES = {
    "forward": explore_forward(SCAN, ALPHA_BARS, FIELDS, 6, timestep=700),
    "boxes": explore_boxes(SCAN, 6, box_size=16, stride=8),
    "thresholds": explore_thresholds(SCAN, MAP, 0.2, [4, 6, 12]),
    "volume": view_volume(SCAN, MAP, 0.2),
    "components": explore_components(SCAN, REBUILT, *SHARES, slice_index=6),
    "training": explore_training(SCAN, [6, 9], STEPS, FILMS),
}
PAGE_BYTES = 3_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(browser: Browser) -> Iterator[dict[str, Page]]:
    opened = {name: open_page(browser, figure.to_html()) for name, figure in FIGURES.items()}
    yield opened
    assert {name: page.troubles for name, page in opened.items() if page.troubles} == {}


def said(page: Page, name: str) -> str:
    return page.locator(f'[data-say="{name}"]').inner_text()


@pytest.mark.parametrize("name", FIGURES)
def test_page_and_widget_hold_the_same_figure(name: str) -> None:
    figure: InteractiveFigure = FIGURES[name]
    html, state = figure.to_html(), figure.get_state()
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "") and "https://" not in html
    assert json.loads(json.dumps(state["frames"])) == figure.frames
    assert "export default figure(" in state["_esm"] and "simulated" in figure.frames["title"]
    assert figure.payload_bytes < 200_000


def test_a_whole_scan_fits_into_a_page() -> None:
    rng = np.random.default_rng(0)
    image, values = rng.uniform(0, 1, (2, 75, 80, 66)).astype(np.float32)  # a brain's box of random voxels: the worst
    full = np.ones(image.shape, dtype=bool)
    scan = type(SCAN)("s", "simulated-t2", "T2", image, full, ~full, np.diag([2.0, 2, 2, 1]))
    assert view_volume(scan, values).payload_bytes < PAGE_BYTES / 2


def test_a_map_in_other_units_keeps_its_scale_and_says_its_unit() -> None:
    frames = view_volume(SCAN, 40 * MAP, 6.0, "healthy standard deviations").frames
    assert frames["limit"] >= 40 * MAP.max() and frames["unit"] == "healthy standard deviations"
    assert frames["threshold"] == pytest.approx(6.0 / frames["limit"] * 255, abs=1)


def test_noisy_slice_is_the_schedulers() -> None:
    figure = FIGURES["forward"]
    clean = torch.from_numpy(SCAN.image[6])[None, None] * 2 - 1
    for schedule in SCHEDULES:
        for kind, field in FIELDS.items():
            noise = field.clamp(-4, 127 / 32)[None, None]
            theirs = make_scheduler(schedule).add_noise(clean, noise, torch.tensor([700]))[0, 0].numpy()
            # Steps of 1/32 in the noise and of 1/255 in the slice.
            np.testing.assert_allclose(mirrors.noisy(figure, 700, kind, schedule), theirs[::-1, ::-1], atol=0.025)


@pytest.mark.browser
def test_forward_process_in_the_browser(pages: dict[str, Page]) -> None:
    page, figure = pages["forward"], FIGURES["forward"]
    for schedule in SCHEDULES:
        page.locator('[data-control="schedule"]').select_option(schedule)
        for kind in NOISES:
            page.locator('[data-control="noise"]').select_option(kind)
            for timestep in (0, 499, 999):
                move(page, "timestep", timestep)
                expected = mirrors.noisy_levels(figure, timestep, kind, schedule)
                np.testing.assert_array_equal(pixels(page, "noisy")[..., 0], expected)
    press(page, "timestep", "Home", "ArrowRight", "ArrowRight")
    alpha_bar = figure.frames["alpha_bars"]["linear"][2]
    assert page.locator('[data-control="timestep"]').get_attribute("aria-valuetext") == f"2 (ᾱ = {alpha_bar:.3f})"
    assert f"{100 * alpha_bar:.1f} %" in said(page, "forward")
    marked = page.locator('[data-chart="alpha_bar"] .point')
    assert float(marked.get_attribute("data-y")) == pytest.approx(alpha_bar)


@pytest.mark.browser
@pytest.mark.parametrize(("box", "stride"), [(32, 32), (16, 16), (16, 8), (12, 12), (20, 12), (8, 4)])
def test_boxes_in_the_browser(box: int, stride: int, pages: dict[str, Page]) -> None:
    page, figure = pages["boxes"], FIGURES["boxes"]
    move(page, "box", 32)
    move(page, "stride", stride)
    move(page, "box", box)
    grid, coverage = BoxGrid(SIZE, box, stride), mirrors.coverage(figure, box, stride)
    np.testing.assert_array_equal(pixels(page, "stitched")[..., 0], mirrors.stitched(figure, box, stride))
    palette = unpack(figure.frames["palette"], (256, 3))
    levels = np.floor(coverage / coverage.max() * 255 + 0.5).astype(int)
    np.testing.assert_array_equal(pixels(page, "coverage"), palette[levels])
    assert said(page, "boxes").startswith(f"{len(grid)} box")
    point(page, "coverage", column=11, row=21)
    row, column = SIZE - 1 - 21, SIZE - 1 - 11
    top, left = grid.boxes[:, 0], grid.boxes[:, 1]
    over = ((top <= row) & (row < top + box) & (left <= column) & (column < left + box)).nonzero()[:, 0].tolist()
    assert len(over) == coverage[21, 11] and f"Pixel ({row}, {column}) lies in {len(over)} box" in said(page, "boxes")
    assert f"box {over[0]} at ({top[over[0]]}, {left[over[0]]}): weight 1/{len(over)}" in said(page, "boxes")


@pytest.mark.browser
def test_boxes_by_keyboard(pages: dict[str, Page]) -> None:
    page = pages["boxes"]
    move(page, "box", 32)
    press(page, "stride", "End")
    press(page, "box", "Home")
    assert page.locator('[data-control="stride"]').input_value() == "8", "a larger stride would leave gaps"
    move(page, "row", 5)
    press(page, "row", "ArrowRight")
    press(page, "column", "Home")
    assert "Pixel (6, 0) lies in 1 box;" in said(page, "boxes")


@pytest.mark.browser
@pytest.mark.parametrize("level", [0, 60, 130, 254])
def test_thresholds_in_the_browser(level: int, pages: dict[str, Page]) -> None:
    page, figure = pages["thresholds"], FIGURES["thresholds"]
    limit = figure.frames["limit"]
    levels = to_levels(MAP, limit)
    move(page, "threshold", level)
    words = page.locator('[data-value="volume"]').inner_text()
    curve = precision_recall(levels, SCAN.lesion_mask)
    reached = np.flatnonzero(curve.values > level)
    assert f"Dice {dice(levels > level, SCAN.lesion_mask):.3f} (best" in words
    best = max(dice(levels > k, SCAN.lesion_mask) for k in range(256))
    assert f"best possible: {best:.3f} " in words
    assert f"AUPRC {average_precision(MAP, SCAN.lesion_mask):.3f}" in words
    marked = page.locator('[data-chart="precision-recall"] .point')
    if reached.size:
        found = levels > level
        assert float(marked.get_attribute("data-x")) == pytest.approx(curve.recall[reached[-1]])
        assert float(marked.get_attribute("data-y")) == pytest.approx((found & SCAN.lesion_mask).sum() / found.sum())
    for place, index in enumerate(figure.frames["slices"]):
        move(page, "slice", place)
        colours = pixels(page, "mask")
        grey = (colours[..., 0] == colours[..., 1]) & (colours[..., 1] == colours[..., 2])
        found, lesion = mirrors.found(figure, index, level), SCAN.lesion_mask[index][::-1, ::-1]
        np.testing.assert_array_equal(~grey, found | lesion)
        for mask, name in ((found & lesion, "hit"), (found & ~lesion, "false_alarm"), (~found & lesion, "miss")):
            tint = np.frombuffer(bytes.fromhex(figure.frames["colours"][name][1:]), np.uint8)
            image = to_levels(SCAN.image[index], 1.0)[::-1, ::-1][mask][:, None]
            np.testing.assert_array_equal(colours[mask], np.floor(0.35 * image + 0.65 * tint + 0.5))
        own = dice(found[None], lesion[None])
        text = page.locator('[data-value="slice"]').inner_text()
        assert text == (
            f"No lesion in this slice, {found.sum()} voxels found."
            if np.isnan(own)
            else f"Dice of this slice {own:.3f}."
        )


@pytest.mark.browser
def test_volume_in_the_browser(pages: dict[str, Page]) -> None:
    page, figure = pages["volume"], FIGURES["volume"]
    size = figure.frames["size"]
    move(page, "z", 5)
    press(page, "opacity", "Home", *["ArrowRight"] * 40)
    move(page, "threshold", 60)
    point(page, "axial", column=7, row=11)  # sets the other two planes
    place = {"axial": 5, "coronal": size[1] - 1 - 11, "sagittal": size[2] - 1 - 7}
    for view, where in place.items():
        np.testing.assert_array_equal(pixels(page, view), mirrors.plane(figure, view, where, 60, 0.4))
    z, y, x = place.values()
    box = np.argwhere(SCAN.brain_mask).min(axis=0)
    corner = SCAN.affine @ (x + box[2], y + box[1], z + box[0], 1)
    value = to_levels(MAP, figure.frames["limit"])[z + box[0], y + box[1], x + box[2]] * figure.frames["limit"] / 255
    assert said(page, "volume").startswith(f"At x = {corner[0]:.0f}, y = {corner[1]:.0f}, z = {corner[2]:.0f} mm")
    assert f"anomaly map {value:.3f}" in said(page, "volume")
    point(page, "coronal", column=3, row=2)
    np.testing.assert_array_equal(pixels(page, "axial"), mirrors.plane(figure, "axial", size[0] - 1 - 2, 60, 0.4))
    press(page, "x", "Home")
    np.testing.assert_array_equal(pixels(page, "sagittal"), mirrors.plane(figure, "sagittal", 0, 60, 0.4))


@pytest.mark.browser
def test_components_in_the_browser(pages: dict[str, Page]) -> None:
    page, figure = pages["components"], FIGURES["components"]
    palette, limit = unpack(figure.frames["palette"], (256, 3)), figure.frames["limit"]
    for place, (count, plane) in enumerate(REBUILT.items()):
        move(page, "components", place)
        np.testing.assert_array_equal(pixels(page, "rebuilt")[..., 0], to_levels(plane, 1.0)[::-1, ::-1])
        levels = mirrors.residual(figure, count)
        np.testing.assert_array_equal(pixels(page, "residual"), palette[levels])
        exact = np.minimum(np.abs(SCAN.image[6] - plane)[::-1, ::-1] / limit, 1) * 255
        assert np.abs(levels - exact).max() <= 1 / limit + 0.5, "two roundings to 1/255, scaled to the limit"
        marked = page.locator('[data-chart="shares"] .point')
        assert float(marked.get_attribute("data-y")) == SHARES[1][place]
    press(page, "components", "Home", "ArrowRight")
    assert page.locator('[data-control="components"]').get_attribute("aria-valuetext") == "4"
    assert said(page, "components") == (
        "K = 4: 50 % of the healthy twin is missed, 25 % of the lesion's change is copied."
    )


def test_of_a_training_mean_losses_and_errors_are_told() -> None:
    figure = FIGURES["training"]
    assert np.isnan(mirrors.mean_loss(figure, "ddpm", 0))
    assert mirrors.mean_loss(figure, "ddpm", 3) == pytest.approx(LOSSES[:3].mean(), abs=1e-4)
    assert mirrors.mean_loss(figure, "pddpm", 12) == pytest.approx(LOSSES[2:].mean() / 2, abs=1e-4), "the last ten"
    healthy = SCAN.brain_mask[6] & ~SCAN.lesion_mask[6]
    exact = np.abs(SCAN.image[6] - FILMS["pddpm"].rebuilt[1, 0])[healthy].mean()
    assert mirrors.error_in_healthy_brain(figure, "pddpm", 3, 6) == pytest.approx(exact, abs=1 / 255)


@pytest.mark.browser
def test_training_in_the_browser(pages: dict[str, Page]) -> None:
    page, figure = pages["training"], FIGURES["training"]
    palette, limit = unpack(figure.frames["palette"], (256, 3)), figure.frames["limit"]
    for place, index in enumerate(figure.frames["slices"]):
        move(page, "slice", place)
        for moment, step in enumerate(STEPS):
            move(page, "step", moment)
            words = said(page, "training")
            assert words.startswith(f"{step} steps. ")
            for name in FILMS:
                rebuilt = mirrors.rebuilt_slice(figure, name, step, index)
                np.testing.assert_array_equal(pixels(page, f"{name}-rebuilt")[..., 0], rebuilt)
                away = np.abs(to_levels(SCAN.image[index], 1.0)[::-1, ::-1].astype(float) - rebuilt) / 255
                np.testing.assert_array_equal(pixels(page, f"{name}-residual"), palette[to_levels(away, limit)])
                loss = f"{mirrors.mean_loss(figure, name, step):.4f}" if step else "not begun"
                error = mirrors.error_in_healthy_brain(figure, name, step, index)
                assert f"loss {loss}, error in healthy brain {error:.3f}" in words
    assert page.locator('[data-chart="losses"] .series').count() == len(FILMS)
    assert page.locator('[data-control="train"]').count() == 0, "there is no kernel"


@pytest.mark.browser
def test_the_film_of_a_training_plays(pages: dict[str, Page]) -> None:
    page = pages["training"]
    press(page, "step", "End")
    press(page, "play", "Enter")
    assert page.locator('[data-control="play"]').inner_text() == "Pause the film"
    assert said(page, "training").startswith("0 steps."), "from the start again"
    page.wait_for_function("() => document.querySelector('[data-control=step]').value === '1'")
    press(page, "play", "Enter")
    page.wait_for_timeout(1000)
    assert page.locator('[data-control="step"]').input_value() == "1", "paused"
    press(page, "play", "Enter")
    page.wait_for_function("() => document.querySelector('[data-control=play]').textContent === 'Play the film'")
    assert said(page, "training").startswith("12 steps."), "it stops at the end"


@pytest.mark.browser
@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 1000), ("light", 390), ("dark", 320)])
@pytest.mark.parametrize("name", FIGURES)
def test_everyone_can_use_it(name: str, theme: str, width: int, browser: Browser) -> None:
    viewport = {"width": width, "height": 800}
    page = open_page(browser, FIGURES[name].to_html(), viewport=viewport, color_scheme=theme, has_touch=width < 500)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    ground = page.locator(".pddm-figure").evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 25, 31)"}[theme]
    assert axe_findings(page) == []
    for control in page.locator("input[type=range]").all():
        assert control.get_attribute("aria-valuetext") and control.evaluate("c => c.labels.length") == 1
    for picture in page.locator("canvas[data-panel], svg[data-chart]").all():
        assert picture.get_attribute("role") == "img" and picture.get_attribute("aria-label")
    page.emulate_media(media="print", color_scheme=theme)
    ground = page.locator(".pddm-figure").evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground == "rgb(255, 255, 255)", "paper is white"
    assert page.troubles == []
    page.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: explore_forward(SCAN, ALPHA_BARS, FIELDS, 16),
        lambda: explore_forward(SCAN, ALPHA_BARS, FIELDS, timestep=1000),
        lambda: explore_forward(SCAN, {}, FIELDS),
        lambda: explore_forward(SCAN, ALPHA_BARS | {"short": [1, 0.5]}, FIELDS),
        lambda: explore_forward(SCAN, ALPHA_BARS, {"gaussian": np.zeros((3, 3))}),
        lambda: explore_boxes(SCAN, -1),
        lambda: explore_boxes(SCAN, box_size=15, stride=15),
        lambda: explore_boxes(SCAN, box_size=16, stride=20),
        lambda: explore_thresholds(SCAN, MAP[1:]),
        lambda: explore_thresholds(SCAN, MAP + 1),
        lambda: explore_thresholds(SCAN, MAP, slice_indices=[99]),
        lambda: view_volume(SCAN, MAP[1:]),
        lambda: view_volume(SCAN, -MAP),
        lambda: explore_components(SCAN, {}, [], []),
        lambda: explore_components(SCAN, dict(reversed(REBUILT.items())), *SHARES),
        lambda: explore_components(SCAN, {4: SCAN.image}, [0.1], [0.1]),
        lambda: explore_components(SCAN, REBUILT, SHARES[0], [0.0, 0.5]),
        lambda: explore_components(SCAN, REBUILT, SHARES[0], [0.0, 0.5, 1.5]),
        lambda: explore_components(SCAN, REBUILT, *SHARES, slice_index=16),
        lambda: explore_training(SCAN, [6, 9], STEPS, {}),
        lambda: explore_training(SCAN, [6, 16], STEPS, FILMS),
        lambda: explore_training(SCAN, [6], STEPS, FILMS),
        lambda: explore_training(SCAN, [6, 9], [0, 12, 3], FILMS),
        lambda: explore_training(SCAN, [6, 9], [1, 3, 12], FILMS),
        lambda: FIGURES["training"].train(6, {"ddpm": 32, "pddpm": 16}),
    ],
)
def test_bad_input_is_an_error(make) -> None:
    with pytest.raises(InputError):
        make()
