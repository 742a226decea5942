"""Interactive training: losses, and a slice as each model rebuilds it, recorded step by step; with a kernel, live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import traitlets

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.show.figures import method_colour, method_label, slice_height_mm
from pddm_utils.show.style import LESION_COLOUR, radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import (
    check_slices,
    common_limit,
    pack,
    pack_image,
    pack_palette,
    script,
)

# Name of a model, side of its boxes in pixels, a slice of the scan, and a number of steps in; the losses of these
# steps and the slice `(H, W)` in [0, 1] as the model rebuilds it after them out.
GoOn = Callable[[str, int, int, int], tuple[Sequence[float], np.ndarray]]

MEAN_OF = 10  # steps: what is drawn of a loss is a running mean
STEPS_AT_ONCE = 2  # between two pictures of a live training, and so between a click on Pause and the pause
BOX_SIZES = (16, 24, 32, 48, 96)  # pixels: what the reader may choose among, where it fits


class Film(NamedTuple):
    """What was seen of one model while it learnt.

    Attributes:
        box_size: side of its boxes, pixels.
        losses: of every step.
        rebuilt: the shown slices after each recorded step, `(steps, slices, H, W)` in [0, 1].
    """

    box_size: int
    losses: Sequence[float]
    rebuilt: np.ndarray


class TrainingExplorer(InteractiveFigure):
    """Sliders over the steps of a training and over slices; with a kernel the models can go on learning.

    Attributes:
        live: whether a kernel can train the models further (see `train`).

    Args:
        go_on: trains a model further, in this session; the reader can then start and pause it and change the boxes.
            The frames' `begun` are the losses of its models so far.
    """

    _esm = script("training")
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, go_on: GoOn | None = None, **traits: Any) -> None:
        super().__init__(live=go_on is not None, **traits)
        self._go_on = go_on
        self.on_msg(self._answer)

    def train(self, slice_index: int, box_sizes: Mapping[str, int], steps: int = STEPS_AT_ONCE) -> dict[str, Any]:
        """Let every model learn for some steps.

        Args:
            slice_index: one of the shown slices, rebuilt afterwards.
            box_sizes: side of the boxes of each model, pixels.
            steps: how many; 0 only rebuilds.

        Returns:
            JSON-ready: the slice, and for each model the `losses` of these steps and the packed plane `rebuilt`.

        Raises:
            InputError: nothing here can learn, or no such slice or box.
        """
        if self._go_on is None:
            raise InputError("this figure holds no models; give `TrainingExplorer` a `go_on` in this session")
        self._place("slices", slice_index)
        learners = []
        for learner in self.frames["learners"]:
            box = box_sizes[learner["name"]]
            if box not in self.frames["box_sizes"]:
                raise InputError(f"boxes of {box} px; choose among {self.frames['box_sizes']}")
            losses, rebuilt = self._go_on(learner["name"], box, slice_index, steps)
            learners.append({"losses": [round(float(loss), 5) for loss in losses], "rebuilt": pack_image(rebuilt)})
        return {"slice": slice_index, "learners": learners}

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Answer the front end's `train` message."""
        if message.get("kind") == "train":
            self._reply("trained", lambda: self.train(int(message["slice"]), message["boxes"], int(message["steps"])))


def explore_training(
    scan: Scan,
    slice_indices: Sequence[int],
    steps: Sequence[int],
    films: Mapping[str, Film | tuple[int, Sequence[float], np.ndarray]],
) -> TrainingExplorer:
    """Watch models learn: their losses, and slices of one scan as they rebuilt them after some of the steps.

    Args:
        scan: that no model learns from.
        slice_indices: which of its slices are shown.
        steps: after which the films were taken, rising from 0, before the first.
        films: by name of the method; plain tuples will do.

    Raises:
        InputError: no film, films that do not fit to each other or to the scan, or no such slice.

    Example:
        >>> explore_training(scan, [30], [0, 50], {"pddpm": Film(48, losses, rebuilt)})  # doctest: +SKIP
    """
    shown, moments = [int(k) for k in slice_indices], [int(k) for k in steps]
    check_slices(scan, shown)
    height, width = scan.image.shape[1:]
    shape = (len(moments), len(shown), height, width)
    taken = {name: Film(*film) for name, film in films.items()}
    for name, film in taken.items():
        if film.rebuilt.shape != shape or len(film.losses) != moments[-1]:
            raise InputError(
                f"film of {name}: {film.rebuilt.shape}, {len(film.losses)} losses; "
                f"pass rebuilt slices of shape {shape} and {moments[-1]} losses"
            )
    if not films or moments != sorted(set(moments)) or moments[0] != 0:
        raise InputError(f"explore_training: {len(films)} films of steps {moments}; pass one or more, steps from 0 on")
    residuals = np.stack([np.abs(film.rebuilt[-1] - scan.image[shown]) for film in taken.values()])
    healthy = scan.brain_mask[shown] & ~scan.lesion_mask[shown]
    return TrainingExplorer(
        frames={
            "title": f"Training: {scan.dataset}, {scan.subject}",
            "size": [height, width],
            "slices": shown,
            "heights_mm": [slice_height_mm(scan, index) for index in shown],
            "steps": moments,
            "start": [int(scan.lesion_mask[shown].sum(axis=(1, 2)).argmax()), len(moments) - 1],
            "limit": common_limit(float(np.percentile(residuals, 99.5))),
            "mean_of": MEAN_OF,
            "steps_at_once": STEPS_AT_ONCE,
            "box_sizes": [size for size in BOX_SIZES if size <= min(height, width)],
            "lesion_colour": LESION_COLOUR,
            "palette": pack_palette(),
            "image": pack_image(scan.image[shown]),
            "lesion": pack(radiological(scan.lesion_mask[shown])),
            "healthy": pack(radiological(healthy)),
            "learners": [_learner(name, film) for name, film in taken.items()],
        },
    )


def _learner(name: str, film: Film) -> dict[str, Any]:
    """What is drawn of one model."""
    losses = [round(float(loss), 5) for loss in film.losses]
    return {
        "name": name,
        "label": method_label(name),
        "colour": method_colour(name),
        "box_size": film.box_size,
        "losses": losses,
        "begun": losses,  # of the models that go on learning; a page that trains others gives theirs
        "rebuilt": pack_image(film.rebuilt),
    }
