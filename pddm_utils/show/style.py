"""The project's look of a figure: slices the radiological way, one colour for lesions, letters that a phone can show.

The ground is white. Where the book's pages are made (`PDDM_BOOK` is set) it is transparent instead, and a page draws
what has the colour `INK` light in its dark theme.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

LESION_COLOUR = "#D55E00"
INK = "#1f2533"
GROUND = "none" if os.environ.get("PDDM_BOOK") else "white"
WIDTH = 6.4  # inches, the widest figure: 640 pixels of a page; letters of 10 points are 8.5 pixels on a phone

_HALO: list[Any] = [withStroke(linewidth=3.2, foreground="white", alpha=0.9)]
_STYLE: dict[Any, Any] = {
    "figure.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "figure.dpi": 100,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "figure.titlesize": 11,
    "figure.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def book_style() -> None:
    """Make this look that of all figures from here on, those that a notebook draws by itself included."""
    plt.rcParams.update(_STYLE)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the project's style and take the figure out of pyplot's hands."""

    @functools.wraps(draw)
    def draw_styled(*args: Any, **kwargs: Any) -> Figure:
        # Not rc_context: it would also undo what a notebook's back end sets when its first figure is made.
        open_before, style_before = plt.get_fignums(), {name: plt.rcParams[name] for name in _STYLE}
        plt.rcParams.update(_STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            plt.rcParams.update(style_before)
            for number in set(plt.get_fignums()) - set(open_before):
                plt.close(number)

    return draw_styled


def radiological(planes: np.ndarray) -> np.ndarray:
    """Axial slices `(..., H, W)` of a `Scan` as they are displayed: anterior up, patient right on the left.

    Example:
        >>> radiological(np.array([[1, 2], [3, 4]])).tolist()
        [[4, 3], [2, 1]]
    """
    return planes[..., ::-1, ::-1]


def panel(axes: Axes, plane: np.ndarray, title: str = "", aspect: float = 1.0, **options: Any):
    """One slice on axes without ticks, R and L marked; gray in [0, 1] unless options say otherwise."""
    chosen: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest"} | options
    shown = axes.imshow(radiological(plane), aspect=aspect, **chosen)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)
    mark_sides(axes)
    return shown


def mark_sides(axes: Axes) -> None:
    """R and L where the patient's right and left are displayed."""
    for x, side, mark in ((0.03, "left", "R"), (0.97, "right", "L")):
        axes.text(
            x,
            0.03,
            mark,
            transform=axes.transAxes,
            ha=side,
            va="bottom",
            color="white",
            fontsize=10,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def frame_box(
    axes: Axes, box: Sequence[int], size: Sequence[int], colour: str, inset: float = 0.0, **options: Any
) -> tuple[float, float]:
    """The border of a box `(top, left, height, width)` on a slice that is shown the radiological way.

    Args:
        axes: where the slice is shown.
        box: pixels, in the slice's array.
        size: height and width of the slice.
        colour: of the border.
        inset: how far inside the box it is drawn, pixels.
        **options: of matplotlib's `Rectangle`.

    Returns:
        The box's middle on the axes.
    """
    top, left, rows, columns = box
    x, y = size[1] - left - columns - 0.5, size[0] - top - rows - 0.5
    sides = (columns - 2 * inset, rows - 2 * inset)
    axes.add_patch(Rectangle((x + inset, y + inset), *sides, fill=False, edgecolor=colour, **options))
    return x + columns / 2, y + rows / 2


def outline(axes: Axes, mask: np.ndarray) -> None:
    """The border of a lesion: a line in the lesion's colour with a light halo; nothing for an empty mask."""
    if mask.any():
        inside = radiological(mask).astype(float)
        axes.contour(inside, levels=[0.5], colors=LESION_COLOUR, linewidths=1.4).set_path_effects(_HALO)


def colour_bar(figure: Figure, shown: Any, axes: Any, label: str, location: str = "right") -> None:
    """A colour bar with its unit beside axes, or below them."""
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, location=location, aspect=30)
    bar.set_label(label)
    bar.outline.set_visible(False)


def colour_limit(*planes: np.ndarray) -> float:
    """End of a colour scale: the largest of the planes' 99.5th percentiles, at least 0.05."""
    return max(0.05, *(float(np.percentile(plane, 99.5)) for plane in planes))
