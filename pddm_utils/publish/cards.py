"""Turns the first seed of a benchmark into a shipped model: weights, facts for `detect`, model card, licences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.benchmark.models import healthy_rows, is_trained, model_folder
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import replace_folder
from pddm_utils.core.settings import Settings
from pddm_utils.core.shipped import HEALTHY_PLACES, model_name, stored_parameters, weights_root
from pddm_utils.data.cohort import cohort_rows
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import QUARTILES
from pddm_utils.data.sources import require_data_root
from pddm_utils.data.sources.soop_table import LEVEL_MM
from pddm_utils.detection.quality import healthy_reference
from pddm_utils.detection.z_score import (
    REFERENCE_SLICE_STEP,
    REFERENCE_SUBJECTS,
    residuals_by_place,
    z_score_thresholds,
)
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.evaluation.places import PlaceStatistics
from pddm_utils.evaluation.thresholds import HEALTHY_QUANTILES
from pddm_utils.methods.registry import METHODS, SHIPPED_METHODS, check_methods, open_method
from pddm_utils.training.loop import read_training

_TITLES = {"ddpm": "Whole-image DDPM", "pddpm": "Patched DDPM (pDDPM)", "dae": "Denoising autoencoder (DAE)"}
_DATA = {
    "simulated": "{train_subjects} **simulated** healthy {contrast} subjects (random warps of the MNI ICBM 152 tissue "
    "maps; not scans of people), {val_subjects} more for the validation loss and the thresholds",
    "ixi": "{train_subjects} healthy IXI T1 subjects (the paper's fold 0, one 3 T scanner, resampled to 2 mm), "
    "{val_subjects} more for the validation loss and the thresholds",
    "soop": "one axial FLAIR slice (MNI z = 18 mm) each of {train_subjects} stroke patients of SOOP without a "
    "lesion in it, {val_subjects} more for validation loss and thresholds. They are patients, not healthy people, and "
    "white-matter disease is common in them; the model knows this one level of the brain",
}
_LICENCES = {
    "simulated": """The weights are MIT licensed like the project. The simulated subjects derive from the MNI ICBM 152
non-linear symmetric 2009a template as distributed with nilearn: Copyright (C) 1993-2009 Louis Collins,
McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University. Permission to use, copy, modify,
and distribute this software and its documentation for any purpose and without fee is hereby granted, provided that
the above copyright notice appear in all copies. The authors and McGill University make no representations about the
suitability of this software for any purpose. It is provided "as is" without express or implied warranty. The authors
are not responsible for any data loss, equipment damage, property loss, or injury to subjects or patients resulting
from the use or misuse of this software package.""",
    "soop": """The weights are MIT licensed like the project. Trained on slices of the Stroke Outcome Optimization
Project (Absher et al., Scientific Data 11:839, 2024; OpenNeuro ds004889), CC0.""",
    "ixi": """Trained on the IXI data set (brain-development.org), Creative Commons Attribution-ShareAlike 3.0
