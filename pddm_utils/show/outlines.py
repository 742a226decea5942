"""Outlines of brains over planes of whole heads: how preprocessing went, and how well brains are extracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pddm_utils.show.style import WIDTH, styled

BRAIN_COLOUR, TEMPLATE_COLOUR = "#56B4E9", "#E69F00"
REFERENCE = "label map"
EXTRACTION_COLOURS = {REFERENCE: "#56B4E9", "deepbet": "#E69F00", "threshold": "#CC79A7"}
_SIDES = {"axial": "RL", "coronal": "RL", "sagittal": "PA"}  # left and right border of the picture


def draw_outlines(
    axes: Axes, plane: str, image: np.ndarray, masks: Mapping[str, np.ndarray], vmax: float, title: str = ""
) -> None:
    """One plane with the outlines of masks, its sides marked; patient right on the left of the picture.

    Args:
        axes: where to draw.
        plane: `axial`, `coronal` or `sagittal`.
        image: `(rows, columns)`, rows from low to high, columns from patient left to right or from back to front.
        masks: the same shape by colour; an empty one has no outline.
        vmax: what is drawn white.
        title: shown above.
    """
    turn = slice(None) if plane == "sagittal" else slice(None, None, -1)
    axes.imshow(image[:, turn], cmap="gray", vmin=0, vmax=vmax, origin="lower")
    for colour, mask in masks.items():
        if mask.any():
            axes.contour(mask[:, turn], levels=[0.5], colors=colour, linewidths=1.0)
    for place, side, align in zip((0.03, 0.97), _SIDES[plane], ("left", "right"), strict=True):
        axes.text(place, 0.03, side, color="white", fontsize=10, transform=axes.transAxes, ha=align)
    axes.set_title(title)
    axes.axis("off")


@styled
def quality_figure(layers: np.ndarray) -> Figure:
    """Three planes before and after preprocessing, with the outlines of brain mask and template.

    Args:
        layers: of `pddm_utils.data.preprocess.checks.pictures`.
    """
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.6), layout="constrained")
    for row, (name, (image, brain, template)) in enumerate(zip(("before", "after"), layers, strict=True)):
        for column, plane in enumerate(_SIDES):
            masks = {BRAIN_COLOUR: brain[column], TEMPLATE_COLOUR: template[column]}
            draw_outlines(axes[row, column], plane, image[column], masks, 255, f"{name}, {plane}")
    return figure


@styled
def extraction_figure(
    scores: Mapping[str, Sequence[float]], image: np.ndarray, masks: Mapping[str, np.ndarray]
) -> Figure:
    """Dice of each extraction on each scan, and all outlines on one scan.

    Args:
        scores: Dice by extraction, in the same order of scans.
        image: `(X, Y, Z)` in RAS axis order.
        masks: `(X, Y, Z)` bool by extraction, `REFERENCE` among them.
    """
    figure, axes = plt.subplot_mosaic("aa;bc", figsize=(WIDTH, 6.2), layout="constrained", height_ratios=(2, 3))
    chart, names = axes["a"], list(scores)
    for pair in zip(*scores.values(), strict=True):
        chart.plot(pair, range(len(names)), color="0.75", lw=0.8, zorder=1)
    for place, name in enumerate(names):
        chart.scatter(scores[name], [place] * len(scores[name]), color=EXTRACTION_COLOURS[name], s=22, zorder=2)
    chart.set_yticks(range(len(names)), names)
    chart.set(xlabel=f"Dice with the {REFERENCE}", ylim=(len(names) - 0.5, -0.5), xlim=(None, 1))
    chart.set_title(f"{len(scores[names[0]])} scans, a line each")
    centre = [round(float(where.mean())) for where in np.nonzero(masks[REFERENCE])]
    white = float(np.percentile(image, 99.5))
    cuts: dict[str, Any] = {"axial": np.s_[:, :, centre[2]], "sagittal": np.s_[centre[0]]}
    for axis, (plane, cut) in zip((axes["b"], axes["c"]), cuts.items(), strict=True):
        outlines = {colour: masks[name][cut].T for name, colour in EXTRACTION_COLOURS.items()}
        draw_outlines(axis, plane, image[cut].T, outlines, white, f"{plane}, lowest Dice")
    lines = [plt.Line2D([], [], color=colour, label=name) for name, colour in EXTRACTION_COLOURS.items()]
    figure.legend(handles=lines, loc="outside lower right", ncols=len(lines))
    return figure
