"""The page on families of lesions: its tables, and its picture of one lesion of each."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pddm_utils.benchmark.studies.family_tables import (
    FAMILY_NAMES,
    read_families,
    restoration_markdown,
    scores_markdown,
    taus_markdown,
)
from pddm_utils.core.files import whole_file
from pddm_utils.core.settings import LESION_KINDS
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.ixi import ixi_rows
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.publish.run_tables import scored_by
from pddm_utils.show.figures import show_slice
from pddm_utils.show.style import WIDTH, mark_sides, styled

_SHOWN = 4  # lesion of each family that is shown: that of this test subject, from 0 on


def families_block(folder: Path) -> str:
    """How methods rank on each family of inserted lesions, whether the families agree, and what is restored."""
    table, made = read_families(folder)
    levels = "; ".join(
        f"{METHOD_NAMES[name]}: " + ", ".join(f"{FAMILY_NAMES[row.family]} {row.timestep}" for row in rows.itertuples())
        for name, rows in table[table.timestep >= 0].drop_duplicates(["method", "family"]).groupby("method")
    )
    parts = [
        scores_markdown(table),
        f"AUPRC, mean [95 % BCa bootstrap interval over people] (rank); {table.subject.nunique()} test scans of IXI "
        f"T1, every n-th slice with n = {made['settings']['slice_step']}.{scored_by(made)} Timestep, chosen for each "
        f"family on validation scans: {levels}.",
        taus_markdown(table),
        f"On the means of {table.method.nunique()} methods; in brackets, what 95 % of resampled sets of people give. "
        "1 is the same order, 0 no relation, -1 the opposite.",
        restoration_markdown(table),
        "Mean $\\lvert \\hat x - x_\\text{healthy} \\rvert$ inside the lesion. "
        f"{made['hardware']['cpu']}, torch {made['packages']['torch']}.",
    ]
    return "\n\n".join(parts)


def save_family_figure(runs: Path, out: Path) -> None:
    """Draw one lesion of each family, in the slice where it is largest.

    Args:
        runs: folder whose `cache/` keeps prepared scans.
        out: the PNG to write; its ground is transparent.

    Raises:
        InputError: the scans or masks are not there.
    """
    rows = ixi_rows(require_data_root(), 0, 0, _SHOWN + 1, LESION_KINDS)
    cache, last = ScanCache(runs / "cache"), rows[-1].subject
    lesioned = [row for row in rows if row.subject == last and row.inserted_lesion is not None]
    figure = family_figure({row.inserted_lesion[0]: load_scan(row, cache) for row in lesioned if row.inserted_lesion})
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=200, format="png", facecolor="none")


@styled
def family_figure(scans: dict[str, Scan]) -> Figure:
    """One slice of each scan, with the outline of its lesion; by kind of lesion."""
    figure, grid = plt.subplots(2, 3, figsize=(WIDTH, 4.9), layout="constrained")
    for axes, (kind, scan) in zip(grid.flat, scans.items(), strict=True):
        level = int(scan.lesion_mask.sum(axis=(1, 2)).argmax())
        show_slice(axes, scan.image[level], FAMILY_NAMES[kind], scan.lesion_mask[level])
        mark_sides(axes)
    return figure
