"""Small pieces of the chapters' figures: one slice, and what a mask gets right and wrong on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from pddm_utils.show.figures import FOUND_COLOUR
from pddm_utils.show.style import LESION_COLOUR, radiological

# Three colours that colour-blind readers can tell apart (Okabe and Ito's set).
OUTCOME_COLOURS = {"hit": "#009E73", "false alarm": FOUND_COLOUR, "miss": LESION_COLOUR}


def show_slice(
    axes: Axes, plane: np.ndarray, title: str = "", lesion: np.ndarray | None = None, **options: Any
) -> AxesImage:
    """One slice as in every figure of the book: anterior up, patient right on the left of the picture.

    Args:
        axes: where to draw; its ticks are taken off.
        plane: `(H, W)` slice of a `Scan`, rows from posterior to anterior.
        title: shown above.
        lesion: `(H, W)` bool, drawn as an outline; nothing where it is empty.
        **options: of matplotlib's `imshow`; gray from 0 to 1 unless they say otherwise.

    Returns:
        The picture, for a colour bar.
    """
    chosen: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} | options
    shown = axes.imshow(radiological(np.asarray(plane)), **chosen)
    if lesion is not None and lesion.any():
        axes.contour(radiological(lesion), levels=[0.5], colors=LESION_COLOUR, linewidths=1.2)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    return shown


def show_outcomes(axes: Axes, plane: np.ndarray, predicted: np.ndarray, lesion: np.ndarray, title: str = "") -> None:
    """A slice with hits, false alarms and misses of a mask in the colours of `OUTCOME_COLOURS`.

    Args:
        axes: where to draw.
        plane: `(H, W)` slice of a `Scan`, in [0, 1].
        predicted: `(H, W)` bool, the predicted mask.
        lesion: `(H, W)` bool, the lesion mask.
        title: shown above.
    """
    show_slice(axes, plane, title)
    parts = (predicted & lesion, predicted & ~lesion, ~predicted & lesion)
    for part, colour in zip(parts, OUTCOME_COLOURS.values(), strict=True):
        axes.imshow(radiological(part)[..., None] * np.array(to_rgba(colour, 0.8)))


def outcome_keys() -> Sequence[Patch]:
    """Legend entries that go with `show_outcomes`."""
    return [Patch(color=colour, label=name) for name, colour in OUTCOME_COLOURS.items()]
