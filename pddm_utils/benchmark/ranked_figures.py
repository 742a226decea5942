"""The worst, the median and the best test subject: chosen by rank of one method's AUPRC, not by eye."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pddm_utils.benchmark.tables import with_intensity
from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.show.figures import MAP_LABEL, RESIDUAL_COLOURS, method_colour, method_label, telling_slice
from pddm_utils.show.style import INK, colour_bar, colour_limit, outline, panel, styled

RANKS = ("worst", "median", "best")


def ranked_subjects(scores: pd.DataFrame, dataset: str, method: str = "pddpm") -> dict[str, str]:
    """Subjects by rank of their AUPRC under one method, seeds averaged, at the noise level chosen on validation.

    Args:
        scores: as written by the benchmark.
        dataset: with lesions.
        method: whose AUPRC ranks them.

    Returns:
        Subject by `worst`, `median` (the lower one of two) and `best`; with few subjects, one may have several ranks.

    Raises:
        InputError: no such scores.
    """
    rows = with_intensity(scores, "validation")
    rows = rows[(rows.dataset == dataset) & (rows.method == method) & (rows.rule == DEFAULT_RULE)]
    ranked = rows.groupby("subject").auprc.mean().dropna().sort_values(kind="stable")
    if ranked.empty:
        raise InputError(f"{dataset}: no AUPRC of {method}; run the benchmark with it")
    places = (0, (len(ranked) - 1) // 2, len(ranked) - 1)
    return {rank: str(ranked.index[place]) for rank, place in zip(RANKS, places, strict=True)}


@styled
def ranked_panel(
    scans: Mapping[str, Scan], rebuilt: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
) -> Figure:
    """Scans side by side: the slice with most lesion, then each method's reconstruction and anomaly map of it.

    Args:
        scans: by rank, such as `worst`.
        rebuilt: by method, then by rank: reconstruction and anomaly map, both `(D, H, W)`.

    Returns:
        The figure; over each map stands the AUPRC of the whole scan. Every scan has one colour scale for all methods.

    Raises:
        InputError: no scan, no method, or a method without one of the scans.
    """
    if not scans or not rebuilt or any(set(pairs) != set(scans) for pairs in rebuilt.values()):
        raise InputError("ranked_panel: pass scans by rank, and of every method a pair of volumes for each of them")
    figure, grid = plt.subplots(
        len(rebuilt) + 1,
        2 * len(scans),
        squeeze=False,
        layout="constrained",
        figsize=(3.1 * len(scans) + 0.9, 1.6 * (len(rebuilt) + 1) + 0.3),
    )
    for column, (rank, scan) in enumerate(scans.items()):
        index, axes = telling_slice(scan), grid[:, 2 * column : 2 * column + 2]
        aspect = float(np.divide(*np.linalg.norm(scan.affine[:3, :3], axis=0)[[1, 0]]))
        panel(axes[0, 0], scan.image[index], f"{rank}:\n{scan.subject}", aspect)
        panel(axes[0, 1], scan.image[index], "lesion", aspect)
        outline(axes[0, 1], scan.lesion_mask[index])
        limit = colour_limit(*(pairs[rank][1][index] for pairs in rebuilt.values()))
        for (left, right), (name, pairs) in zip(axes[1:], rebuilt.items(), strict=True):
            reconstruction, anomalies = pairs[rank]
            panel(left, reconstruction[index], "", aspect)
            title = f"AUPRC {average_precision(anomalies, scan.lesion_mask):.3f}"
            shown = panel(right, anomalies[index], title, aspect, cmap=RESIDUAL_COLOURS, vmax=limit)
            if column == 0:
                left.set_ylabel(method_label(name).replace(", ", ",\n"), color=INK, fontsize=8)
                left.spines["left"].set(visible=True, color=method_colour(name), linewidth=5)
        colour_bar(figure, shown, axes, MAP_LABEL if column == len(scans) - 1 else "")
    return figure
