"""How well brains are extracted: the overlap of every scan, and the outlines on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

REFERENCE = "label map"
COLOURS = {REFERENCE: "#56B4E9", "deepbet": "#E69F00", "threshold": "#CC79A7"}


def extraction_figure(
    scores: Mapping[str, Sequence[float]], image: np.ndarray, masks: Mapping[str, np.ndarray]
) -> Figure:
    """Dice of each extraction on each scan, and all outlines on one scan.

    Args:
        scores: Dice by extraction, in the same order of scans.
        image: `(X, Y, Z)` in RAS axis order.
        masks: `(X, Y, Z)` bool by extraction, the reference among them.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.3), layout="constrained", facecolor="white")
    names = list(scores)
    for pair in zip(*scores.values(), strict=True):
        axes[0].plot(range(len(names)), pair, color="0.75", lw=0.8, zorder=1)
    for place, name in enumerate(names):
        axes[0].scatter([place] * len(scores[name]), scores[name], color=COLOURS[name], s=22, zorder=2)
    axes[0].set_xticks(range(len(names)), names)
    axes[0].set(ylabel=f"Dice with the {REFERENCE}", xlim=(-0.5, len(names) - 0.5), ylim=(None, 1))
    axes[0].set_title(f"{len(scores[names[0]])} scans", fontsize=10)
    centre = [round(float(where.mean())) for where in np.nonzero(masks[REFERENCE])]
    views = {
        "axial": (lambda volume: volume[::-1, :, centre[2]].T, "RL"),  # patient right on the left
        "sagittal": (lambda volume: volume[centre[0]].T, "PA"),
    }
    for axis, (plane, (cut, sides)) in zip(axes[1:], views.items(), strict=True):
        axis.imshow(cut(image), cmap="gray", origin="lower", vmax=np.percentile(image, 99.5))
        for name, colour in COLOURS.items():
            axis.contour(cut(masks[name]), levels=[0.5], colors=colour, linewidths=1.1)
        for place, side in zip((0.03, 0.97), sides, strict=True):
            axis.text(place, 0.03, side, color="white", transform=axis.transAxes, ha="left" if place < 0.5 else "right")
        axis.set_title(f"{plane}, lowest threshold Dice", fontsize=10)
        axis.axis("off")
    lines = [plt.Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=lines, loc="outside lower right", ncols=len(lines), frameon=False)
    return figure
