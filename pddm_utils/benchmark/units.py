"""The units of work of a benchmark, listed without loading what does the work."""

from __future__ import annotations

from collections.abc import Sequence

from pddm_utils.core.settings import Settings
from pddm_utils.methods.registry import NOISE_LEVEL_METHODS, SEEDED_METHODS, TRAINED_METHODS


def models_needed(settings: Settings, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(method, seed) to train: all that is scored, and every method's first seed, which is scored on validation scans.

    Args:
        settings: the profile.
        seeds: those of its seeds that are scored.
    """
    return [
        (name, seed)
        for seed in settings.seeds
        for name in settings.methods
        if name in TRAINED_METHODS and (seed == settings.seeds[0] or (seed in seeds and name in SEEDED_METHODS))
    ]


def units_to_score(settings: Settings, seeds: Sequence[int]) -> list[tuple[str, int, str]]:
    """(method, seed, noise level) to score; the slowest first, and the authors' level for the first seed only."""
    units: list[tuple[str, int, str]] = []
    for name in settings.methods[::-1]:
        if name not in NOISE_LEVEL_METHODS:
            own = seeds if name in SEEDED_METHODS else settings.seeds[:1]
            units += [(name, seed, "none") for seed in own]
            continue
        units += [
            (name, seed, level)
            for seed in seeds
            for level in settings.noise_levels
            if level == "validation" or seed == settings.seeds[0]
        ]
    return units
