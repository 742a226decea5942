"""Which scaling the SOOP slices get, chosen on validation slices: `python -m pddm_utils.data.sources.soop_scaling`.

No network takes part: only brightness, and the z-score against mean and standard deviation by place of the lesion-free
training slices. Test slices are not looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_all
from pddm_utils.data.scan import SCALINGS, Scan
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.soop import soop_rows
from pddm_utils.data.sources.soop_table import LESIONED
from pddm_utils.evaluation.metrics import average_precision
from pddm_utils.evaluation.postprocess import erode_in_plane, median_filter

_FEWEST = 20  # training slices with brain at a place that has a mean and a standard deviation


def compare_scalings(rows: list[ManifestRow], cache: ScanCache) -> pd.DataFrame:
    """Mean AUPRC of brightness and of the z-score by place on validation slices, for every scaling.

    Args:
        rows: of `soop_rows`.
        cache: where prepared slices are kept.

    Returns:
        A row for each scaling, with the columns `scaling`, `brightness`, `z_score`, `slices`.
    """
    records = []
    for scaling in SCALINGS:
        scaled = [replace(row, scaling=scaling) for row in rows if row.split != "test"]
        train = [row for row in scaled if row.split == "train"]
        lesioned = [row for row in scaled if row.split == "val" and row.dataset == LESIONED]
        prepare_all(train + lesioned, cache)
        z_score = _z_score([load_scan(row, cache) for row in train])
        scans = [load_scan(row, cache) for row in lesioned]
        records.append(
            {
                "scaling": scaling,
                "brightness": np.mean([_auprc(scan, lambda scan: scan.image) for scan in scans]),
                "z_score": np.mean([_auprc(scan, z_score) for scan in scans]),
                "slices": len(scans),
            }
        )
    return pd.DataFrame(records)


def _z_score(train: list[Scan]) -> Callable[[Scan], np.ndarray]:
    """The positive z-score by place, 0 where fewer than `_FEWEST` training slices have brain."""
    images = np.stack([scan.image for scan in train])
    inside = np.stack([scan.brain_mask for scan in train])
    count = np.maximum(inside.sum(axis=0), 1)
    mean = images.sum(axis=0) / count
    deviation = np.sqrt(((images - mean) ** 2 * inside).sum(axis=0) / count)
    known = (count >= _FEWEST) & (deviation > 0)

    def score(scan: Scan) -> np.ndarray:
        return np.divide(np.maximum(scan.image - mean, 0), deviation, out=np.zeros_like(mean), where=known)

    return score


def _auprc(scan: Scan, score: Callable[[Scan], np.ndarray]) -> float:
    inside = erode_in_plane(scan.brain_mask)
    return average_precision(median_filter(score(scan) * inside, inside), scan.lesion_mask)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of prepared scans and results")
    table = compare_scalings(soop_rows(require_data_root()), ScanCache(parser.parse_args().runs / "cache"))
    print(table.to_string(index=False, float_format="%.3f"))
