"""Figures: pure functions from arrays to matplotlib figures.

Slices are drawn the radiological way: patient right on the left of the picture, anterior up, true to scale in
millimetres. The look is that of `pddm_utils.show.style`. Figures are closed in pyplot: a notebook shows one where a
cell ends with it, and once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import INTENSITY_UNIT, Scan
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.methods.registry import METHOD_COLOURS, METHOD_NAMES
from pddm_utils.show.style import (
    INK,
    LESION_COLOUR,
    WIDTH,
    colour_bar,
    colour_limit,
    frame_box,
    panel,
    radiological,
    styled,
)
from pddm_utils.show.style import outline as draw_outline

FOUND_COLOUR = "#56B4E9"
RESIDUAL_COLOURS = "magma"
RESIDUAL_LABEL = rf"$|x - \hat{{x}}|$ ({INTENSITY_UNIT})"
MAP_LABEL = f"anomaly map ({INTENSITY_UNIT})"
# Three colours that colour-blind readers can tell apart (Okabe and Ito's set).
OUTCOME_COLOURS = {"hit": "#009E73", "false alarm": FOUND_COLOUR, "miss": LESION_COLOUR}

_SLICES = 6  # of a montage
_BOX_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
_SHADE = [withStroke(linewidth=2.6, foreground="black", alpha=0.5)]


def method_label(name: str) -> str:
    """Name of a method as it appears in figures; an unknown method keeps its own."""
    return METHOD_NAMES.get(name, name)


def method_colour(name: str) -> str:
    """Colour of a method, the same everywhere; unknown methods are dark grey."""
    return METHOD_COLOURS.get(name, "#444444")


def telling_slice(scan: Scan) -> int:
    """The slice with most lesion; in a healthy scan the one with most brain."""
    mask = scan.lesion_mask if scan.lesion_mask.any() else scan.brain_mask
    return int(np.count_nonzero(mask, axis=(1, 2)).argmax())


def slice_height_mm(scan: Scan, index: int) -> int:
    """z of the middle of a slice, in RAS millimetres."""
    _, height, width = scan.image.shape
    return round(float(scan.affine[2] @ (width / 2, height / 2, index, 1)))


def slice_name(scan: Scan, index: int) -> str:
    """Such as `slice 30, z = -3 mm`."""
    return f"slice {index}, z = {slice_height_mm(scan, index)} mm"


def _check(scan: Scan, index: int | None = None, **volumes: np.ndarray | None) -> int:
    """The slice to show, after checking that volumes belong to the scan."""
    for name, volume in volumes.items():
        if volume is not None and volume.shape != scan.image.shape:
            raise InputError(f"{name}: shape {volume.shape}; the scan {scan.subject} has {scan.image.shape}")
    index = telling_slice(scan) if index is None else index
    if not 0 <= index < len(scan.image):
        raise InputError(f"slice {index}: the scan {scan.subject} has slices 0 to {len(scan.image) - 1}")
    return index


def _aspect(scan: Scan) -> float:
    """Height of a voxel over its width, in millimetres."""
    size = np.linalg.norm(scan.affine[:3, :3], axis=0)
    return float(size[1] / size[0])


@styled
def show_slices(
    scan: Scan,
    slice_indices: Sequence[int] | None = None,
    columns: int = 3,
) -> Figure:
    """A montage of axial slices with the border of the lesion mask.

    Args:
        scan: a prepared scan.
        slice_indices: which slices; six evenly spaced ones when left out.
        columns: panels in a row.

    Raises:
        InputError: no such slice.
    """
    if slice_indices is None:
        count = min(_SLICES, len(scan.image))
        slice_indices = np.linspace(0, len(scan.image) - 1, count + 2).round().astype(int)[1:-1].tolist()
    for index in slice_indices:
        _check(scan, index)
    columns = min(columns, len(slice_indices))
    rows = -(-len(slice_indices) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(WIDTH * columns / 3, 2.4 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(slice_indices) :]:
        axes.set_visible(False)
    for axes, index in zip(grid.flat, slice_indices, strict=False):
        panel(axes, scan.image[index], slice_name(scan, index), _aspect(scan))
        draw_outline(axes, scan.lesion_mask[index])
    figure.suptitle(f"{scan.dataset}, {scan.subject}")
    return figure


@styled
def show_reconstruction(
    scan: Scan,
    reconstruction: np.ndarray,
    anomaly_map: np.ndarray,
    slice_index: int | None = None,
    threshold: float | None = None,
    unit: str = INTENSITY_UNIT,
) -> Figure:
    """Original, reconstruction, anomaly map, and what lies above the threshold against the lesion.

    Args:
        scan: a prepared scan.
        reconstruction: `(D, H, W)` in [0, 1].
        anomaly_map: `(D, H, W)`, at least 0.
        slice_index: when left out, the slice with most lesion; without a lesion mask that with most anomaly.
        threshold: voxels with a larger map value are marked; none when left out.
        unit: of map and threshold.

    Raises:
        InputError: volumes of another shape than the scan, or no such slice.
    """
    _check(scan, slice_index, reconstruction=reconstruction, anomaly_map=anomaly_map)
    index = slice_index
    if index is None:
        found = anomaly_map * (anomaly_map > (threshold or 0))
        weight = scan.lesion_mask if scan.lesion_mask.any() else found
        index = int(weight.sum(axis=(1, 2)).argmax())
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 5.8), layout="constrained")
    axes = grid.flat
    aspect, lesion = _aspect(scan), scan.lesion_mask[index]
    panel(axes[0], scan.image[index], r"scan $x$", aspect)
    panel(axes[1], reconstruction[index], r"reconstruction $\hat{x}$", aspect)
    shown = panel(
        axes[2], anomaly_map[index], "anomaly map", aspect, cmap=RESIDUAL_COLOURS, vmax=colour_limit(anomaly_map[index])
    )
    colour_bar(figure, shown, grid, f"anomaly map ({unit})")
    panel(axes[3], scan.image[index], "" if threshold is None else f"map > {threshold:.3g}", aspect)
    keys: list[Any] = [Line2D([], [], color=LESION_COLOUR, lw=2, label="lesion mask")] if lesion.any() else []
    if threshold is not None:
        found = np.where(anomaly_map[index] > threshold, 1.0, np.nan)
        axes[3].imshow(
            radiological(found), cmap=ListedColormap([FOUND_COLOUR]), alpha=0.6, aspect=aspect, interpolation="nearest"
        )
        keys.append(Patch(facecolor=FOUND_COLOUR, label="found"))
    draw_outline(axes[3], lesion)
    if keys:
        axes[3].legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2)
    figure.suptitle(f"{scan.dataset}, {scan.subject}, {slice_name(scan, index)}")
    return figure


@styled
def compare_methods(
    scan: Scan,
    reconstructions: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray] | None = None,
    slice_index: int | None = None,
) -> Figure:
    """One row per method: scan, reconstruction, residual and, where given, anomaly map, on one colour scale.

    Args:
        scan: a prepared scan.
        reconstructions: `(D, H, W)` in [0, 1] by method name.
        maps: anomaly maps `(D, H, W)` of the same methods.
        slice_index: the slice with most lesion (or brain) when left out.

    Raises:
        InputError: no method, other shapes than the scan's, a method without a map, or no such slice.
    """
    if not reconstructions or (maps is not None and set(maps) != set(reconstructions)):
        raise InputError("compare_methods: pass reconstructions, and maps of the same methods or none")
    index = _check(scan, slice_index, **reconstructions)
    _check(scan, index, **(maps or {}))
    aspect, brain = _aspect(scan), scan.brain_mask[index]
    residuals = {name: np.abs(scan.image[index] - x[index]) * brain for name, x in reconstructions.items()}
    limit = colour_limit(*residuals.values())
    columns = 3 + (maps is not None)
    size = (WIDTH, 6.2 / columns * len(residuals) + 1.2)
    figure, grid = plt.subplots(len(residuals), columns, figsize=size, squeeze=False, layout="constrained")
    for row, (axes, name) in enumerate(zip(grid, residuals, strict=True)):
        top = ("scan $x$", r"rebuilt $\hat{x}$", "residual", "anomaly map")
        titles = top if row == 0 else ("",) * 4
        panel(axes[0], scan.image[index], titles[0], aspect)
        draw_outline(axes[0], scan.lesion_mask[index])
        panel(axes[1], reconstructions[name][index], titles[1], aspect)
        planes = [residuals[name]] + ([maps[name][index]] if maps is not None else [])
        for place, plane in enumerate(planes, start=2):
            shown = panel(axes[place], plane, titles[place], aspect, cmap=RESIDUAL_COLOURS, vmax=limit)
        axes[0].set_ylabel(method_label(name).replace(", ", ",\n"), color=INK, labelpad=8)
        axes[0].spines["left"].set(visible=True, color=method_colour(name), linewidth=5)
    colour_bar(figure, shown, grid, RESIDUAL_LABEL, "bottom")
    figure.suptitle(f"{scan.dataset}, {scan.subject}, {slice_name(scan, index)}")
    return figure


@styled
def show_boxes(grid: BoxGrid, image: np.ndarray) -> Figure:
    """The boxes of a grid over one slice, numbered in the grid's order.

    Args:
        grid: boxes of an image of this size.
        image: `(H, W)` in [0, 1], rows from posterior to anterior as in a `Scan`.

    Raises:
        InputError: an image of another size than the grid's.
    """
    if image.shape != tuple(grid.image_size):
        raise InputError(f"image: shape {image.shape}; the grid is for {tuple(grid.image_size)}")
    figure, axes = plt.subplots(figsize=(3.6, 3.7), layout="constrained")
    panel(axes, image)
    overlap = int(grid.coverage.max()) > 1
    for number, box in enumerate(grid.boxes.tolist()):
        turn = number % len(_BOX_COLOURS) if overlap else 0  # overlapping boxes: set in a little, in turns
        inset = turn * image.shape[1] / 96
        middle = frame_box(axes, box, image.shape, _BOX_COLOURS[turn], inset, lw=1.6, path_effects=_SHADE)
        if len(grid) <= 25:
            axes.text(
                *middle,
                str(number),
                color="white",
                ha="center",
                va="center",
                size="x-large",
                weight="bold",
                path_effects=[withStroke(linewidth=3, foreground="black")],
            )
    sides = f"{grid.box_size[0]} x {grid.box_size[1]}"
    axes.set_title(f"{len(grid)} boxes of {sides} px, stride {grid.stride[0]} px")
    return figure


@styled
def show_randomised(measured: np.ndarray, labels: np.ndarray, synthesised: Sequence[np.ndarray], name: str) -> Figure:
    """Domain randomisation: a slice as it was measured, its labels, and random appearances of it.

    Args:
        measured: `(H, W)` in [0, 1].
        labels: `(H, W)` uint8, 0 outside the brain.
        synthesised: six slices `(H, W)` in [0, 1].
        name: of the measured contrast.
    """
    figure, grid = plt.subplots(2, 4, figsize=(WIDTH, 3.6), layout="constrained")
    panel(grid[0, 0], measured, f"measured ({name})")
    hues = np.random.default_rng(0).permutation(255) / 254 + 1 / 254  # neighbours in number lie next to each other
    coloured = np.where(labels > 0, np.concatenate([[0], hues])[labels], 0)
    colours = plt.get_cmap("nipy_spectral").with_extremes(under="black")
    panel(grid[0, 1], coloured, "labels", cmap=colours, vmin=1e-6, vmax=1.05)
    for number, (axes, plane) in enumerate(zip(grid.flat[2:], synthesised, strict=True), start=1):
        panel(axes, plane, f"synthesised {number}")
    return figure


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
    axes.set_title(title)
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
