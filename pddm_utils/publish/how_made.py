"""What a table comes from, in sentences: command, seeds, steps, hardware, noise levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from pddm_utils.benchmark.leaderboard import OLDER, older_methods
from pddm_utils.benchmark.tables import short_name
from pddm_utils.core.settings import load_settings, profile_names
from pddm_utils.methods.registry import METHOD_NAMES


def provenance_line(run: Mapping[str, Any]) -> str:
    """One sentence on what a table comes from: command, seeds, steps, hardware."""
    settings, hardware = run["settings"], run["hardware"]
    seeds = ", ".join(map(str, run.get("seeds", settings["seeds"])))
    seeds += ", each another fold" if run.get("folds") else ""
    return (
        f"Made with `{_command(run)}`; seeds {seeds}; {_budget(run)}"
        f"{hardware['cpu']}, {hardware['cores']} cores"
        f"{', ' + hardware['gpu'] if hardware['gpu'] else ', no GPU'}; torch {run['packages']['torch']}."
        f"{' Scored by ' + str(run['jobs']) + ' processes at once on one card.' if hardware['gpu'] else ''}"
        f"{_older_note(run)}"
    )


def _older_note(run: Mapping[str, Any]) -> str:
    """Which rows of a run stand for an older definition of their method."""
    older = ", ".join(short_name(name) for name in older_methods(run))
    note = f" {OLDER} {older}: as defined then; today's methods of these names follow their authors more closely."
    return note if older else ""


def _command(run: Mapping[str, Any]) -> str:
    """What makes this run again: part of a profile is asked for by name."""
    settings, profile = run["settings"], run["settings"]["profile"]
    if profile.startswith("gpu-"):  # steps by the time there was, not by the profile
        return "python -m pddm_utils gpu --stages training"
    seeds, parts = run.get("seeds", settings["seeds"]), ""
    if run.get("folds"):
        parts += f" --folds {run['folds']}"
    elif seeds != settings["seeds"]:
        parts += f" --seeds {','.join(map(str, seeds))}"
    methods = settings.get("methods", [])
    if methods and profile in profile_names() and list(load_settings(profile).methods) != list(methods):
        parts += f" --methods {','.join(methods)}"
    if parts:
        return f"python -m pddm_utils benchmark --profile {profile}{parts}"
    return f"make benchmark PROFILE={profile}{' WEIGHTS=shipped' if run['weights'] == 'shipped' else ''}"


def _budget(run: Mapping[str, Any]) -> str:
    """Steps and CPU minutes (on a GPU: seconds) of the models: by name, or their range where there are many."""
    records = run["models"]
    by_method: dict[str, set[int]] = {}
    for name, record in records.items():
        by_method.setdefault(name.rpartition("-seed")[0], set()).add(record["steps"])
    if run["hardware"]["gpu"]:
        return _each(records, lambda record: f"{record['seconds']:.0f} s")
    if any(len(steps) > 1 for steps in by_method.values()):
        return f"{_budgets(records)}seeds of unequal length, so ± mixes length and chance; "
    return _budgets(records)


def _each(records: Mapping[str, Mapping[str, Any]], time: Callable[[Mapping[str, Any]], str]) -> str:
    parts = [f"{name} {record['steps']} steps in {time(record)}" for name, record in records.items()]
    return ", ".join(parts) + ("; " if parts else "")


def _budgets(records: Mapping[str, Mapping[str, Any]]) -> str:
    if len(records) <= 6:
        return _each(records, lambda record: f"{record['cpu_seconds'] / 60:.0f} CPU min")
    steps, minutes = (
        [value(record) for record in records.values()]
        for value in (lambda record: record["steps"], lambda record: record["cpu_seconds"] / 60)
    )
    return (
        f"{len(records)} models of {min(steps)} to {max(steps)} steps in {min(minutes):.0f} to {max(minutes):.0f} "
        "CPU min each; "
    )


def timestep_line(scores: pd.DataFrame) -> str:
    """Which noise level each method runs at; where families of lesions have their own, which has which."""
    chosen = scores[scores.noise_level == "validation"].groupby(["method", "dataset"]).timestep.first()
    parts = []
    for name in (name for name in METHOD_NAMES if name in chosen.index.levels[0]):
        if chosen[name].nunique() == 1:
            parts.append(f"{METHOD_NAMES[name]}: timestep {chosen[name].iloc[0]}")
        else:
            own = ", ".join(f"{level} on {dataset}" for dataset, level in chosen[name].items())
            parts.append(f"{METHOD_NAMES[name]}: timestep {own}")
    return ", ".join(parts)


def levels_line(scores: pd.DataFrame) -> str:
    """How the noise levels were chosen; nothing for a run without any."""
    levels = timestep_line(scores)
    return f"Noise level chosen on validation subjects: {levels}." if levels else "No method with a noise level."
