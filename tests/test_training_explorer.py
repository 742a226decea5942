"""The figure of a training with a kernel at hand: messages ask for steps, the models learn, losses and slices come."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from barriers import axe_findings
from browser import open_browser
from figure_page import SIZE, move, open_live, pixels, small_pipelines, small_scan
from mirrors import error_in_healthy_brain, mean_loss
from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import results_root
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.show.widgets.packing import to_levels, unpack
from pddm_utils.show.widgets.training_explorer import Film, TrainingExplorer, explore_training

SCAN, SLICES = small_scan(), [6, 9]
BOXES = {"ddpm": SIZE, "pddpm": SIZE // 2}


class Learner:
    """Two small networks that really learn one slice."""

    def __init__(self) -> None:
        self.pipelines = small_pipelines()
        self.optimizers = {name: torch.optim.Adam(p.unet.parameters(), 1e-2) for name, p in self.pipelines.items()}
        self.boxes: list[int] = []

    def go_on(self, name: str, box: int, slice_index: int, steps: int) -> tuple[list[float], np.ndarray]:
        image = torch.from_numpy(SCAN.image[[slice_index]])[:, None]
        losses = []
        for _ in range(steps):
            error = (self.pipelines[name].unet(image * 0, 499).sample - (image * 2 - 1)).abs().mean()
            self.optimizers[name].zero_grad()
            error.backward()
            self.optimizers[name].step()
            losses.append(error.item())
        self.boxes.append(box)
        output = self.pipelines[name](image, timestep=499, boxes=BoxGrid(SIZE, box), seed=0)
        return losses, output.reconstruction[0, 0].numpy()


@pytest.fixture
def learner() -> Learner:
    return Learner()


@pytest.fixture
def figure(learner: Learner) -> TrainingExplorer:
    films = {name: Film(box, [], SCAN.image[None, SLICES] * 0) for name, box in BOXES.items()}
    frames = explore_training(SCAN, SLICES, [0], films).frames
    for one in frames["learners"]:
        one["begun"] = [0.5, 0.4]
    return TrainingExplorer(learner.go_on, frames=frames)


def test_a_message_trains_and_shows_the_slice(figure: TrainingExplorer, learner: Learner, monkeypatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(figure, "send", lambda message, buffers=None: sent.append(message))
    wanted = {"kind": "train", "slice": 9, "boxes": {"ddpm": 32, "pddpm": 24}, "steps": 4}
    figure._handle_custom_msg(wanted, [])
    figure._handle_custom_msg(wanted | {"steps": 0}, [])
    trained, rebuilt = (message["view"] for message in sent)
    assert json.loads(json.dumps(trained)) == trained and learner.boxes == [32, 24] * 2
    for before, after in zip(trained["learners"], rebuilt["learners"], strict=True):
        assert len(before["losses"]) == 4 and before["losses"][-1] < before["losses"][0], "it learns"
        assert after == {"losses": [], "rebuilt": before["rebuilt"]}, "without a step the model stays as it is"
    _, plane = learner.go_on("pddpm", 24, 9, 0)
    np.testing.assert_array_equal(
        unpack(trained["learners"][1]["rebuilt"], (SIZE, SIZE)), to_levels(plane, 1.0)[::-1, ::-1]
    )


@pytest.mark.parametrize(
    "wrong", [{"slice": 7}, {"boxes": {"ddpm": 31, "pddpm": 16}}, {"boxes": {"ddpm": 96, "pddpm": 16}}]
)
def test_a_wrong_message_is_answered(figure: TrainingExplorer, learner: Learner, wrong: dict, monkeypatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(figure, "send", lambda message, buffers=None: sent.append(message))
    figure._handle_custom_msg({"kind": "train", "slice": 6, "boxes": BOXES, "steps": 1} | wrong, [])
    figure._handle_custom_msg({"kind": "other"}, [])
    assert [message["kind"] for message in sent] == ["failed"] and learner.boxes == []


def test_a_failure_of_the_models_is_told_and_raised(monkeypatch) -> None:
    films = {"pddpm": Film(16, [], SCAN.image[None, SLICES] * 0)}
    figure = TrainingExplorer(lambda *_: 1 / 0, frames=explore_training(SCAN, SLICES, [0], films).frames)
    sent: list[Any] = []
    monkeypatch.setattr(figure, "send", lambda message, buffers=None: sent.append(message))
    with pytest.raises(ZeroDivisionError):
        figure._answer(None, {"kind": "train", "slice": 6, "boxes": {"pddpm": 16}, "steps": 1}, [])
    assert sent[0]["kind"] == "failed" and "division" in sent[0]["message"]


def test_the_recorded_film_is_whole_and_small() -> None:
    record = json.loads((results_root() / "side_by_side" / "film.json").read_text())
    figure, frames = TrainingExplorer(frames=record["frames"]), record["frames"]
    assert "simulated" in frames["title"] and figure.payload_bytes < 1_500_000
    assert record["steps"] == frames["steps"][-1] and [one["name"] for one in frames["learners"]] == ["ddpm", "pddpm"]
    for name in ("ddpm", "pddpm"):
        assert len(record["scores"][name]) == len(frames["steps"])
        for index in frames["slices"]:
            first, last = (error_in_healthy_brain(figure, name, step, index) for step in (0, record["steps"]))
            assert last < first, "it has learnt"
        assert mean_loss(figure, name, record["steps"]) < 0.3 * mean_loss(figure, name, 1)


def test_without_models_nothing_learns(figure: TrainingExplorer) -> None:
    copy = TrainingExplorer(frames=figure.frames)
    assert figure.live and not copy.live
    with pytest.raises(InputError, match="holds no models"):
        copy.train(6, BOXES)


@pytest.mark.browser
def test_reader_can_train_where_a_kernel_is(figure: TrainingExplorer) -> None:
    with open_browser() as browser:
        page = open_live(browser, figure)

        def asked() -> list[dict]:
            return page.evaluate("() => probe.sent.splice(0)")

        def answer(message: dict) -> dict:
            view = figure.train(message["slice"], message["boxes"], message["steps"])
            page.evaluate("view => probe.listeners['msg:custom']({ kind: 'trained', view })", view)
            return view

        button, told = page.locator('[data-control="train"]'), page.locator('[data-say="training"]')
        page.locator('[data-control="box-pddpm"]').select_option("24")
        button.press("Enter")
        assert button.inner_text() == "Pause"
        [first] = asked()
        assert first == {"kind": "train", "slice": 6, "boxes": {"ddpm": 32, "pddpm": 24}, "steps": 2}
        view = answer(first)
        assert told.inner_text().startswith("Trained just now, 4 steps."), "two before, two just now"
        assert told.get_attribute("aria-live") == "off", "a screen reader is not told of every picture"
        plane = unpack(view["learners"][1]["rebuilt"], (SIZE, SIZE))
        np.testing.assert_array_equal(pixels(page, "pddpm-rebuilt")[..., 0], plane)
        [second] = asked()
        page.locator('[data-control="box-pddpm"]').select_option("16")
        button.press("Enter")  # a pause while the kernel is busy
        answer(second)
        assert button.inner_text() == "Go on training" and asked() == [] and "6 steps" in told.inner_text()
        assert told.get_attribute("aria-live") == "polite"
        move(page, "slice", 1)
        [third] = asked()
        assert third == {"kind": "train", "slice": 9, "boxes": {"ddpm": 32, "pddpm": 16}, "steps": 0}
        answer(third)
        assert "slice 9, after 6 steps" in page.locator('[data-panel="ddpm-rebuilt"]').get_attribute("aria-label")
        button.click()
        asked()
        page.evaluate("() => probe.listeners['msg:custom']({ kind: 'failed', message: 'out of memory' })")
        assert page.locator('[data-say="train"]').inner_text() == "out of memory"
        assert button.inner_text() == "Go on training"
        assert axe_findings(page) == []
        page.evaluate("() => probe.cleanup()")
        assert page.evaluate("() => Object.keys(probe.listeners)") == []
        assert page.troubles == []
        page.close()
