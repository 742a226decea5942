"""What all runs found, in words with numbers: the answer in a few lines, and which method serves which purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pddm_utils.benchmark.leaderboard import best_floors, best_on_validation
from pddm_utils.benchmark.tables import (
    comparison_table,
    format_difference,
    format_interval,
    format_summary,
    lesion_table,
    markdown_table,
    short_name,
    summary_table,
)
from pddm_utils.data.sources.soop_table import FEWEST_PIXELS
from pddm_utils.evaluation.statistics import MIN_SUBJECTS, clear_sign
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.registry import FLOORS, METHOD_NAMES, TRAINED_METHODS
from pddm_utils.publish.overview import Panel, cost, panels
from pddm_utils.publish.run_tables import SCORES, folded, made_text, read_runs

_LIKENESS = "its training noise is like these tumours, which may make them easy"


def answer_block(results: Path) -> str:
    """One bullet for each kind of lesions: the best network, the best floor, and what patching adds."""
    found = panels(results)
    bullets = [_many(one) for one in found if not one.few and not one.simulated]
    if not bullets:
        bullets.append("**Real strokes, FLAIR:** scored on validation scans only so far.")
    few = [one for one in found if one.few]
    bullets += [_patients(few)] if few else []
    bullets += [_many(one) for one in found if not one.few and one.simulated]
    return "\n".join(f"* {text}" for text in bullets)


def short_block(results: Path) -> str:
    """A sentence or two: the best network, the best floor and pDDPM on the first kind of lesions."""
    one = panels(results)[0]
    if one.few:
        return "Scored on a few patients only so far: patient by patient below."
    means = {name: format_summary(one.summary, one.dataset, name).split(" ±")[0] for name in one.summary.method}
    ranked = one.summary.sort_values("mean", ascending=False).method
    best, floor = next((name for name in ranked if name not in FLOORS), None), best_floor(one)
    names = {"dae": "a denoising autoencoder (DAE)", "ddpm": "whole-image diffusion"}
    said = [f"{names.get(best, short_name(best))} **{means[best]}**"] if best and best != "pddpm" else []
    said += [f"a map without a network ({_plain(floor)}) **{means[floor]}**"] if floor else []
    said += [f"patched diffusion (pDDPM) **{means['pddpm']}**"] if "pddpm" in means else []
    size = f" with at least {FEWEST_PIXELS} lesion pixels" if one.smaller else ""
    text = f"{one.lesions} on {one.scans} ({one.who}{size}; chance {one.chance:.3f}): {', '.join(said)}."
    if {"pddpm", "ddpm"} <= set(means):
        differences = comparison_table(one.scores, [(one.dataset, "auprc", "pddpm", "ddpm")])
        found = verdict(differences, "pddpm", "ddpm")
        shown = {"not shown": "is not shown to differ from", "ahead": "is ahead of", "behind": "is behind"}[found]
        text += f" Patched diffusion {shown} whole-image diffusion."
    return text


def verdict(differences: pd.DataFrame, better: str, baseline: str) -> str:
    """`ahead`, `behind` or `not shown`, by the interval and the corrected p-value."""
    row = differences[(differences.better == better) & (differences.baseline == baseline)].iloc[0]
    return {1: "ahead", -1: "behind", 0: "not shown"}[clear_sign(row["mean"], row.low, row.high, row.p_holm)]


def best_floor(one: Panel) -> str | None:
    """The floor that validation chooses for a panel, or None where it cannot be chosen."""
    return best_floors(one.scores, one.runs.selection).get(one.dataset)


def _many(one: Panel) -> str:
    """The floor that validation chose, the best network by its mean, and pDDPM beside DDPM."""
    summary, floor = one.summary.sort_values("mean", ascending=False), best_floor(one)
    best = next((name for name in summary.method if name not in FLOORS), None)
    pairs = [("pddpm", "ddpm"), *([(best, floor)] if floor and best else [])]
    differences = comparison_table(one.scores, [(one.dataset, "auprc", *pair) for pair in pairs])
    means = {name: format_summary(summary, one.dataset, name) for name in summary.method}
    score = SCORES.get(one.runs.run["settings"].get("score", ""))
    maps = f"; map of every network: {score}" if score else ""
    size = f" with at least {FEWEST_PIXELS} lesion pixels in the slice" if one.smaller else ""
    parts = [f"**{one.title}** ({one.who}{size}; chance {one.chance:.3f}{maps})."]
    if floor:
        missing = "" if "atlas" in means else " (the atlas was not scored here)"
        parts.append(f"Without a network, {_plain(floor)}: {means[floor]}{missing}.")
    if best:
        minus = f" (difference {_difference(differences, one, best, floor)})" if floor else ""
        parts.append(f"Best network, {short_name(best)}: {means[best]}{minus}.")
    if {"pddpm", "ddpm"} <= set(means):
        minus = _difference(differences, one, "pddpm", "ddpm")
        parts.append(f"With patches, pDDPM: {means['pddpm']}; without, DDPM: {means['ddpm']} (difference {minus}).")
    return " ".join([*parts, *_smaller(one)])


def _smaller(one: Panel) -> list[str]:
    """What the best method has on the lesions that are too small for a panel, if there are any."""
    small = one.runs.scores[one.runs.scores.dataset == one.smaller]
    if small.empty:
        return []
    chance = small.groupby("subject").lesion_share.first().mean()
    highest = summary_table(small, "auprc")["mean"].max()
    return [f"Smaller lesions ({small.subject.nunique()} patients): at most {highest:.3f} (chance {chance:.3f})."]


def _difference(differences: pd.DataFrame, one: Panel, better: str, baseline: str) -> str:
    number = format_difference(differences, one.dataset, better, baseline).split(", p")[0]
    said = verdict(differences, better, baseline)
    if said != "not shown":
        return f"{number}, {said}"
    row = differences[(differences.better == better) & (differences.baseline == baseline)].iloc[0]
    return f"{number}, no difference shown" + " after correction" * (not row.low <= 0 <= row.high)


def _patients(found: list[Panel]) -> str:
    """Patient by patient, without an interval: the best method for the largest lesions, and for the smallest."""
    large, small = [], []
    for one in found:
        table = one.by_patient
        first, last = table.columns[0], table.columns[-1]
        best, floor = table[first].idxmax(), table[first][table.index.intersection(list(FLOORS))].idxmax()
        large.append(
            f"on {one.scans} {_plain(best)} {table.loc[best, first]:.3f}, {_plain(floor)} {table.loc[floor, first]:.3f}"
        )
        small.append(table[last].max())
    shares = found[0].scores.groupby("subject").lesion_share.first()
    return (
        f"**{found[0].lesions}** ({found[0].people} patients: no interval). Large lesions: {'; '.join(large)} "
        f"(chance {shares.max():.3f}). Small lesions: at most {max(small):.3f} (chance {shares.min():.3f})."
    )


def _plain(method: str) -> str:
    words = {"intensity": "brightness", "atlas": "the atlas", "blur": "the blur"}
    return words.get(method, short_name(method))


def decisions_block(results: Path) -> str:
    """You want X, use Y, expect Z, at this cost, mind this."""
    found = {one.dataset: one for one in panels(results)}
    makers: list[tuple[str, Callable[[dict[str, Panel]], list[str]]]] = [
        ("soop-flair", _strokes),
        ("simulated-t2-tumour", _tumours_t2),
        ("ixi-t1-tumour", _tumours_t1),
        ("mslub-t2", _multiple_sclerosis),
        ("ixi-t1-tumour", _no_training),
        ("ixi-t1-tumour", _mask),
        ("ixi-t1-tumour", _patching),
    ]
    rows = [make(found) for dataset, make in makers if dataset in found]
    return markdown_table(["you want", "use", "expect (AUPRC)", "it costs", "mind"], rows)


def _price(one: Panel, method: str) -> str:
    minutes, passes = cost(one.runs.run, method)
    if passes == "0":
        return "means of training scans, no network" if method in TRAINED_METHODS else "no training, no network"
    return f"shipped (trained in {minutes} CPU min), {passes} pass{'es' if passes != '1' else ''} a slice"


def _strokes(found: dict[str, Panel]) -> list[str]:
    one = found["soop-flair"]
    names = list(one.summary.method)
    chosen, _ = best_on_validation(one.scores, one.runs.selection, one.dataset, names)
    use = chosen or best_floor(one) or one.summary.sort_values("mean").method.iloc[-1]
    others = [name for name in names if name not in FLOORS]
    differences = comparison_table(one.scores, [(one.dataset, "auprc", name, use) for name in others if name != use])
    level = [name for name in others if name != use and verdict(differences, name, use) != "behind"]
    close = ", ".join(map(short_name, level))
    other = "" if use in FLOORS else "other "
    mind = f"not shown to be behind it: {close}" if level else f"every {other}network is behind {_plain(use)}"
    how = "best on validation" if chosen else "the best floor"
    marked, floor = lesion_table(one.scores).set_index("method").sensitivity, best_floor(one)
    if floor and floor != use:
        shares = f"{100 * marked[use]:.0f} % of the lesions, {_plain(floor)} {100 * marked[floor]:.0f} %"
        mind += f"; at the default threshold it marks {shares}"
    return [
        "strokes on FLAIR",
        f"{_plain(use)} ({how})",
        format_summary(one.summary, one.dataset, use) + ", real lesions",
        _price(one, use),
        mind + "; one slice a patient",
    ]


def _tumours(found: dict[str, Panel], dataset: str, contrast: str, mind: str) -> list[str]:
    """Tumours of one contrast: simulated ones are all there are. What the DAE marks elsewhere stands before `mind`."""
    one, use = found[dataset], "dae"
    value = format_summary(one.summary, dataset, use)
    by_place = ", by place" * (one.runs.run["settings"].get("score") == "place")
    expect = f"{value}{by_place} (chance {one.chance:.3f}; {one.who}), {one.lesions.lower()} in {one.scans}"
    expect += "; real tumours: not tested"
    ms = found.get(f"mslub-{contrast.lower()}")
    if ms:
        mind = f"{_marked_wrongly(ms, use)} in two real MS patients; {mind}"
    return [f"tumours on {contrast}", METHOD_NAMES[use], expect, _price(one, use), mind]


def _marked_wrongly(ms: Panel, method: str) -> str:
    """Millilitres outside the lesions of each MS patient at the default threshold."""
    rows = ms.scores[(ms.scores.method == method) & (ms.scores.rule == DEFAULT_RULE)]
    outside = rows.groupby("subject").false_positive_ml.mean()[ms.by_patient.columns]
    return " and ".join(f"{value:.0f}" for value in outside) + " ml marked wrongly"


def _tumours_t1(found: dict[str, Panel]) -> list[str]:
    return _tumours(
        found, "ixi-t1-tumour", "T1", f"{_LIKENESS}; with [shapes of real lesions](families.md) far less is found"
    )


def _tumours_t2(found: dict[str, Panel]) -> list[str]:
    row = _tumours(found, "simulated-t2-tumour", "T2", _LIKENESS)
    one, ms = found["simulated-t2-tumour"], found.get("mslub-t2")
    own = format_summary(one.summary, one.dataset, "pddpm")
    row[1] += ", and pDDPM beside it: trust neither alone"
    row[2] = row[2].replace(" (chance", f"; pDDPM {own} (chance", 1)
    if ms:
        row[4] = row[4].replace(" marked", f" (pDDPM {_marked_wrongly(ms, 'pddpm').split(' ml')[0]}) marked", 1)
    return row


def _no_training(found: dict[str, Panel]) -> list[str]:
    one = found["ixi-t1-tumour"]
    strokes = found.get("soop-flair")
    real = f"{format_summary(strokes.summary, strokes.dataset, 'atlas')}, real strokes; " if strokes else ""
    return [
        "a result without any network",
        METHOD_NAMES["atlas"],
        real + format_summary(one.summary, one.dataset, "atlas") + ", simulated tumours",
        _price(one, "atlas"),
        "it must be told whether lesions are bright or dark, and knows places only in the frame of its scans",
    ]


def _patching(found: dict[str, Panel]) -> list[str]:
    one = found["ixi-t1-tumour"]
    differences = comparison_table(one.scores, [(one.dataset, "auprc", "pddpm", "ddpm")])
    return [
        "to study patches in diffusion",
        "pDDPM beside DDPM",
        f"{one.scans}: {_difference(differences, one, 'pddpm', 'ddpm')}, simulated lesions",
        _price(one, "pddpm") + "; DDPM 1",
        "with Gaussian noise at high levels patches are well ahead of the whole image",
    ]


def _mask(found: dict[str, Panel]) -> list[str]:
    dice, marked = [], []
    for contrast, dataset in (("T1", "ixi-t1-tumour"), ("simulated T2", "simulated-t2-tumour")):
        one = found.get(dataset)
        if one:
            healthy = one.runs.scores[one.runs.scores.dataset == dataset.replace("tumour", "healthy")]
            alarms = summary_table(healthy, "false_positive_ml")
            dice.append(f"{contrast} {format_summary(summary_table(one.scores, 'dice'), dataset, 'dae')}")
            marked.append(f"{contrast} {format_interval(alarms[alarms.method == 'dae'].iloc[0], 1)}")
    return [
        "a mask, and no labelled scans",
        "the threshold of healthy scans, 0.99 quantile",
        f"Dice {', '.join(dice)} (DAE, simulated tumours)",
        f"ml marked in a healthy brain: {', '.join(marked)}",
        "the threshold holds for the scanner it was made on",
    ]


def _multiple_sclerosis(found: dict[str, Panel]) -> list[str]:
    one = found["mslub-t2"]
    table, share = one.by_patient, one.scores.groupby("subject").lesion_share.first()
    large, small = table.columns[0], table.columns[-1]
    best = table[large].idxmax()
    return [
        "MS lesions",
        "nothing here: a supervised method. [LST-AI](https://github.com/CompImg/LST-AI) needs T1 and FLAIR; with T2 "
        "alone, [nnU-Net](https://github.com/MIC-DKFZ/nnUNet) and labelled scans",
        f"small ones at most {table[small].max():.3f} (chance {share[small]:.3f}); large ones, T2, in one patient: "
        f"{_plain(best)} {table.loc[best, large]:.3f} (chance {share[large]:.3f})",
        "–",
        f"two patients prove nothing; in them the DAE has {_marked_wrongly(one, 'dae')}; the median filter removes "
        "most small lesions",
    ]


def floors_block(results: Path) -> str:
    """The floors on every set of real scans: AUPRC, false positives on scans without lesion, lesions found."""
    texts = []
    for folder in [results / "soop", *sorted(path.parent for path in results.glob("*-floors/scores.csv"))]:
        if not (folder / "scores.csv").is_file():
            continue
        runs = read_runs(folder)
        scores = runs.scores[runs.scores.method.isin(FLOORS)]
        large = [
            name for name in scores.dataset.unique() if scores[scores.dataset == name].subject.nunique() >= MIN_SUBJECTS
        ]
        lesioned = [name for name in large if scores[scores.dataset == name].auprc.notna().any()]
        free = [name for name in large if name not in lesioned]
        auprc, found = summary_table(scores, "auprc"), lesion_table(scores)
        alarms = summary_table(scores, "false_positive_ml")
        few = sorted(set(scores.dataset) - set(large))
        header = ["floor", *lesioned, *(f"{name}, patient by patient" for name in few)]
        header += [f"lesions found, {name}" for name in lesioned] + [f"false positives, ml, {name}" for name in free]
        rows = []
        for name in FLOORS:
            if name not in set(scores.method):
                continue
            cells = [format_summary(auprc, dataset, name) for dataset in lesioned]
            for dataset in few:
                part = scores[(scores.dataset == dataset) & (scores.method == name)]
                cells.append(", ".join(f"{value:.3f}" for value in part.groupby("subject").auprc.mean()))
            picked = found[found.method == name].set_index("dataset").sensitivity
            cells += [f"{100 * picked[dataset]:.0f} %" for dataset in lesioned]
            cells += [format_summary(alarms, dataset, name, 1) for dataset in free]
            rows.append([METHOD_NAMES[name], *cells])
        texts.append(markdown_table(header, rows) + "\n\n" + folded("How this was made", made_text(runs)))
    return "\n\n".join(texts)
