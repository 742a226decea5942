"""The interactive comparison: what Python packs, and what a real browser makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from barriers import axe_findings
from browser import open_browser
from figure_page import ALPHA_BARS, DEPTH, SIZE, move, open_page, pixels, point, press, small_methods, small_scan
from mirrors import slice_dice
from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.methods.registry import METHOD_COLOURS, METHOD_NAMES
from pddm_utils.show.widgets.comparison import Comparison, Reconstruct, compare, compare_scans
from pddm_utils.show.widgets.packing import pack, slices_to_show, to_levels, unpack

TIMESTEPS = (249, 818)
THRESHOLDS = {"ddpm": 0.05, "pddpm": 0.08}
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return small_scan()


@pytest.fixture(scope="module")
def methods() -> dict[str, Reconstruct]:
    return small_methods()


@pytest.fixture(scope="module")
def comparison(scan: Scan, methods: dict[str, Reconstruct]) -> Comparison:
    return compare(scan, methods, ALPHA_BARS, TIMESTEPS, [4, 6, 12], THRESHOLDS, start_timestep=818)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=300))
def test_packing_keeps_every_value(values: list[int]) -> None:
    array = np.array(values, dtype=np.uint8)
    np.testing.assert_array_equal(unpack(pack(array), array.shape), array)


def test_levels_round_half_up_and_clip() -> None:
    assert to_levels(np.array([0.0, 0.5 / 255, 0.5, 1.0, 7.0]), 1.0).tolist() == [0, 1, 128, 255, 255]


def test_slices_surround_the_lesion(scan: Scan) -> None:
    assert slices_to_show(scan, 3, 2) == [4, 6, 8]
    assert slices_to_show(scan, 100, 1) == list(range(DEPTH))
    healthy = replace(scan, lesion_mask=np.zeros_like(scan.lesion_mask))
    assert slices_to_show(healthy, 1) == [8]
    with pytest.raises(InputError, match="at least 1"):
        slices_to_show(scan, 0)


def test_frames_hold_what_the_pipeline_gives(comparison: Comparison, scan: Scan, methods: dict) -> None:
    near = [2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14]
    rebuilt = methods["pddpm"](scan.image[near], scan.brain_mask[near], 818)
    shown = comparison.reconstruction("pddpm", 6, 818)
    np.testing.assert_array_equal(shown, to_levels(rebuilt[near.index(6)], 1.0)[::-1, ::-1])
    np.testing.assert_array_equal(comparison.plane("image", 12), to_levels(scan.image[12], 1.0)[::-1, ::-1])
    np.testing.assert_array_equal(comparison.plane("lesion", 6) > 0, scan.lesion_mask[6][::-1, ::-1])


@pytest.mark.parametrize("index", [0, 4, 15])
def test_maps_are_those_of_the_whole_volume(index: int, scan: Scan) -> None:
    volume = np.random.default_rng(1).uniform(0, 1, scan.image.shape).astype(np.float32)

    def recorded(image: np.ndarray, *_: object) -> np.ndarray:
        first = next(k for k in range(DEPTH) if np.array_equal(scan.image[k], image[0]))
        return volume[first : first + len(image)]

    shown = compare(scan, {"ddpm": recorded}, ALPHA_BARS, [499], [index])
    full = anomaly_map(scan.image, volume, scan.brain_mask)[index]
    levels = to_levels(full, shown.frames["limit"])[::-1, ::-1]
    np.testing.assert_array_equal(shown.levels("ddpm", index, 499), levels)


def test_dice_of_a_slice(comparison: Comparison) -> None:
    [level] = [one["threshold"] for one in comparison.frames["methods"] if one["name"] == "ddpm"]
    assert level == to_levels(np.float64(0.05), comparison.frames["limit"])
    found, lesion = comparison.levels("ddpm", 6, 818) > level, comparison.plane("lesion", 6) > 0
    dice = 2 * (found & lesion).sum() / (found.sum() + lesion.sum())
    assert slice_dice(comparison, "ddpm", 6, 818, level, "map") == dice
    assert slice_dice(comparison, "ddpm", 6, 818, 255, "map") == 0
    assert np.isnan(slice_dice(comparison, "ddpm", 12, 818, level, "map"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timesteps": []}, "at least one"),
        ({"timesteps": [1000]}, "0 to 999"),
        ({"slice_indices": [-1]}, "0 to 15"),
        ({"slice_indices": [16]}, "0 to 15"),
        ({"thresholds": {"ddpm": 0.1}}, "pass those of"),
        ({"start_timestep": 5}, "not among"),
        ({"methods": {}}, "at least one method"),
    ],
)
def test_what_cannot_be_compared_is_an_error(wrong: dict, message: str, scan: Scan, methods: dict) -> None:
    good = {
        "methods": methods,
        "alpha_bars": ALPHA_BARS,
        "timesteps": [499],
        "slice_indices": [4],
        "thresholds": THRESHOLDS,
    }
    with pytest.raises(InputError, match=message):
        compare(scan, **(good | wrong))


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.levels("unet", 6, 818),
        lambda c: c.levels("ddpm", 5, 818),
        lambda c: c.levels("ddpm", 6, 499),
        lambda c: c.levels("ddpm", 6, 818, "noise"),
    ],
)
def test_asking_for_what_is_not_there_is_an_error(ask, comparison: Comparison) -> None:
    with pytest.raises(InputError):
        ask(comparison)


def test_a_notebook_gets_the_widget_and_the_page(comparison: Comparison) -> None:
    data, _ = comparison._repr_mimebundle_()
    assert data[WIDGET]["model_id"] == comparison.model_id
    page, again = data["text/html"], comparison.to_html()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert page.split("\n")[0] != again.split("\n")[0], "two copies on a page need different ids"
    assert comparison.payload_bytes == len(again.encode())
    state = comparison.get_state()
    assert state["frames"] == comparison.frames and "export default" in str(state["_esm"])
    assert json.loads(json.dumps(comparison.frames)) == comparison.frames


def test_a_page_survives_any_text(comparison: Comparison) -> None:
    odd = Comparison(frames=comparison.frames | {"title": "</script><!-- <script> {x} \u2028"})
    assert odd.to_html().count("<script") == 1 and odd.to_html().count("</script>") == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(browser: Browser, comparison: Comparison) -> Iterator[Page]:
    opened = open_page(browser, comparison.to_html())
    opened.locator('[data-control="root"]').uncheck()
    yield opened
    assert opened.troubles == []
    opened.close()


def palette(comparison: Comparison) -> np.ndarray:
    return unpack(comparison.frames["palette"], (256, 3))


@pytest.mark.browser
@pytest.mark.parametrize("source", ["map", "residual"])
@pytest.mark.parametrize(("place", "index"), [(0, 4), (1, 6), (2, 12)])
def test_browser_shows_what_python_computes(
    place: int, index: int, source: str, page: Page, comparison: Comparison
) -> None:
    page.locator(f'[data-control="{source}"]').check()
    page.locator('[data-control="overlay"]').uncheck()
    move(page, "slice", place)
    for time, timestep in enumerate(TIMESTEPS):
        move(page, "timestep", time)
        image = comparison.plane("image", index)
        np.testing.assert_array_equal(pixels(page, "image"), image[..., None].repeat(3, -1))
        np.testing.assert_array_equal(pixels(page, "lesion")[..., 0], comparison.plane("lesion", index) * 255)
        for name in THRESHOLDS:
            rebuilt = comparison.reconstruction(name, index, timestep)
            np.testing.assert_array_equal(pixels(page, f"{name}-reconstruction")[..., 0], rebuilt)
            levels = comparison.levels(name, index, timestep, source)
            np.testing.assert_array_equal(pixels(page, f"{name}-residual"), palette(comparison)[levels])
            np.testing.assert_array_equal(pixels(page, f"{name}-found")[..., 0], image)


@pytest.mark.browser
@pytest.mark.parametrize("level", [0, 13, 80, 255])
@pytest.mark.parametrize("source", ["map", "residual"])
def test_browser_dice_equals_python(level: int, source: str, page: Page, comparison: Comparison) -> None:
    page.locator(f'[data-control="{source}"]').check()
    page.locator('[data-control="overlay"]').check()
    move(page, "slice", 1)
    move(page, "timestep", 1)
    for name in THRESHOLDS:
        move(page, f"{name}-threshold", level)
        words = page.locator(f'[data-dice="{name}"]').inner_text().split()
        expected = slice_dice(comparison, name, 6, 818, level, source)
        assert float(words[1]) == pytest.approx(expected, abs=6e-4)
        best = max(slice_dice(comparison, name, 6, 818, k, source) for k in range(256))
        assert float(words[words.index("possible:") + 1]) == pytest.approx(best, abs=6e-4)
        marked = pixels(page, f"{name}-found")[..., 0] != pixels(page, f"{name}-found")[..., 2]
        np.testing.assert_array_equal(marked, comparison.levels(name, 6, 818, source) > level)


@pytest.mark.browser
def test_a_slice_without_lesion_says_so(page: Page) -> None:
    move(page, "slice", 2)
    assert page.locator('[data-dice="ddpm"]').inner_text().startswith("no lesion in this slice")
    assert page.locator("svg path").count() == 0


@pytest.mark.browser
def test_outline_can_be_switched(page: Page) -> None:
    move(page, "slice", 1)
    page.locator('[data-control="outline"]').check()
    assert page.locator('[data-panel="image"] + svg path').count() == 2
    page.locator('[data-control="outline"]').uncheck()
    assert page.locator("svg path").count() == 0


@pytest.mark.browser
def test_keyboard_and_names(page: Page, comparison: Comparison) -> None:
    slice_control = page.get_by_label("slice", exact=True)
    move(page, "slice", 0)
    slice_control.focus()
    page.keyboard.press("ArrowRight")
    assert slice_control.input_value() == "1"
    assert slice_control.get_attribute("aria-valuetext") == "6 (z = 12 mm)"
    page.get_by_label("noise level ttest").focus()
    page.keyboard.press("End")
    shown = page.get_by_label("noise level ttest").get_attribute("aria-valuetext")
    alpha_bar = float(ALPHA_BARS[818])
    assert shown == f"818 (ᾱ = {alpha_bar:.3f})"
    for name, label in METHOD_NAMES.items():
        if name in THRESHOLDS:
            assert page.get_by_label(f"threshold, {label}").count() == 1
            assert page.get_by_role("group", name=label).count() == 1
    for canvas in page.locator("canvas[data-panel]").all():
        assert canvas.get_attribute("role") == "img" and "slice 6" in canvas.get_attribute("aria-label")
    assert page.locator("[role=status][aria-live=polite]").count() == 2


@pytest.mark.browser
def test_wipe_shows_the_scan_beside_the_reconstruction(page: Page, comparison: Comparison) -> None:
    move(page, "slice", 1)
    move(page, "timestep", 1)
    press(page, "wipe", "Home", *["ArrowRight"] * 5)
    scan, rebuilt = comparison.plane("image", 6), comparison.reconstruction("ddpm", 6, 818)
    expected = np.where(np.arange(SIZE) < 5, scan, rebuilt)
    np.testing.assert_array_equal(pixels(page, "ddpm-reconstruction")[..., 0], expected)
    point(page, "pddpm-reconstruction", column=19, row=4)
    assert page.get_by_label("wipe the scan over the reconstruction").get_attribute("aria-valuetext") == "63 %"
    expected = np.where(np.arange(SIZE) < 20, scan, rebuilt)
    np.testing.assert_array_equal(pixels(page, "ddpm-reconstruction")[..., 0], expected)
    press(page, "wipe", "Home")
    np.testing.assert_array_equal(pixels(page, "ddpm-reconstruction")[..., 0], rebuilt)


@pytest.mark.browser
def test_what_is_found_can_have_the_colours_of_the_map(page: Page, comparison: Comparison) -> None:
    page.locator('[data-control="map"]').check()
    page.locator('[data-control="overlay"]').check()
    page.locator('[data-control="heat"]').check()
    move(page, "slice", 1)
    move(page, "pddpm-threshold", 20)
    image, levels = comparison.plane("image", 6)[..., None], comparison.levels("pddpm", 6, 818)
    mixed = np.floor(0.35 * image + 0.65 * palette(comparison)[levels] + 0.5)
    expected = np.where(levels[..., None] > 20, mixed, image)
    np.testing.assert_array_equal(pixels(page, "pddpm-found"), expected)
    page.locator('[data-control="heat"]').uncheck()


@pytest.mark.browser
def test_colours_by_the_square_root_show_what_is_small(page: Page, comparison: Comparison) -> None:
    page.locator('[data-control="root"]').check()
    move(page, "slice", 1)
    move(page, "timestep", 0)
    levels = comparison.levels("ddpm", 6, TIMESTEPS[0])
    rooted = np.floor(np.sqrt(levels * 255.0) + 0.5).astype(int)
    np.testing.assert_array_equal(pixels(page, "ddpm-residual"), palette(comparison)[rooted])
    page.locator('[data-control="root"]').uncheck()


@pytest.mark.browser
def test_a_scan_is_chosen_from_several(browser: Browser, scan: Scan, methods: dict, comparison: Comparison) -> None:
    other = compare(replace(scan, subject="s2"), {"pddpm": methods["pddpm"]}, ALPHA_BARS, [499], [12])
    both = compare_scans("Two scans", {"tumour": comparison, "no lesion": other})
    page = open_page(browser, both.to_html(), viewport={"width": 390, "height": 800})
    assert page.locator(".title").inner_text() == "Two scans"
    np.testing.assert_array_equal(pixels(page, "lesion")[..., 0], comparison.plane("lesion", 6) * 255)
    page.locator('[data-control="scan"]').select_option("no lesion (simulated-t2-tumour, s2)")
    np.testing.assert_array_equal(pixels(page, "image")[..., 0], other.plane("image", 12))
    assert page.locator('[data-panel^="ddpm"]').count() == 0 and page.locator('[data-control="run"]').count() == 0
    np.testing.assert_array_equal(pixels(page, "pddpm-reconstruction")[..., 0], other.reconstruction("pddpm", 12, 499))
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390 and axe_findings(page) == []
    assert page.troubles == []
    page.close()
    with pytest.raises(InputError):
        compare_scans("None", {})


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_looks(width: int, theme: str, browser: Browser, comparison: Comparison) -> None:
    both = comparison.to_html() + comparison.to_html()
    page = open_page(browser, both, viewport={"width": width, "height": 800}, color_scheme=theme)
    page.locator("[data-ready]").nth(1).wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    ink, ground = page.locator(".pddm-comparison").first.evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    )
    assert (ink, ground) == {
        "light": ("rgb(31, 35, 40)", "rgb(255, 255, 255)"),
        "dark": ("rgb(230, 232, 235)", "rgb(21, 25, 31)"),
    }[theme]
    page.evaluate("() => { document.documentElement.dataset.theme = 'light' }")
    widget = page.locator(".pddm-comparison").first
    assert widget.evaluate("e => getComputedStyle(e).color") == "rgb(31, 35, 40)"
    line = widget.get_by_role("group", name=METHOD_NAMES["pddpm"])
    colour = "rgb({}, {}, {})".format(*bytes.fromhex(METHOD_COLOURS["pddpm"][1:]))
    assert line.evaluate("e => getComputedStyle(e).borderLeftColor") == colour
    assert page.troubles == []
    page.close()


@pytest.mark.browser
def test_module_follows_the_anywidget_contract(browser: Browser, comparison: Comparison) -> None:
    source, frames = json.dumps(str(comparison._esm)), json.dumps(comparison.frames)
    page = open_page(
        browser,
        f"""<div id="el"></div><script type="module">
        const source = new Blob([{source}], {{type: "text/javascript"}});
        const module = await import(URL.createObjectURL(source));
        const state = {{ frames: {frames} }}, listeners = {{}};
        const model = {{ get: (name) => state[name], on: (name, f) => (listeners[name] = f),
                         off: (name) => delete listeners[name] }};
        const cleanup = await module.default.render({{ model, el: document.getElementById("el") }});
        window.probe = {{ module, state, listeners, cleanup }};
    </script>""",
    )
    assert page.evaluate("() => Object.keys(probe.module)") == ["default"]
    assert page.evaluate("() => Object.keys(probe.module.default)") == ["render"]
    page.evaluate(
        "() => { probe.state.frames = {...probe.state.frames, title: 'other'};"
        " return probe.listeners['change:frames']() }"
    )
    assert page.locator(".title").inner_text() == "other"
    page.evaluate("() => probe.cleanup()")
    assert page.evaluate("() => Object.keys(probe.listeners)") == []
    assert page.troubles == []
    page.close()
