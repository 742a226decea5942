"""Writes the benchmark's tables into Markdown pages, between `<!-- results:NAME -->` marks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.leaderboard import (
    OLDER,
    best_floors,
    finished_runs,
    improvement_markdown,
    large_data_sets,
    leaderboard_markdown,
    older_methods,
    questions_markdown,
    read_selection,
)
from pddm_utils.benchmark.studies.ablation_tables import read_ablation, trained_markdown
from pddm_utils.benchmark.studies.factorial_tables import factorial_markdown, patching_markdown, read_factorial
from pddm_utils.benchmark.studies.search_tables import chosen_idea_lines, ideas_markdown, outcome_markdown, read_search
from pddm_utils.benchmark.tables import (
    format_interval,
    format_summary,
    headline_markdown,
    is_healthy,
    lesion_table,
    markdown_table,
    read_results,
    scan_auroc_table,
    short_name,
    subject_markdown,
    summary_table,
    with_intensity,
)
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.core.settings import load_settings, profile_names
from pddm_utils.core.shipped import weights_root
from pddm_utils.evaluation.thresholds import DEFAULT_RULE, LESION_VAL, ORACLE
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.publish.front_page import front_block

_COHORTS = {
    "simulated": "**Simulated** {contrast} subjects with simulated lesions; trained on {train_subjects} healthy ones.",
    "ixi": "Real {contrast} scans, trained on {train_subjects} healthy people of the IXI data set; the test lesions "
    "are **simulated** and inserted into scans of other healthy people.",
    "soop": "Real {contrast} slices of stroke patients (SOOP) with real lesions; trained on {train_subjects} slices "
    "without a lesion, which are of patients too.",
}
_BOARD_NOTE = (
    "Rows by the mean on the first data set; neighbours whose intervals overlap are not ranked. Seconds: "
    "rebuilding one test scan, mean over scans; a dash: that run did not measure it. CPU minutes: by seed."
)
_IMPROVEMENT_NOTE = (
    "The baseline is the method without patches that is best on the validation subjects of the same "
    "data set, each at its chosen noise level, with the first seed. Relative: ratio of the means less "
    "one, with a bootstrap interval over subjects."
)
_QUESTIONS_NOTE = (
    "An answer needs an interval without zero and p below 0.05; *not shown* is no proof of the contrary."
    " False positives: what is marked on scans without a lesion."
)
_FLOOR_NOTE = (
    "Floors need no network: brightness (T1: darkness), the z-score by place, the difference to a blurred brain; the "
    "best of those that were run is chosen on validation subjects."
)
_L1_NOTE = "L1: of the reconstruction, in the brain; the atlas's is the mean by place, the blur's the blurred brain."
_TEST = "p by sign flips, Holm-corrected over the table"
_DIFFERENCE = "95 % BCa bootstrap interval over subjects, p by sign flips, Holm-corrected over the table"
_INTERVAL = "mean [95 % BCa bootstrap interval over subjects, 10,000 draws] ± std over seeds where there are several"


def provenance_line(run: Mapping[str, Any]) -> str:
    """One sentence on what a table comes from: command, seeds, steps, hardware."""
    settings, hardware = run["settings"], run["hardware"]
    seeds = ", ".join(map(str, run.get("seeds", settings["seeds"])))
    seeds += ", each another fold" if run.get("folds") else ""
    return (
        f"Made with `{_command(run)}`; seeds {seeds}; {_budget(run)}"
        f"{hardware['cpu']}, {hardware['cores']} cores"
        f"{', ' + hardware['gpu'] if hardware['gpu'] else ', no GPU'}; torch {run['packages']['torch']}."
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
    """Steps and CPU minutes of the models: each by name, or their range where there are many."""
    records = run["models"]
    by_method: dict[str, set[int]] = {}
    for name, record in records.items():
        by_method.setdefault(name.rpartition("-seed")[0], set()).add(record["steps"])
    if any(len(steps) > 1 for steps in by_method.values()):
        return f"{_budgets(records)}seeds of unequal length, so ± mixes length and chance; "
    return _budgets(records)


def _budgets(records: Mapping[str, Mapping[str, Any]]) -> str:
    if len(records) <= 6:
        return "".join(
            f"{name} {record['steps']} steps in {record['cpu_seconds'] / 60:.0f} CPU min, "
            for name, record in records.items()
        ).removesuffix(", ") + ("; " if records else "")
    steps, minutes = (
        [value(record) for record in records.values()]
        for value in (lambda record: record["steps"], lambda record: record["cpu_seconds"] / 60)
    )
    return (
        f"{len(records)} models of {min(steps)} to {max(steps)} steps in {min(minutes):.0f} to {max(minutes):.0f} "
        "CPU min each; "
    )


def timestep_line(scores: pd.DataFrame) -> str:
    """Which noise level each method runs at."""
    chosen = scores[scores.noise_level == "validation"].groupby("method").timestep.first()
    return ", ".join(f"{METHOD_NAMES[name]}: timestep {chosen[name]}" for name in METHOD_NAMES if name in chosen)


def auprc_block(folder: Path, noise_level: str = "validation") -> str:
    """AUPRC of every lesioned data set with five subjects or more."""
    scores, run = read_results(folder)
    large = large_data_sets(scores)
    table = headline_markdown(large, "auprc", noise_level, floors=best_floors(large, read_selection(folder)))
    levels = timestep_line(scores) if noise_level == "validation" else f"timestep {run['settings']['authors_timestep']}"
    what = "chosen on validation subjects" if noise_level == "validation" else "the authors'"
    noise = f" Noise level: {what} ({levels})." if levels else ""
    return f"{table}\n\nAUPRC, {_INTERVAL}; {_TEST}. {_FLOOR_NOTE}{noise} {provenance_line(run)}"


def patients_block(folder: Path, dataset: str) -> str:
    """AUPRC of each patient of a small data set, without an interval."""
    scores, run = read_results(folder)
    if dataset not in set(scores.dataset):
        raise InputError(f"{folder}/scores.csv has no {dataset}; run the benchmark with PDDM_DATA set")
    return (
        f"{subject_markdown(scores, dataset)}\n\nAUPRC of each patient, seeds averaged, no interval, two patients. "
        f"Noise level chosen on validation subjects ({timestep_line(scores)}). "
        f"{provenance_line(run)}"
    )


def dice_block(folder: Path, dataset: str) -> str:
    """Dice of one data set at every threshold rule."""
    scores, run = read_results(folder)
    part = scores[scores.dataset == dataset]
    rules = [
        rule for rule in (*sorted(set(part.rule) - {LESION_VAL, ORACLE}), LESION_VAL, ORACLE) if rule in set(part.rule)
    ]
    tables = {rule: summary_table(part, "dice", rule=rule).assign(std_seeds=float("nan")) for rule in rules}
    methods = [name for name in METHOD_NAMES if name in set(tables[DEFAULT_RULE].method)]
    rows = [
        [METHOD_NAMES[method], *(format_summary(tables[rule], dataset, method) for rule in rules)] for method in methods
    ]
    notes = {DEFAULT_RULE: " (default)", ORACLE: " (test labels)"}
    return (
        markdown_table(["method", *(rule + notes.get(rule, "") for rule in rules)], rows)
        + f"\n\nDice on {dataset}, {_INTERVAL.split(' ±')[0]}. {provenance_line(run)}"
    )


def healthy_block(folder: Path) -> str:
    """What happens on healthy test scans, lesion-wise detection and scan-level AUROC, at the default threshold."""
    scores, run = read_results(folder)
    scores = large_data_sets(scores)
    false_ml, error, median = (
        summary_table(scores, name) if name in scores else pd.DataFrame()
        for name in ("false_positive_ml", "healthy_l1", "median_l1")
    )
    lesions, auroc = lesion_table(scores), scan_auroc_table(scores)
    chosen = with_intensity(scores, "validation")
    rows = []
    for dataset in sorted(set(chosen.dataset), key=lambda name: (not is_healthy(name), name)):
        for method in (name for name in METHOD_NAMES if name in set(chosen.method)):
            alarms, l1, found, whole = (
                table[(table.dataset == dataset) & (table.method == method)] if len(table) else table
                for table in (false_ml, error, lesions, auroc)
            )
            rows.append(
                [
                    dataset,
                    METHOD_NAMES[method],
                    format_interval(alarms.iloc[0], 1),
                    format_interval(l1.iloc[0]) if is_healthy(dataset) and method != "intensity" else "",
                    "" if is_healthy(dataset) else f"{100 * found.iloc[0].sensitivity:.0f} %",
                    f"{found.iloc[0].false_components:.1f}",
                    ""
                    if whole.empty
                    else f"{whole.iloc[0].auroc:.2f} [{whole.iloc[0].low:.2f}, {whole.iloc[0].high:.2f}]",
                ]
            )
        constant = median[median.dataset == dataset] if len(median) else median
        if len(constant):
            rows.append([dataset, "the brain's median", "", format_interval(constant.iloc[0]), "", "", ""])
    header = ["data set", "method", "false positives, ml", "L1 on healthy scans", "lesions found"]
    header += ["false components", "scan AUROC"]
    return (
        markdown_table(header, rows) + f"\n\nAt the threshold rule `{DEFAULT_RULE}`; {_INTERVAL.split(' ±')[0]}. "
        f"{_L1_NOTE} {provenance_line(run)}"
    )


def leaderboard_block(folder: Path) -> str:
    """Every method of a run with what it costs, pDDPM against the best baseline, and two questions answered."""
    scores, run = read_results(folder)
    scores = large_data_sets(scores)
    what = _COHORTS.get(run["settings"]["cohort"], "{contrast} scans of a manifest.").format(**run["settings"])
    levels = f"Noise level: chosen on validation subjects ({timestep_line(scores)})."
    selection = read_selection(folder)
    floors = best_floors(scores, selection)
    return "\n\n".join(
        [
            what,
            leaderboard_markdown(scores, run, floors=floors),
            f"AUPRC, {_INTERVAL}; {_TEST}. {_FLOOR_NOTE} {_BOARD_NOTE}",
            "**Against the baseline that is best on validation**",
            improvement_markdown(scores, selection),
            f"AUPRC on test subjects; {_TEST}. {_IMPROVEMENT_NOTE}",
            "**With a threshold, and on healthy scans**",
            questions_markdown(scores, floors=floors),
            f"At the threshold rule `{DEFAULT_RULE}`; {_TEST}. {_QUESTIONS_NOTE}",
            f"{levels} {provenance_line(run)}",
        ]
    )


def leaderboards_block(results: Path) -> str:
    """A section for every full run in a folder of results; real scans first."""
    cohorts = {folder: read_results(folder)[1]["settings"]["cohort"] for folder in finished_runs(results)}
    folders = sorted(cohorts, key=lambda folder: (cohorts[folder] == "simulated", folder.name))
    return "\n\n".join(f"## Profile `{folder.name}`\n\n{leaderboard_block(folder)}" for folder in folders)


def ideas_block(folder: Path, cohort: str) -> str:
    """Every idea of the validation search on one cohort."""
    table, made = read_search(folder, "ideas")
    chosen, settings = chosen_idea_lines(table, cohort), made["settings"]
    levels = ", ".join(f"{METHOD_NAMES[name]}: timestep {level}" for name, level in settings[cohort]["levels"].items())
    return (
        f"{ideas_markdown(table, cohort)}\n\n**Validation** scans of `{cohort}`, every n-th slice with "
        f"n = {settings['slice_step']}; AUPRC, means over subjects; difference of the mean over kinds of lesions, "
        f"{_DIFFERENCE}. {levels}. {chosen}"
    )


def outcome_block(folder: Path) -> str:
    """What the ideas that validation chose gave on test scans."""
    table, made = read_search(folder, "test")
    return (
        f"{outcome_markdown(table)}\n\n**Test** scans, every slice; AUPRC; difference on the same subjects with a "
        f"95 % BCa bootstrap interval over subjects, none for single patients. {made['hardware']['cpu']}, "
        f"torch {made['packages']['torch']}."
    )


def trained_block(folder: Path, question: str) -> str:
    """What trainings that differ in one thing give on the same test scans."""
    table, made = read_ablation(folder, question)
    used = table[table.noise_level == "validation"]
    levels = ", ".join(f"{name} {part.timestep.iloc[0]}" for name, part in used.groupby("variant", sort=False))
    return (
        f"{trained_markdown(table)}\n\nAUPRC, mean over subjects, one training seed; difference on the same "
        f"subjects with a 95 % BCa bootstrap interval; single patients have none. Every n-th slice with "
        f"n = {made['settings']['slice_step']}. Timestep chosen on validation subjects: {levels}. "
        f"`python -m pddm_utils trained-ablations --questions {question}`; {made['hardware']['cpu']}, "
        f"torch {made['packages']['torch']}."
    )


def recipe_block(folder: Path, profile: str, dataset: str) -> str:
    """The factorial of trainings on a cohort's validation scans."""
    table, made = read_factorial(folder, profile)
    people, levels = table[table.dataset == dataset].subject.nunique(), made["settings"]["levels"]
    return (
        f"{factorial_markdown(table, dataset)}\n\n**Validation**, `{dataset}`, n = {people}; AUPRC, {_INTERVAL}, at "
        f"the noise level in brackets, the best for its column of {len(levels)} levels from {min(levels)} "
        f"to {max(levels)}; healthy error: mean $\\lvert x - \\hat x \\rvert$ of scans without lesion at the level of "
        f"the plain map. One training each.\n\n{patching_markdown(table, dataset)}\n\npDDPM minus DDPM with the same "
        f"training, on the same subjects, each at its own best level. `python -m pddm_utils recipe --profile "
        f"{profile}`; {made['hardware']['cpu']}, torch {made['packages']['torch']}."
    )


