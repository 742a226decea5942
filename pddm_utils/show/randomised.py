"""The picture of domain randomisation: a real slice, its labels, and slices synthesised from them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from pddm_utils.data.scan import Scan
from pddm_utils.data.simulation.randomised_slices import RandomisedSlices
from pddm_utils.show.figures import telling_slice
from pddm_utils.show.style import panel, styled


@styled
def randomised_figure(scan: Scan, slices: RandomisedSlices) -> Figure:
    """A slice as it was measured, its labels, and its first six random appearances.

    Args:
        scan: prepared, healthy.
        slices: of this scan alone.
    """
    index, labels = telling_slice(scan), slices.labels[0]
    figure, grid = plt.subplots(2, 4, figsize=(7.2, 3.8), layout="constrained")
    panel(grid[0, 0], scan.image[index], f"measured ({scan.contrast})")
    hues = np.random.default_rng(0).permutation(255) / 254 + 1 / 254  # neighbours in number lie next to each other
    coloured = np.where(labels[index] > 0, np.concatenate([[0], hues])[labels[index]], 0)
    colours = plt.get_cmap("nipy_spectral").with_extremes(under="black")
    panel(grid[0, 1], coloured, "labels", cmap=colours, vmin=1e-6, vmax=1.05)
    for number, axes in enumerate(grid.flat[2:]):
        panel(axes, slices[number * len(labels) + index], f"synthesised {number + 1}")
    return figure
