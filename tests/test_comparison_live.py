"""The comparison with a kernel at hand: a message asks for a slice and a noise level, the models run, frames come."""

from __future__ import annotations

import json

import numpy as np
import pytest

from barriers import axe_findings
from browser import open_browser
from figure_page import ALPHA_BARS, SIZE, move, open_live, pixels, small_methods, small_pipelines, small_scan
from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.show.widgets.comparison import Comparison, compare
from pddm_utils.show.widgets.packing import to_levels, unpack


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(small_scan(), small_methods(), ALPHA_BARS, [249, 818], [4, 6])


class Sent(list):
    """Collects what a widget sends to its front end."""

    def __call__(self, content: dict, buffers: object = None) -> None:
        self.append(content)


def test_a_message_runs_the_models(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent()
    monkeypatch.setattr(comparison, "send", sent)
    comparison._handle_custom_msg({"kind": "run", "slice": 6, "timestep": 818}, [])
    view = sent[0]["view"]
    assert sent[0]["kind"] == "ran" and (view["slice"], view["timestep"], view["height_mm"]) == (6, 818, 12)
    scan, near = small_scan(), slice(4, 9)
    for facts, name in zip(view["methods"], ("ddpm", "pddpm"), strict=True):
        rebuilt, levels = (unpack(facts[key], (SIZE, SIZE)) for key in ("reconstruction", "map"))
        volume = small_pipelines()[name].reconstruct_volume(scan.image[near], scan.brain_mask[near], 818, seed=0)
        np.testing.assert_array_equal(rebuilt, to_levels(volume[2], 1.0)[::-1, ::-1])
        expected = anomaly_map(scan.image[near], volume, scan.brain_mask[near])[2]
        np.testing.assert_array_equal(levels, to_levels(expected, comparison.frames["limit"])[::-1, ::-1])
    np.testing.assert_array_equal(unpack(view["image"], (SIZE, SIZE)), comparison.plane("image", 6))
    assert json.loads(json.dumps(view)) == view


def test_a_message_with_a_wrong_slice_is_answered(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent()
    monkeypatch.setattr(comparison, "send", sent)
    comparison._handle_custom_msg({"kind": "run", "slice": 99, "timestep": 818}, [])
    comparison._handle_custom_msg({"kind": "other"}, [])
    assert len(sent) == 1 and sent[0]["kind"] == "failed" and "0 to 15" in sent[0]["message"]


def test_without_models_nothing_can_run(comparison: Comparison) -> None:
    copy = Comparison(frames=comparison.frames)
    assert comparison.live and not copy.live
    with pytest.raises(InputError, match="holds no models"):
        copy.run(6, 818)


@pytest.mark.browser
def test_reader_can_run_the_models_where_a_kernel_is(comparison: Comparison) -> None:
    with open_browser() as browser:
        page = open_live(browser, comparison)
        page.get_by_label("slice", exact=True).nth(1).fill("9")
        page.get_by_label("t", exact=True).fill("300")
        button = page.get_by_role("button", name="Run the models")
        button.click()
        assert button.is_disabled() and page.locator('[data-say="run"]').inner_text() == "running …"
        assert page.evaluate("() => probe.sent") == [{"kind": "run", "slice": 9, "timestep": 300}]
        answer = comparison.run(9, 300)
        page.evaluate("view => probe.listeners['msg:custom']({ kind: 'ran', view })", answer)
        assert button.is_enabled()
        expected = unpack(answer["methods"][0]["reconstruction"], (SIZE, SIZE))
        np.testing.assert_array_equal(pixels(page, "ddpm-reconstruction")[..., 0], expected)
        assert "slice 9" in page.locator('[data-panel="image"]').get_attribute("aria-label")
        move(page, "slice", 0)
        np.testing.assert_array_equal(pixels(page, "image")[..., 0], comparison.plane("image", 4))
        button.click()
        page.evaluate("() => probe.listeners['msg:custom']({ kind: 'failed', message: 'no such slice' })")
        assert button.is_enabled() and page.locator('[data-say="run"]').inner_text() == "no such slice"
        assert axe_findings(page) == []
        page.evaluate("() => probe.cleanup()")
        assert page.evaluate("() => Object.keys(probe.listeners)") == []
        assert page.troubles == []
        page.close()
