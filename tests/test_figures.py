"""Figures: orientation, scale, colours, and what each one draws."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.evaluation.metrics import average_precision, precision_recall
from pddm_utils.methods.registry import METHOD_COLOURS, METHOD_NAMES
from pddm_utils.show import figures, plots

SHAPE = (6, 24, 20)


@pytest.fixture
def scan() -> Scan:
    """A brain that is brighter on the patient's right (large x) and in front; its lesion is in slice 4."""
    _, y, x = np.mgrid[:6, :24, :20].astype(np.float32)
    brain = np.zeros(SHAPE, dtype=bool)
    brain[:, 2:-2, 2:-2] = True
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[4, 15:19, 12:16] = lesion[3, 16, 13] = True
    image = ((x / 19 + y / 23) / 2 * brain).astype(np.float32)
    return Scan("s1", "simulated-t2-tumour", "T2", image, brain, lesion, np.diag([2.0, 3.0, 2.0, 1.0]))


@pytest.fixture
def rebuilt(scan: Scan) -> np.ndarray:
    return np.where(scan.lesion_mask, 0.1, scan.image).astype(np.float32)


def every_figure(scan: Scan, rebuilt: np.ndarray) -> list[Figure]:
    anomalies = np.abs(scan.image - rebuilt)
    rng = np.random.default_rng(0)
    curve = precision_recall(rng.random(SHAPE), scan.lesion_mask)
    both = {"ddpm": rebuilt, "pddpm": scan.image}
    return [
        figures.show_slices(scan),
        figures.show_reconstruction(scan, rebuilt, anomalies, threshold=0.1),
        figures.compare_methods(scan, both, dict.fromkeys(both, anomalies)),
        figures.show_boxes(BoxGrid(SHAPE[1:], 10), scan.image[4]),
        plots.plot_paired({"ddpm": rng.random(8), "pddpm": rng.random(8)}),
        plots.precision_recall_plot({"pddpm": [curve]}),
    ]


def panels(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]


def test_radiological_display(scan: Scan) -> None:
    axes = panels(figures.show_slices(scan, [4]))[0]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown, scan.image[4][::-1, ::-1])
    assert axes.images[0].origin == "upper"
    front_right = shown[2, 2]  # top left of the picture
    assert front_right == scan.image[4].max()
    marks = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert marks["R"] < 0.5 < marks["L"]


def test_pictures_are_true_to_scale(scan: Scan) -> None:
    axes = panels(figures.show_slices(scan, [4]))[0]
    assert axes.get_aspect() == pytest.approx(1.5)  # voxels of 2 mm x 3 mm


def test_slices_are_named_in_millimetres(scan: Scan) -> None:
    affine = scan.affine.copy()
    affine[2, 3] = -10
    assert figures.slice_name(replace(scan, affine=affine), 3) == "slice 3, z = -4 mm"


def test_outline_follows_the_lesion(scan: Scan) -> None:
    figure = figures.show_slices(scan, [2, 4])
    healthy, lesioned = panels(figure)
    assert not healthy.collections
    (outline,) = lesioned.collections
    assert to_hex(outline.get_edgecolor()[0]).upper() == figures.LESION_COLOUR
    assert outline.get_path_effects()
    vertices = outline.get_paths()[0].vertices
    rows, columns = np.nonzero(figures.radiological(scan.lesion_mask[4]))
    np.testing.assert_allclose(vertices.min(axis=0), [columns.min() - 0.5, rows.min() - 0.5])
    np.testing.assert_allclose(vertices.max(axis=0), [columns.max() + 0.5, rows.max() + 0.5])


def test_slices_shown_by_default(scan: Scan) -> None:
    assert figures.telling_slice(scan) == 4
    healthy = replace(scan, lesion_mask=np.zeros(SHAPE, dtype=bool))
    assert figures.telling_slice(healthy) == 0
    anomalies = np.zeros(SHAPE, dtype=np.float32)
    anomalies[1] = 0.05
    anomalies[3, 10, 10] = 0.5
    for threshold, index in ((None, 1), (0.1, 3)):
        figure = figures.show_reconstruction(healthy, healthy.image, anomalies, threshold=threshold)
        np.testing.assert_array_equal(panels(figure)[0].images[0].get_array(), scan.image[index][::-1, ::-1])


def test_reconstruction_marks_what_is_above_the_threshold(scan: Scan, rebuilt: np.ndarray) -> None:
    anomalies = np.abs(scan.image - rebuilt)
    figure = figures.show_reconstruction(scan, rebuilt, anomalies, threshold=0.3)
    found = panels(figure)[3].images[1].get_array()
    np.testing.assert_array_equal(np.nan_to_num(found) > 0, (anomalies[4] > 0.3)[::-1, ::-1])
    assert len(panels(figures.show_reconstruction(scan, rebuilt, anomalies))[3].images) == 1


def test_methods_share_one_colour_scale_with_a_unit(scan: Scan, rebuilt: np.ndarray) -> None:
    figure = figures.compare_methods(scan, {"ddpm": rebuilt, "pddpm": scan.image, "mine": rebuilt})
    residuals = [axes.images[0] for axes in panels(figure) if axes.images[0].get_cmap().name == "magma"]
    assert len(residuals) == 3 and len({image.get_clim() for image in residuals}) == 1
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert figures.RESIDUAL_LABEL in [axes.get_xlabel() for axes in figure.axes] and "mine" in labels
    assert {METHOD_NAMES["ddpm"], METHOD_NAMES["pddpm"]} <= {label.replace("\n", " ") for label in labels}


