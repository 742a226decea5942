"""The units of work of a benchmark, listed without loading what does the work."""

from __future__ import annotations

from collections.abc import Sequence

from pddm_utils.core.settings import Settings
from pddm_utils.methods.registry import NOISE_LEVEL_METHODS, SEEDED_METHODS, TRAINED_METHODS


def seeds_of(settings: Settings, name: str, seeds: Sequence[int]) -> Sequence[int]:
    """Seeds for which a method is trained and scored: a method whose training draws nothing has the profile's first.

    Args:
        settings: the profile.
        name: of the method.
        seeds: those of the profile's seeds that are scored.
    """
    return seeds if name in SEEDED_METHODS else settings.seeds[:1]


def models_needed(settings: Settings, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(method, seed) to train, for the seeds that are scored."""
    return [
        (name, seed)
        for seed in settings.seeds
        for name in settings.methods
        if name in TRAINED_METHODS and seed in seeds_of(settings, name, seeds)
    ]


def units_to_score(settings: Settings, seeds: Sequence[int]) -> list[tuple[str, int, str]]:
    """(method, seed, noise level) to score; the slowest first, and the authors' level for the first seed only."""
    units: list[tuple[str, int, str]] = []
    for name in settings.methods[::-1]:
        if name not in NOISE_LEVEL_METHODS:
            units += [(name, seed, "none") for seed in seeds_of(settings, name, seeds)]
            continue
        units += [
            (name, seed, level)
            for seed in seeds
            for level in settings.noise_levels
            if level == "validation" or seed == settings.seeds[0]
        ]
    return units