(https://creativecommons.org/licenses/by-sa/3.0/), in the downsampled copies and label maps of the NiChart project;
these weights are shared under the same licence (CC BY-SA 3.0). All or portions of this licensed product (such portions
are the "Software") have been obtained under license from the Section of Biomedical Image Analysis, Department of
Radiology at the University of Pennsylvania and are subject to the terms and conditions in `LICENSE-SBIA.md`.""",
}


def publish(settings: Settings, runs: Path, results: Path, methods: Sequence[str] = (), suffix: str = "") -> list[Path]:
    """Copy the trained models of the first seed to `weights/`, each with its card.

    Args:
        settings: the profile that was run with training.
        runs, results: folders of that run.
        methods: which of its models; all that are shipped when empty.
        suffix: added to their names, such as `-simplex`, beside others of the cohort.

    Returns:
        The written folders.

    Raises:
        InputError: the benchmark has not finished, or a method is none that the profile has and that is shipped.
    """
    check_methods(methods)
    shipped = [name for name in settings.methods if name in SHIPPED_METHODS]
    if unknown := [name for name in methods if name not in shipped]:
        raise InputError(
            f"methods {', '.join(unknown)}: no models that are shipped of profile {settings.profile}; "
            f"choose among {', '.join(shipped)}"
        )
    if settings.cohort not in _DATA:
        raise InputError(
            f"profile {settings.profile}: its cohort {settings.cohort!r} has no card or known licence; "
            f"publish a profile trained on {' or '.join(_DATA)}"
        )
    scores, run = read_results(results)
    if run["weights"] == "shipped":
        raise InputError(f"{results}: scored with shipped weights; publish a run that trained")
    seed, written = settings.seeds[0], []
    for method in (name for name in shipped if name in methods or not methods):
        rows = scores[
            (scores.method == method) & (scores.seed == seed) & scores.noise_level.isin(["validation", "none"])
        ]
        name = model_name(settings, method) + suffix
        source = model_folder(settings, method, seed, runs)
        if rows.empty or not is_trained(source):
            raise InputError(
                f"{method}, seed {seed}: not trained in {runs} or not scored in {results}; "
                f"run: python -m pddm_utils benchmark --profile {settings.profile}"
            )
        target = weights_root() / name
        temporary = target.with_name(f".{name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        if METHODS[method].floor:
            card = _table_card(settings, source, results, suffix)
        else:
            facts = _facts(settings, method, rows)
            level = facts.get("timestep")
            facts |= _healthy_facts(settings, method, source, level, runs, temporary / HEALTHY_PLACES)
            if level is not None:
                _set_timestep(temporary / "model_index.json", level)
            (temporary / "detection.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            card = _card(settings, method, facts, source, run, _learned(scores, method, seed), suffix)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        if settings.cohort == "ixi":
            shutil.copy(require_data_root() / "ixi-t1-2mm" / "LICENSE-SBIA.md", temporary)
        replace_folder(temporary, target)
        written.append(target)
    return written


def _facts(settings: Settings, method: str, rows: pd.DataFrame) -> dict[str, Any]:
    thresholds = {rule: float(rows[rows.rule == rule].threshold.iloc[0]) for rule in HEALTHY_QUANTILES}
    return {
        "cohort": settings.cohort,
        "contrast": settings.contrast,
        "method": method,
        **({"timestep": int(rows.timestep.iloc[0])} if METHODS[method].noise_level else {}),
        "thresholds": thresholds,
        **({"scaling": QUARTILES, "level_mm": LEVEL_MM} if settings.cohort == "soop" else {}),
    }


def _reference_subjects(settings: Settings) -> int:
    """How many training subjects give the residuals by place: all where a subject is one slice."""
    return settings.train_subjects if settings.cohort == "soop" else REFERENCE_SUBJECTS


def _healthy_facts(
    settings: Settings, name: str, source: Path, timestep: int | None, runs: Path, places: Path
) -> dict[str, Any]:
    """What healthy scans look like to the model; their residuals by place go to a file of their own.

    Training scans give the residuals by place, validation scans all else: the thresholds of the z-score map, and the
    reference with which `detect` warns where a scan is unlike them.
    """
    fast_cpu()
    method, cache = open_method(name, settings, folder=source), ScanCache(runs / "cache")
    rows = cohort_rows(settings)
    reference = healthy_rows(rows, "train")[: _reference_subjects(settings)]
    healthy = (every_nth_slice(load_scan(row, cache), REFERENCE_SLICE_STEP) for row in reference)
    residuals_by_place(healthy, lambda scan: method.reconstruct(scan, timestep)).save(places)
    scans = (load_scan(row, cache) for row in healthy_rows(rows, "val"))
    pairs = [(scan, method.reconstruct(scan, timestep)) for scan in scans]
    called = {"called": "lesion-free"} if settings.cohort == "soop" else {}
    return {
        "z_score_thresholds": z_score_thresholds(pairs, PlaceStatistics.load(places)),
        "reference": healthy_reference(pairs) | called,
    }


def _set_timestep(index: Path, timestep: int) -> None:
    config = json.loads(index.read_text(encoding="utf-8"))
    config["timestep"] = timestep
    index.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _table_card(settings: Settings, source: Path, results: Path, suffix: str) -> str:
    record = read_training(source)
    called = "lesion-free" if settings.cohort == "soop" else "healthy"
    return f"""# Mean by place (a floor, no network), {settings.cohort} {settings.contrast}

Mean and standard deviation of the intensity at 24 x 40 x 32 places of the brain's bounding box, of {called} scans: what
the benchmark's method `atlas` needs. A model that finds no more than this table has learnt nothing of use.

| | |
|---|---|
| data | {_DATA[settings.cohort].format(**settings.to_dict())} |
| size | {stored_parameters(source):,} numbers, fp16 safetensors |
| error | {record["history"][-1]["validation_loss"]:.4f} (L1 of the mean in the brain, {called} validation scans) |
| made with | `{_made_with(settings, suffix)}` |

Scores: `results/{results.name}/scores.csv`.

## Licence

{_LICENCES[settings.cohort]}
"""


def _task(settings: Settings, method: str) -> str:
    """The card's line on what the network learnt to repair."""
    if method == "dae":
        return "| damage | coarse noise in the brain; the network removes it, and at test time nothing is added |"
    box = "the whole slice as one box" if method == "ddpm" else f"boxes of {settings.box_size} px on a fixed grid"
    return f"| diffusion | T = 1000, `{settings.schedule}`, predicts x_0, {settings.noise} noise, {box} |"


def _loss(method: str) -> str:
    return "squared error in [-1, 1] in the brain" if method == "dae" else "L1 in [-1, 1] inside the box"


def _level(facts: dict[str, Any]) -> str:
    level = f"index {facts['timestep']}, chosen on validation subjects" if "timestep" in facts else "none"
    return f"| noise level | {level} |"


def _made_with(settings: Settings, suffix: str) -> str:
    profile = settings.profile + (f" --suffix={suffix}" if suffix else "")
    return f"make benchmark PROFILE={settings.profile} && python -m pddm_utils.publish models --profile {profile}"


def _learned(scores: pd.DataFrame, method: str, seed: int) -> str:
    """How far the model learned: its error in test scans without lesion, beside predictors without a network."""
    used = scores.noise_level.isin(["validation", "none"])
    free = scores[scores.healthy_l1.notna() & (scores.seed == seed) & used]
    errors = free.drop_duplicates(["method", "subject"]).groupby("method").healthy_l1.mean()
    floor = f"the mean by place {errors['atlas']:.3f}, " if "atlas" in errors else ""
    return f"{errors[method]:.3f}; {floor}the brain's own median {free.median_l1.mean():.3f}"


def _card(
    settings: Settings,
    method: str,
    facts: dict[str, Any],
    source: Path,
    run: dict[str, Any],
    learned: str,
    suffix: str,
) -> str:
    record, parameters = read_training(source), stored_parameters(source)
    gpu, cpu = run["hardware"]["gpu"], run["hardware"]["cpu"]
    minutes = f"{record['cpu_seconds'] / 60:.1f} CPU minutes on one thread ({cpu})"
    rates = f"Adam, peak rate {settings.learning_rate}, EMA {settings.ema_decay}"
    z_score = (
        f"threshold {facts['z_score_thresholds']['healthy-quantile-0.99']:.2f} healthy standard deviations (the "
        f"same rule); by residuals of {_reference_subjects(settings)} training subjects: `{HEALTHY_PLACES}`"
    )
    called = facts["reference"].get("called", "healthy")
    other = f", {suffix.strip('-')}" if suffix else ""
    return f"""# {_TITLES[method]}, {settings.cohort} {settings.contrast}{other}

For research and teaching, not for diagnosis.

| | |
|---|---|
| data | {_DATA[settings.cohort].format(**settings.to_dict())} |
| network | diffusers `UNet2DModel`, size `{settings.network}`, {parameters:,} parameters, fp16 safetensors |
{_task(settings, method)}
| training | {record["step"]} steps of {settings.batch_size} slices of 96x96 at 2 mm, {rates}, seed {record["seed"]} |
| time | {f"{record['seconds']:.0f} s on an {gpu}" if gpu else minutes} |
| validation loss | {record["history"][-1]["validation_loss"]:.4f} ({_loss(method)}, fixed draws) |
| error | {learned} (L1 in the brain, {called} test scans) |
{_level(facts)}
| threshold | {facts["thresholds"]["healthy-quantile-0.99"]:.4f} (healthy-quantile-0.99 of {called} validation scans) |
| z-score map | {z_score} |
| made with | `{_made_with(settings, suffix)}` |

Scores: `results/{settings.profile}/scores.csv`. Where it fails: small lesions, other scanners and contrasts than those
above, and scans that are not skull-stripped.

## Licence

{_LICENCES[settings.cohort]}
"""
