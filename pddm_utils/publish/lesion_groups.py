"""What the methods find of small and large lesions, and of bright ones and such as are no brighter than their brain."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pddm_utils.benchmark.tables import markdown_table, mean_cell, read_results
from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import METHOD_NAMES

ISO_SHARE = 0.1  # of the lesions: those whose brightness is nearest to that of their brain
THIRDS = ("lower", "middle", "upper")


def lesion_groups(subjects: pd.DataFrame) -> dict[str, pd.Series]:
    """Which subjects belong to each group.

    Args:
        subjects: a row each, with `lesion_ml` and `lesion_contrast`.

    Returns:
        Bool by subject, by the name of the group: thirds of size; the tenth with the least contrast, and the thirds of
        the others by contrast.
    """
    size = pd.qcut(subjects.lesion_ml.rank(method="first"), 3, labels=THIRDS)
    nearest = subjects.lesion_contrast.abs().rank(method="first") <= max(1, round(ISO_SHARE * len(subjects)))
    others = subjects.lesion_contrast[~nearest].rank(method="first")
    contrast = pd.qcut(others, 3, labels=THIRDS).reindex(subjects.index)
    groups = {f"size, {third} third": size == third for third in THIRDS}
    groups["as bright as the brain, a tenth"] = nearest
    return groups | {f"contrast, {third} third of the others": contrast == third for third in THIRDS}


def groups_block(folder: Path, dataset: str) -> str:
    """AUPRC of every method in each group of a run's lesions, a group a row; seeds averaged, at the chosen level.

    Raises:
        InputError: the run does not say how bright lesions are.
    """
    scores = read_results(folder)[0]
    if "lesion_contrast" not in scores:
        raise InputError(f"{folder}: scored before the contrast of lesions was; run the benchmark again")
    used = scores[(scores.dataset == dataset) & (scores.rule == DEFAULT_RULE) & (scores.noise_level != "authors")]
    by_subject = used.pivot_table("auprc", "subject", "method")
    lesions = used.groupby("subject")[["lesion_ml", "lesion_contrast", "lesion_share"]].first().loc[by_subject.index]
    order = by_subject.mean().sort_values(ascending=False).index
    rows = []
    for name, chosen in lesion_groups(lesions).items():
        inside = by_subject[chosen.to_numpy(dtype=bool)]
        chance = lesions.lesion_share[chosen.to_numpy(dtype=bool)].mean()
        cells = (mean_cell(inside[method], inside.index) for method in order)
        rows.append([name, str(len(inside)), f"{chance:.3f}", *cells])
    header = ["lesions", "n", "chance", *(METHOD_NAMES[method] for method in order)]
    return markdown_table(header, rows)
