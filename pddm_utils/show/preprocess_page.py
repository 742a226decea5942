"""The quality-control page of a preprocessing run: every scan before and after, outliers first, in one HTML file."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from pddm_utils.core.files import whole_file, write_text
from pddm_utils.data.preprocess.checks import COMPARED, LARGEST_Z, LEAST_DICE, outliers
from pddm_utils.data.preprocess.runner import Outcome, read_log

BRAIN_COLOUR, TEMPLATE_COLOUR = "#56B4E9", "#E69F00"
_PLANES = ("axial", "coronal", "sagittal")
_SIDES = {"axial": "RL", "coronal": "RL", "sagittal": "PA"}  # left and right border of the picture
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; background: black; border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; }
td + td { font-variant-numeric: tabular-nums; }
.flagged { border-left: 4px solid #D55E00; padding: .3rem .8rem; margin: .6rem 0; }
"""


def write_quality_page(outcomes: Sequence[Outcome], out: str | Path) -> dict[str, list[str]]:
    """Write `qc.html` and `quality.csv` into the folder of a run.

    Args:
        outcomes: of `preprocess_manifest`.
        out: its folder.

    Returns:
        Why a finished scan should be looked at, by scan; scans without a reason are left out.

    Raises:
        InputError: the files cannot be written.
    """
    out = Path(out)
    done = [outcome for outcome in outcomes if not outcome.error]
    numbers = {outcome.row.scan_id: read_log(outcome.folder)["quality"] for outcome in done}
    reasons: dict[str, list[str]] = {}
    for group in sorted({(outcome.row.dataset, outcome.row.contrast) for outcome in done}):
        names = [one.row.scan_id for one in done if (one.row.dataset, one.row.contrast) == group]
        reasons |= outliers({name: numbers[name] for name in names})
    _write_table(out / "quality.csv", numbers, reasons)
    order = sorted(done, key=lambda outcome: (not reasons[outcome.row.scan_id], outcome.row.scan_id))
    sections = "".join(_section(one, numbers[one.row.scan_id], reasons[one.row.scan_id]) for one in order)
    failed = [outcome for outcome in outcomes if outcome.error]
    flagged = {name: why for name, why in reasons.items() if why}
    write_text(out / "qc.html", _page(len(outcomes), failed, flagged, sections))
    return flagged


def quality_figure(layers: np.ndarray) -> Figure:
    """Three planes before and after preprocessing, with the outlines of brain mask and template.

    Args:
        layers: of `pddm_utils.data.preprocess.checks.pictures`.
    """
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 5.0), layout="constrained", facecolor="white")
    for row, (name, (image, brain, template)) in enumerate(zip(("before", "after"), layers, strict=True)):
        for column, plane in enumerate(_PLANES):
            axis = axes[row, column]
            # Patient right on the left of the picture in axial and coronal planes.
            turn = slice(None, None, -1) if plane != "sagittal" else slice(None)
            axis.imshow(image[column][:, turn], cmap="gray", vmin=0, vmax=255, origin="lower")
            for mask, colour in ((brain, BRAIN_COLOUR), (template, TEMPLATE_COLOUR)):
                if mask[column].any():
                    axis.contour(mask[column][:, turn], levels=[0.5], colors=colour, linewidths=1.0)
            for place, side in zip((0.03, 0.97), _SIDES[plane], strict=True):
                axis.text(
                    place,
                    0.03,
                    side,
                    color="white",
                    fontsize=8,
                    transform=axis.transAxes,
                    ha="left" if place < 0.5 else "right",
                )
            axis.set_title(f"{name}, {plane}", fontsize=9)
            axis.axis("off")
    return figure


def _write_table(path: Path, numbers: dict[str, dict], reasons: dict[str, list[str]]) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["scan", "dice", *COMPARED, "reasons"])
        for name, values in numbers.items():
            dice = "" if values["dice"] is None else values["dice"]
            writer.writerow([name, dice, *(values[key] for key in COMPARED), "; ".join(reasons[name])])


def _page(count: int, failed: Sequence[Outcome], flagged: dict[str, list[str]], sections: str) -> str:
    lines = [f"<li>{html.escape(one.row.scan_id)}: {html.escape(one.error)}</li>" for one in failed]
    missing = f'<h2>Failed</h2><ul class="flagged">{"".join(lines)}</ul>' if failed else ""
    title = f"Preprocessing: {count - len(failed)} of {count} scans done, {len(flagged)} to look at"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>Blue: the scan's brain mask. Orange: the template's brain. A scan is flagged when the two overlap with a Dice below
{LEAST_DICE:g}, or when a statistic lies more than {LARGEST_Z:g} robust standard deviations from the median of its data
set. Before: the scan as it came, cut along the scanner's axes. Patient right is on the left.</p>
{missing}
{sections}
</body></html>
"""


def _section(outcome: Outcome, numbers: dict, reasons: list[str]) -> str:
    name = html.escape(outcome.row.scan_id)
    why = f'<p class="flagged">{html.escape("; ".join(reasons))}</p>' if reasons else ""
    log = read_log(outcome.folder)
    cells = {"overlap with the template (Dice)": "not registered" if numbers["dice"] is None else numbers["dice"]}
    cells |= {
        "brain (ml)": numbers["brain_ml"],
        "mean": numbers["mean"],
        "standard deviation": numbers["std"],
        "skewness": numbers["skewness"],
    }
    for step in log["steps"]:
        if step["step"] == "frame":
            cells["brain outside the frame"] = f"{100 * step['found']['share_of_brain_left_out']:.0f} %"
    cells["steps"] = ", ".join(f"{step['step']} {step['seconds']:.1f} s" for step in log["steps"])
    rows = "".join(f"<tr><th>{key}</th><td>{html.escape(str(value))}</td></tr>" for key, value in cells.items())
    figure = quality_figure(np.load(outcome.folder / "pictures.npy", allow_pickle=False))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    plt.close(figure)
    picture = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<h2>{name}</h2>{why}<img alt="{name} before and after, with brain outlines" '
        f'src="data:image/png;base64,{picture}"><div class="scroll"><table>{rows}</table></div>'
    )