def test_boxes_lie_where_the_grid_says(scan: Scan) -> None:
    grid = BoxGrid((24, 20), (12, 10))
    axes = figures.show_boxes(grid, scan.image[4]).axes[0]
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(drawn) == len(grid)
    mask = np.zeros((24, 20), dtype=bool)
    top, left, height, width = grid.boxes[1].tolist()
    mask[top : top + height, left : left + width] = True
    rows, columns = np.nonzero(figures.radiological(mask))
    corner = drawn[1].get_xy()
    assert corner == (columns.min() - 0.5, rows.min() - 0.5)
    assert (drawn[1].get_width(), drawn[1].get_height()) == (10, 12)


def test_paired_scores(scan: Scan) -> None:
    first = np.linspace(0.1, 0.4, 8)
    figure = plots.plot_paired({"ddpm": first, "pddpm": first + 0.1}, "AUPRC")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [METHOD_NAMES["ddpm"], METHOD_NAMES["pddpm"]]
    assert axes.get_title() == "pddpm minus ddpm: +0.100 [+0.100, +0.100], n = 8"
    few = plots.plot_paired({"ddpm": first[:3], "pddpm": first[:3]}).axes[0]
    assert few.get_title() == "pddpm minus ddpm: +0.000, n = 3"
    gap = plots.plot_paired({"ddpm": first, "pddpm": np.where(first > 0.35, np.nan, first)}).axes[0]
    assert gap.get_title().endswith("n = 6")


def test_mean_curve_keeps_the_area(scan: Scan) -> None:
    anomalies = np.random.default_rng(1).random(SHAPE) + 0.4 * scan.lesion_mask
    curve = precision_recall(anomalies, scan.lesion_mask)
    empty = precision_recall(anomalies, np.zeros(SHAPE, dtype=bool))
    axes = plots.precision_recall_plot({"pddpm": [curve, curve, empty]}).axes[0]
    recall, precision = axes.lines[-1].get_data()
    assert precision.mean() == pytest.approx(average_precision(anomalies, scan.lesion_mask), abs=0.03)
    assert axes.get_legend().get_texts()[0].get_text() == "pDDPM, patched, mean of 2"


def test_wrong_input_is_an_error(scan: Scan, rebuilt: np.ndarray) -> None:
    wrong = [
        lambda: figures.show_slices(scan, [6]),
        lambda: figures.show_slices(scan, [-1]),
        lambda: figures.show_reconstruction(scan, rebuilt[:3], rebuilt),
        lambda: figures.compare_methods(scan, {}),
        lambda: figures.compare_methods(scan, {"ddpm": rebuilt}, {"pddpm": rebuilt}),
        lambda: figures.compare_methods(scan, {"ddpm": rebuilt[..., :5]}),
        lambda: figures.show_boxes(BoxGrid(32, 16), scan.image[0]),
        lambda: plots.plot_paired({}),
        lambda: plots.plot_paired({"ddpm": [0.1], "pddpm": [0.1, 0.2]}),
        lambda: plots.precision_recall_plot({"ddpm": []}),
    ]
    for call in wrong:
        with pytest.raises(InputError):
            call()
    assert plt.get_fignums() == []


def test_figures_read_on_any_page(scan: Scan, rebuilt: np.ndarray) -> None:
    """White ground of their own and dark text under any style; nothing is left open or changed."""
    with plt.style.context("dark_background"):
        before = dict(plt.rcParams)
        for figure in every_figure(scan, rebuilt):
            assert to_rgb(figure.get_facecolor()) == (1, 1, 1)
            words = [t for axes in figure.axes for t in (axes.title, axes.xaxis.label, axes.yaxis.label)]
            assert all(max(to_rgb(t.get_color())) < 0.3 for t in words)
            figure.canvas.draw()
        assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


def test_own_figures_of_a_notebook_stay_visible() -> None:
    """A first figure of ours must not undo the interactive mode that the back end sets with it."""
    code = """
import matplotlib
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance()
matplotlib.use("module://matplotlib_inline.backend_inline")
import numpy as np
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.show.figures import show_boxes
show_boxes(BoxGrid(8, 4), np.zeros((8, 8)))
print(matplotlib.is_interactive())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("True")


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours."""
    linear = [
        np.where((c := np.array(to_rgb(colour))) <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        for colour in (first, second)
    ]
    low, high = sorted(float(values @ [0.2126, 0.7152, 0.0722]) for values in linear)
    return (high + 0.05) / (low + 0.05)


def perceived(colours: list[str]) -> np.ndarray:
    """CIE Lab `(3, N, 3)`: to normal, red-blind and green-blind eyes (Machado et al. 2009, severity 1)."""
    eyes = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ) / np.array([[0.95047], [1], [1.08883]])
    c = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.stack([np.clip(linear @ np.transpose(eye), 0, 1) @ to_xyz.T for eye in eyes])
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_method_colours_are_told_apart_by_colour_blind_readers_and_in_print() -> None:
    lab = perceived([*METHOD_COLOURS.values(), figures.LESION_COLOUR])
    distance = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
    assert distance[:, ~np.eye(len(METHOD_COLOURS) + 1, dtype=bool)].min() > 15
    assert contrast(METHOD_COLOURS["ddpm"], METHOD_COLOURS["pddpm"]) > 2
    assert set(METHOD_COLOURS) == set(METHOD_NAMES)
