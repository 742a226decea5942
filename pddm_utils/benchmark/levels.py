"""The noise level of each method: chosen on validation scans, for all test sets or for each family of lesions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from pddm_utils.benchmark.evaluate import choose_timesteps
from pddm_utils.benchmark.tables import FAMILY, is_healthy
from pddm_utils.core.settings import Settings


def family_levels(selection: pd.DataFrame) -> dict[tuple[str, str], int]:
    """The noise level with the best mean validation AUPRC of each (method, data set); -1 for methods without one."""
    means = selection.groupby(["method", "dataset", "timestep"]).auprc.mean()
    return {pair: int(group.idxmax()[2]) for pair, group in means.groupby(["method", "dataset"])}


def levels_of_sets(
    selection: pd.DataFrame, settings: Settings, datasets: Collection[str]
) -> dict[tuple[str, str], int]:
    """The noise level at which each (method, test set) is scored.

    With `level_choice: family` that is the best on validation scans of the same family; a set without any, such as
    healthy scans or patients, has the best over all families, as every set has with `mean`.

    Args:
        selection: validation AUPRC of methods with noise.
        settings: the profile.
        datasets: the test sets.
    """
    chosen = {
        (name, dataset): level for name, level in choose_timesteps(selection, settings).items() for dataset in datasets
    }
    if settings.level_choice == "family" and not selection.empty:
        own = family_levels(selection[selection.timestep.isin(settings.timesteps)])
        chosen |= {pair: level for pair, level in own.items() if pair in chosen}
    return chosen


def sets_by_level(chosen: Mapping[tuple[str, str], int], name: str) -> dict[int, list[str]]:
    """Test sets of a method by the level they are scored at; healthy scans at all of them, as each set needs them."""
    levels = sorted({level for (method, _), level in chosen.items() if method == name})
    return {
        level: [
            dataset
            for (method, dataset), own in chosen.items()
            if method == name and (own == level or is_healthy(dataset))
        ]
        for level in levels
    }


def levels_at_the_edge(chosen: Mapping[tuple[str, str], int], settings: Settings) -> list[str]:
    """A warning for each method whose best level is the first or last of the grid: a better one may lie beyond.

    Args:
        chosen: of `levels_of_sets`.
        settings: with the grid, `timesteps`; one of fewer than three levels is no grid.
    """
    grid = sorted(settings.timesteps)
    ends = {grid[0]: "smallest", grid[-1]: "largest"} if len(grid) > 2 else {}
    lines = []
    for name in dict.fromkeys(method for method, _ in chosen):
        own = {dataset: level for (method, dataset), level in chosen.items() if method == name}
        for level in sorted(set(own.values()) & set(ends)):
            where = "" if len(set(own.values())) == 1 else f" for {', '.join(d for d in own if own[d] == level)}"
            lines.append(
                f"{name}: validation chose the {ends[level]} noise level there is, {level}{where}; a better one may "
                "lie beyond, add some to the setting timesteps"
            )
    return lines


def label_noise_levels(scores: pd.DataFrame, chosen: Mapping[tuple[str, str], int], settings: Settings) -> pd.DataFrame:
    """Name each row's noise level.

    It is `validation` (chosen there), `authors` (published), `none`, or `family`: a healthy scan at a level that was
    chosen for a family of lesions and is not its own.
    """
    own = np.array([chosen.get(pair, -1) for pair in zip(scores.method, scores.dataset, strict=True)])
    noisy, families = scores.timestep >= 0, {(method, level) for (method, _), level in chosen.items()}
    of_family = np.array([pair in families for pair in zip(scores.method, scores.timestep, strict=True)], dtype=bool)
    levels = {"validation": noisy & (scores.timestep == own), "none": ~noisy}
    levels[FAMILY] = noisy & (scores.timestep != own) & of_family & scores.dataset.map(is_healthy)
    if "authors" in settings.noise_levels:
        levels["authors"] = (scores.timestep == settings.authors_timestep) & (scores.seed == settings.seeds[0])
    labelled = [scores[rows].assign(noise_level=level) for level, rows in levels.items()]
    columns = ["dataset", "method", "seed", "subject", "noise_level", "timestep", "rule", "threshold"]
    table = pd.concat(labelled, ignore_index=True).sort_values(columns, kind="stable", ignore_index=True)
    return table[columns + [name for name in table.columns if name not in columns]]
