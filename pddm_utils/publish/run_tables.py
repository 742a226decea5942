"""The tables of one benchmark run, or of several on the same test subjects, as Markdown with folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pddm_utils.benchmark.leaderboard import (
    best_floors,
    finished_runs,
    improvement_markdown,
    large_data_sets,
    leaderboard_markdown,
    questions_markdown,
    read_selection,
)
from pddm_utils.benchmark.tables import (
    format_interval,
    format_summary,
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
from pddm_utils.core.errors import InputError
from pddm_utils.evaluation.thresholds import DEFAULT_RULE, LESION_VAL, ORACLE
from pddm_utils.methods.registry import METHOD_NAMES, METHODS
from pddm_utils.publish.how_made import levels_line, provenance_line

_TITLES = {
    "soop": "Real strokes on FLAIR",
    "ixi": "Tumours inserted into real T1 scans",
    "simulated": "Simulated T2 scans",
}
_COHORTS = {
    "simulated": "**Simulated** {contrast} subjects with simulated lesions; trained on {train_subjects} healthy ones.",
    "ixi": "Real {contrast} scans, trained on {train_subjects} healthy people of the IXI data set; the test lesions "
    "are **simulated** and inserted into scans of other healthy people.",
    "soop": "Real {contrast} slices of stroke patients (SOOP) with real lesions; trained on {train_subjects} slices "
    "without a lesion, which are of patients too.",
}
_NOTES = {
    "board": "AUPRC. Rows by the mean on the first data set; neighbours whose intervals overlap are not ranked. "
    "Seconds: rebuilding one test scan; a dash: not measured. Training: by seed.",
    "baseline": "The method without patches that is best on the validation subjects of the same data set, with the "
    "trainings that chose the noise levels. Relative: ratio of the means less one.",
    "questions": f"At the threshold rule `{DEFAULT_RULE}`. *Not shown* is no proof of the contrary. False positives: "
    "what is marked on scans without a lesion.",
    "healthy": f"At the threshold rule `{DEFAULT_RULE}`. Found: at least 10 % of a lesion's voxels are marked. L1: of "
    "the reconstruction, in the brain; the atlas's is the mean by place, the blur's the blurred brain.",
}
SCORES = {"signed": "the residual towards lesions", "place": "the residual's z-score by place"}  # others: absolute
_SUBJECT = ["dataset", "method", "seed", "subject", "noise_level", "rule"]


@dataclass(frozen=True)
class Runs:
    """Runs on the same test subjects, read as one.

    Attributes:
        scores: rows of all; those of a method that is in two runs stand once.
        selection: validation AUPRC of all, see `read_selection`.
        records: the content of each `run.json`.
    """

    scores: pd.DataFrame
    selection: pd.DataFrame
    records: tuple[Mapping[str, Any], ...]

    @property
    def run(self) -> dict[str, Any]:
        """One record: settings of the first run, models, times and definitions of all."""
        first, merged = self.records[0], {}
        for key in ("models", "reconstruction"):  # of what is in two runs the first one's, as of the scores
            merged[key] = {name: value for one in self.records[::-1] for name, value in one.get(key, {}).items()}
        methods = [(name, one) for one in self.records for name in one["settings"].get("methods", [])]
        definitions = {name: one.get("definitions", {}).get(name, 1) for name, one in methods}
        walks = [
            one["settings"]["ddim_steps"] for one in self.records if "anoddpm" in one["settings"].get("methods", [])
        ]
        settings = {**first["settings"], "methods": list(definitions)}
        settings |= {"ddim_steps": walks[0]} if walks else {}  # the one method that walks back in many steps
        return {**first, **merged, "definitions": definitions, "settings": settings}


def read_runs(*folders: Path) -> Runs:
    """The runs of these folders as one.

    Raises:
        InputError: one of them has no scores.
    """
    read = [read_results(folder) for folder in folders]
    scores = pd.concat([scores for scores, _ in read], ignore_index=True).drop_duplicates(_SUBJECT, ignore_index=True)
    chosen = [table.assign(lesion=_number_of_lesion(table)) for table in map(read_selection, folders) if len(table)]
    selection = pd.concat(chosen, ignore_index=True) if chosen else read_selection(folders[0])
    if chosen:
        keys = ["lesion", "method", "timestep", "dataset", "subject", *selection.columns.intersection(["seed"])]
        selection = selection.drop_duplicates(keys, ignore_index=True).drop(columns="lesion")
    return Runs(scores, selection, tuple(run for _, run in read))


def _number_of_lesion(selection: pd.DataFrame) -> pd.Series:
    """0 for a row, 1 for a second one of the same person, who is then shown with another lesion."""
    return selection.groupby([name for name in selection if name != "auprc"]).cumcount()


def run_groups(results: Path) -> list[tuple[Path, ...]]:
    """Full runs, each with what belongs to it; a run that is a part of another is left out.

    To a run belong floors that were scored on the same subjects, and to `NAME` the other methods in `NAME-...`, if
    there is no DDPM among them.
    """
    runs = {folder: _test_rows(folder) for folder in finished_runs(results)}
    others = {
        folder: max(before, key=lambda one: len(one.name))
        for folder in runs
        if (before := [one for one in runs if folder.name.startswith(f"{one.name}-")])
        and "ddpm" not in _methods(folder)
    }
    runs = {folder: rows for folder, rows in runs.items() if folder not in others}
    floors = {path.parent: _test_rows(path.parent) for path in sorted(results.glob("*-floors/scores.csv"))}
    whole = [
        name
        for name, rows in runs.items()
        if not any(rows < others or (rows == others and other < name) for other, others in runs.items())
    ]
    return [
        (
            name,
            *sorted(folder for folder, first in others.items() if first == name),
            *(
                floor
                for floor, rows in floors.items()
                if _people(rows) == _people(runs[name]) and not _methods(floor) <= _methods(name)
            ),
        )
        for name in whole
    ]


def _methods(folder: Path) -> set[str]:
    return set(read_results(folder)[0].method)


def _test_rows(folder: Path) -> frozenset[tuple]:
    scores = large_data_sets(read_results(folder)[0])
    return frozenset(map(tuple, scores[[*_SUBJECT, "auprc"]].dropna().astype(str).to_numpy()))


def _people(rows: frozenset[tuple]) -> set[tuple]:
    return {(dataset, subject) for dataset, _, _, subject, *_ in rows}


def folded(title: str, text: str) -> str:
    """A closed fold."""
    return f":::{{dropdown}} {title}\n{text}\n:::"


def board_text(runs: Runs) -> str:
    """Every method with what it costs, pDDPM against the best baseline, and two questions answered."""
    scores, run = large_data_sets(runs.scores), runs.run
    floors = best_floors(scores, runs.selection)
    parts = [leaderboard_markdown(scores, run, floors=floors), _NOTES["board"]]
    if "pddpm" in set(scores.method):
        parts += ["**pDDPM against the baseline that is best on validation**"]
        parts += [improvement_markdown(scores, runs.selection), _NOTES["baseline"]]
        parts += ["**With a threshold, and on scans without a lesion**"]
        parts += [questions_markdown(scores, floors=floors), _NOTES["questions"]]
    if "authors" in set(scores.noise_level):
        parts += [
            f"**At the authors' noise level**, timestep {run['settings']['authors_timestep']}, models of the first seed"
        ]
        parts += [headline_markdown(scores, "auprc", "authors", floors=floors)]
    return "\n\n".join(parts)


def masks_text(runs: Runs) -> str:
    """Dice at every threshold rule, false positives, lesions found, whole scans."""
    datasets = [name for name in large_data_sets(runs.scores).dataset.unique() if not is_healthy(name)]
    parts = [text for name in datasets for text in (f"**Dice on `{name}`**", dice_markdown(runs.scores, name))]
    if "false_components" in runs.scores:
        parts += ["**False positives, lesions found, whole scans**", healthy_markdown(runs.scores), _NOTES["healthy"]]
    return "\n\n".join(parts)


def leaderboard_block(folder: Path) -> str:
    """What `board_text` gives of one run, with how it was made; no fold, as a notebook shows none."""
    runs = read_runs(folder)
    return f"{_cohort_line(runs.run)}\n\n{board_text(runs)}\n\n{levels_line(runs.scores)} {provenance_line(runs.run)}"


def leaderboards_block(results: Path) -> str:
    """A section for every full run in a folder of results, its tables folded; real lesions first, then real scans."""
    groups = [(folders, read_runs(*folders)) for folders in run_groups(results)]
    order = list(_TITLES)
    cohorts = [runs.run["settings"]["cohort"] for _, runs in groups]
    places = [order.index(name) if name in order else 0 for name in cohorts]
    texts = [
        "\n\n".join(
            [
                f"### {_title(runs.run)} (`{folders[0].name}`)",
                _cohort_line(runs.run),
                folded("Every method: AUPRC, differences, cost", board_text(runs)),
                folded("Masks: Dice at every threshold rule, false positives, lesions found", masks_text(runs)),
                folded("How this was made", made_text(runs)),
            ]
        )
        for (folders, runs), cohort in zip(groups, cohorts, strict=True)
    ]
    return "\n\n".join(text for _, _, text in sorted(zip(places, range(len(texts)), texts, strict=True)))


def _title(run: Mapping[str, Any]) -> str:
    gpu = run["hardware"]["gpu"] if run["weights"] == "trained" else None
    return _TITLES.get(run["settings"]["cohort"], "Scans of a manifest") + (f", trained on an {gpu}" if gpu else "")


def made_text(runs: Runs) -> str:
    """Noise levels, then command, seeds, steps and hardware of each run."""
    return "\n\n".join([levels_line(runs.scores), *map(provenance_line, runs.records)])


def _cohort_line(run: Mapping[str, Any]) -> str:
    cohort = _COHORTS.get(run["settings"]["cohort"], "{contrast} scans of a manifest.").format(**run["settings"])
    return cohort + scored_by(run)


def scored_by(run: Mapping[str, Any]) -> str:
    """A sentence on the map of the networks, with a space before it; nothing where it is the plain residual."""
    score = SCORES.get(run["settings"].get("score", ""))
    return f" Map of every network: {score}, as validation chose." if score else ""


def patients_block(dataset: str, *folders: Path) -> str:
    """AUPRC of each patient of a small data set, without an interval.

    Raises:
        InputError: no run scored them.
    """
    runs = read_runs(*folders)
    if dataset not in set(runs.scores.dataset):
        raise InputError(f"{folders[0]}/scores.csv has no {dataset}; run the benchmark with PDDM_DATA set")
    return subject_markdown(runs.scores, dataset) + "\n\n" + folded("How this was made", made_text(runs))


def dice_markdown(scores: pd.DataFrame, dataset: str) -> str:
    """Dice of one data set at every threshold rule."""
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
    return markdown_table(["method", *(rule + notes.get(rule, "") for rule in rules)], rows)


def healthy_markdown(scores: pd.DataFrame) -> str:
    """What happens on healthy test scans, lesion-wise detection and scan-level AUROC, at the default threshold."""
    scores = large_data_sets(scores)
    false_ml, error, median = (
        summary_table(scores, name) if name in scores else pd.DataFrame()
        for name in ("false_positive_ml", "healthy_l1", "median_l1")
    )
    lesions, auroc = lesion_table(scores), scan_auroc_table(scores)
    chosen = with_intensity(scores, "validation")
    rows = []
    for dataset in sorted(set(chosen.dataset), key=lambda name: (not is_healthy(name), name)):
        for method in (name for name in METHODS if name in set(chosen[chosen.dataset == dataset].method)):
            alarms, l1, found, whole = (
                table[(table.dataset == dataset) & (table.method == method)] if len(table) else table
                for table in (false_ml, error, lesions, auroc)
            )
            has_l1 = is_healthy(dataset) and method != "intensity" and len(l1)
            rows.append(
                [
                    dataset,
                    METHOD_NAMES[method],
                    format_interval(alarms.iloc[0], 1),
                    format_interval(l1.iloc[0]) if has_l1 else "",
                    "" if np.isnan(found.iloc[0].sensitivity) else f"{100 * found.iloc[0].sensitivity:.0f} %",
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
    return markdown_table([*header, "false components", "scan AUROC"], rows)
