"""The quality-control page of a preprocessing run: every scan before and after, outliers first, in one HTML file."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pddm_utils.data.preprocess.checks import LARGEST_Z, LEAST_DICE
from pddm_utils.data.preprocess.review import Review
from pddm_utils.show.html_page import html_page, picture
from pddm_utils.show.outlines import quality_figure


def quality_page(reviews: Sequence[Review]) -> str:
    """The page as one HTML text without any outside file, scans in the order given, those that failed above.

    Args:
        reviews: of `review_scans`.
    """
    failed = [one for one in reviews if one.error]
    lines = [f"<li>{html.escape(one.name)}: {html.escape(one.error)}</li>" for one in failed]
    missing = f'<h2>Failed</h2><ul class="warning">{"".join(lines)}</ul>' if failed else ""
    done = len(reviews) - len(failed)
    flagged = sum(bool(one.reasons) for one in reviews)
    title = f"Preprocessing: {done} of {len(reviews)} scans done, {flagged} to look at"
    body = f"""<p>Blue: the scan's brain mask. Orange: the template's brain. A scan is flagged when the two overlap with
a Dice below {LEAST_DICE:g}, or when a statistic lies more than {LARGEST_Z:g} robust standard deviations from the
median of its data set. Before: the scan as it came, cut along the scanner's axes. Patient right is on the left.</p>
{missing}
{"".join(_section(one) for one in reviews if not one.error)}"""
    return html_page(title, body)


def _section(review: Review) -> str:
    name, numbers = html.escape(review.name), review.numbers
    why = f'<p class="warning">{html.escape("; ".join(review.reasons))}</p>' if review.reasons else ""
    cells = {"overlap with the template (Dice)": "not registered" if numbers["dice"] is None else numbers["dice"]}
    cells |= {
        "brain (ml)": numbers["brain_ml"],
        "mean": numbers["mean"],
        "standard deviation": numbers["std"],
        "skewness": numbers["skewness"],
    }
    for step in review.steps:
        if step["step"] == "frame":
            cells["brain outside the frame"] = f"{100 * step['found']['share_of_brain_left_out']:.0f} %"
    cells["steps"] = ", ".join(f"{step['step']} {step['seconds']:.1f} s" for step in review.steps)
    rows = "".join(f"<tr><th>{key}</th><td>{html.escape(str(value))}</td></tr>" for key, value in cells.items())
    shown = picture(quality_figure(review.pictures()), f"{review.name} before and after, with brain outlines")
    return f'<h2>{name}</h2>{why}{shown}<div class="scroll"><table>{rows}</table></div>'