def models_block() -> str:
    """The cards of all shipped models, one after another."""
    cards = [path.read_text(encoding="utf-8").strip() for path in sorted(weights_root().glob("*/README.md"))]
    return "\n\n".join(re.sub(r"^#", "##", card, flags=re.MULTILINE) for card in cards)


def fill_marks(text: str, results: Path) -> str:
    """Replace what stands between the marks by what the result files say.

    Marks: `<!-- results:KIND PROFILE [DATASET] -->` ... `<!-- /results -->`, KIND one of auprc, auprc-authors,
    patients, dice, healthy, leaderboard, ideas, ideas-on-test, trained, recipe. Without a profile: `front`, the table
    of the front page; `leaderboards`, the leaderboard of every full run; `models`, the cards of the shipped models.

    Raises:
        InputError: an unknown mark.
    """

    def block(match: re.Match) -> str:
        kind, *rest = match[1].split()
        makers: dict[str, Callable[..., str]] = {
            "auprc": auprc_block,
            "auprc-authors": lambda folder: auprc_block(folder, "authors"),
            "patients": patients_block,
            "dice": dice_block,
            "healthy": healthy_block,
            "leaderboard": leaderboard_block,
            "leaderboards": lambda: leaderboards_block(results),
            "recipe": recipe_block,
            "front": lambda: front_block(results),
            "models": models_block,
            "ideas": ideas_block,
            "ideas-on-test": outcome_block,
            "trained": trained_block,
        }
        if kind not in makers:
            raise InputError(f"unknown mark results:{match[1]}; known kinds: {', '.join(makers)}")
        if rest:
            rest[0] = results / rest[0]
        return f"<!-- results:{match[1]} -->\n{makers[kind](*rest)}\n<!-- /results -->"

    return re.sub(r"<!-- results:([^>]*?) -->\n.*?<!-- /results -->", block, text, flags=re.DOTALL)


def fill_pages(pages: list[Path], results: Path) -> list[Path]:
    """Bring the marked tables of these pages up to date; returns the pages that changed."""
    changed = []
    for page in pages:
        if not page.is_file():
            raise InputError(f"{page}: no such page; run this in the project's folder")
        old = page.read_text(encoding="utf-8")
        new = fill_marks(old, results)
        if new != old:
            write_text(page, new)
            changed.append(page)
    return changed
