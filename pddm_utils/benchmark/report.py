"""Writes the benchmark's tables into Markdown pages, between `<!-- results:NAME -->` marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.tables import (
    format_interval,
    headline_markdown,
    is_healthy,
    lesion_table,
    markdown_table,
    read_results,
    scan_auroc_table,
    subject_markdown,
    summary_table,
    with_intensity,
)
from pddm_utils.catalogue import METHOD_NAMES
from pddm_utils.errors import InputError
from pddm_utils.evaluation.thresholds import DEFAULT_RULE, LESION_VAL, ORACLE
from pddm_utils.files import write_text
from pddm_utils.weights import weights_root

_INTERVAL = "mean [95 % bootstrap interval over subjects, 10,000 draws] ± std over seeds where there are several"


def provenance_line(run: Mapping[str, Any]) -> str:
    """One sentence on what a table comes from: command, seeds, steps, hardware."""
    settings, hardware = run["settings"], run["hardware"]
    steps = ", ".join(f"{name} {record['steps']} steps in {record['cpu_seconds'] / 60:.0f} CPU min"
                      for name, record in run["models"].items())
    seeds = ", ".join(map(str, settings["seeds"]))
    weights = " WEIGHTS=shipped" if run["weights"] == "shipped" else ""
    return (f"Made with `make benchmark PROFILE={settings['profile']}{weights}`; seeds {seeds}; "
            f"{steps}; {hardware['cpu']}, {hardware['cores']} cores"
            f"{', ' + hardware['gpu'] if hardware['gpu'] else ', no GPU'}; torch {run['packages']['torch']}.")


def timestep_line(scores: pd.DataFrame) -> str:
    """Which noise level each method runs at."""
    chosen = scores[scores.noise_level == "validation"].groupby("method").timestep.first()
    return ", ".join(f"{METHOD_NAMES[name]}: timestep {chosen[name]}" for name in METHOD_NAMES if name in chosen)


def auprc_block(folder: Path, noise_level: str = "validation") -> str:
    """AUPRC of every lesioned data set with five subjects or more."""
    scores, run = read_results(folder)
    large = scores.groupby("dataset").subject.transform("nunique") >= 5
    table = headline_markdown(scores[large], "auprc", noise_level)
    levels = timestep_line(scores) if noise_level == "validation" else f"timestep {run['settings']['authors_timestep']}"
    what = "chosen on validation subjects" if noise_level == "validation" else "the authors'"
    test = "p by sign flips, Holm-corrected over the table"
    return f"{table}\n\nAUPRC, {_INTERVAL}; {test}. Noise level: {what} ({levels}). {provenance_line(run)}"


def patients_block(folder: Path, dataset: str) -> str:
    """AUPRC of each patient of a small data set, without an interval."""
    scores, run = read_results(folder)
    if dataset not in set(scores.dataset):
        raise InputError(f"{folder}/scores.csv has no {dataset}; run the benchmark with PDDM_DATA set")
    return (f"{subject_markdown(scores, dataset)}\n\nAUPRC of each patient, seeds averaged, no interval, two patients. "
            f"Noise level chosen on validation subjects ({timestep_line(scores)}). "
            f"{provenance_line(run)}")


def dice_block(folder: Path, dataset: str) -> str:
    """Dice of one data set at every threshold rule."""
    scores, run = read_results(folder)
    part = scores[scores.dataset == dataset]
    rules = [rule for rule in (*sorted(set(part.rule) - {LESION_VAL, ORACLE}), LESION_VAL, ORACLE)
             if rule in set(part.rule)]
    tables = {rule: summary_table(part, "dice", rule=rule).set_index("method") for rule in rules}
    methods = [name for name in METHOD_NAMES if name in tables[DEFAULT_RULE].index]
    rows = [[rule + (" (default)" if rule == DEFAULT_RULE else " (test labels)" if rule == ORACLE else ""),
             *(format_interval(tables[rule].loc[method]) for method in methods)] for rule in rules]
    return (markdown_table(["threshold rule", *(METHOD_NAMES[m] for m in methods)], rows)
            + f"\n\nDice on {dataset}, {_INTERVAL.split(' ±')[0]}. {provenance_line(run)}")


def healthy_block(folder: Path) -> str:
    """What happens on healthy test scans, lesion-wise detection and scan-level AUROC, at the default threshold."""
    scores, run = read_results(folder)
    scores = scores[scores.groupby("dataset").subject.transform("nunique") >= 5]
    false_ml, error = (summary_table(scores, name) for name in ("false_positive_ml", "healthy_l1"))
    lesions, auroc = lesion_table(scores), scan_auroc_table(scores)
    chosen = with_intensity(scores, "validation")
    rows = []
    for dataset in sorted(set(chosen.dataset), key=lambda name: (not is_healthy(name), name)):
        for method in (name for name in METHOD_NAMES if name in set(chosen.method)):
            pick = [table[(table.dataset == dataset) & (table.method == method)]
                    for table in (false_ml, error, lesions, auroc)]
            healthy = is_healthy(dataset)
            rows.append([
                dataset, METHOD_NAMES[method], format_interval(pick[0].iloc[0], 1),
                format_interval(pick[1].iloc[0]) if healthy and method != "intensity" else "",
                "" if healthy else f"{100 * pick[2].iloc[0].sensitivity:.0f} %",
                f"{pick[2].iloc[0].false_components:.1f}",
                "" if healthy or pick[3].empty else f"{pick[3].iloc[0].auroc:.2f} [{pick[3].iloc[0].low:.2f}, "
                                                    f"{pick[3].iloc[0].high:.2f}]"])
    header = ["data set", "method", "false positives, ml", "L1 on healthy scans", "lesions found", "false components",
              "scan AUROC"]
    return (markdown_table(header, rows) + f"\n\nAt the threshold rule `{DEFAULT_RULE}`; {_INTERVAL.split(' ±')[0]}. "
            f"{provenance_line(run)}")


def models_block() -> str:
    """The cards of all shipped models, one after another."""
    cards = [path.read_text(encoding="utf-8").strip() for path in sorted(weights_root().glob("*/README.md"))]
    return "\n\n".join(re.sub(r"^#", "##", card, flags=re.MULTILINE) for card in cards)


def fill_marks(text: str, results: Path) -> str:
    """Replace what stands between the marks by what the result files say.

    Marks: `<!-- results:KIND PROFILE [DATASET] -->` ... `<!-- /results -->`, KIND one of auprc, auprc-authors,
    patients, dice, healthy; and `<!-- results:models -->` for the cards of the shipped models.

    Raises:
        InputError: an unknown mark.
    """
    def block(match: re.Match) -> str:
        kind, *rest = match[1].split()
        makers = {"auprc": auprc_block, "auprc-authors": lambda folder: auprc_block(folder, "authors"),
                  "patients": patients_block, "dice": dice_block, "healthy": healthy_block, "models": models_block}
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
