"""The page that `detect` writes for one scan: pictures, numbers and warnings in one self-contained HTML file."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from pddm_utils.data.scan import Scan
from pddm_utils.show.figures import show_reconstruction
from pddm_utils.show.html_page import html_page, picture
from pddm_utils.show.widgets.volume_page import volume_html

_SHOWN_SLICES = 4


def slices_of_interest(anomaly_map: np.ndarray, brain_mask: np.ndarray, count: int = _SHOWN_SLICES) -> list[int]:
    """The slices with the largest sums of the anomaly map, at least a tenth of the brain apart; rising indices.

    Args:
        anomaly_map: `(D, H, W)`.
        brain_mask: `(D, H, W)` bool.
        count: how many at most.
    """
    order = np.argsort((anomaly_map * brain_mask).sum(axis=(1, 2)))[::-1]
    apart = max(1, len(order) // 10)
    chosen: list[int] = []
    for index in order:
        if all(abs(index - other) >= apart for other in chosen):
            chosen.append(int(index))
        if len(chosen) == count:
            break
    return sorted(chosen)


def report_page(scan: Scan, reconstruction: np.ndarray, anomaly_map: np.ndarray, facts: Mapping[str, Any]) -> str:
    """The report as one HTML page without any outside file.

    Args:
        scan: the prepared scan.
        reconstruction: `(D, H, W)` in [0, 1].
        anomaly_map: `(D, H, W)`.
        facts: of `Detection.report`.
    """
    title = f"{facts['scan']}: {facts['anomalous_ml']:.1f} ml above the threshold"
    pictures = "".join(
        _picture(scan, reconstruction, anomaly_map, index, facts)
        for index in slices_of_interest(anomaly_map, scan.brain_mask)
    )
    body = f"""<p class="notice">{html.escape(facts["notice"])}</p>
<h2>Can this scan be judged?</h2>
{_warnings(facts)}
<h2>Where it differs from healthy anatomy</h2>
<p>The slices with the largest anomaly map, in radiological view (the patient's right is on the left).</p>
{pictures}
<h2>All of it</h2>
{volume_html(scan, anomaly_map, facts["threshold"], facts["map_unit"], "volume")}
<h2>Numbers</h2>
{_table(facts)}"""
    return html_page(title, body)


def _warnings(facts: Mapping[str, Any]) -> str:
    if not facts["warnings"]:
        return (
            f"<p>No warning. Largest deviation from the {facts['reference_scans']} scans behind the threshold: "
            f"{facts['out_of_distribution']:.1f} robust standard deviations.</p>"
        )
    return "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in facts["warnings"])


def _picture(
    scan: Scan, reconstruction: np.ndarray, anomaly_map: np.ndarray, index: int, facts: Mapping[str, Any]
) -> str:
    figure = show_reconstruction(scan, reconstruction, anomaly_map, index, facts["threshold"], facts["map_unit"])
    height = f"slice {index} of {len(scan.image)}"
    return picture(figure, f"Scan, reconstruction, anomaly map and voxels above the threshold, {height}")


def _table(facts: Mapping[str, Any]) -> str:
    rule = f"{facts['threshold_rule']} of {facts['reference_scans']} validation scans"
    rows = {
        "anomaly map": f"{facts['map']} ({facts['map_unit']})",
        "model": facts["model"],
        "noise level (timestep)": "none" if facts["timestep"] is None else facts["timestep"],
        f"threshold ({rule})": f"{facts['threshold']:.3f}",
        "above the threshold": f"{facts['anomalous_ml']:.1f} ml",
        "assessed (brain, eroded)": f"{facts['assessed_ml']:.0f} of {facts['brain_ml']:.0f} ml",
        "out-of-distribution score": f"{facts['out_of_distribution']:.1f} robust standard deviations",
    }
    for name, value in facts["quality"].items():
        rows[name.replace("_", " ")] = f"{value:.4g} ({facts['deviations'][name]:+.1f} robust standard deviations)"
    cells = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>"
