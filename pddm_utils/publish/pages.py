"""Writes the benchmark's tables into Markdown pages, between `<!-- results:NAME -->` marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pddm_utils.benchmark.studies.ablation_tables import read_ablation, trained_markdown
from pddm_utils.benchmark.studies.factorial_tables import factorial_markdown, patching_markdown, read_factorial
from pddm_utils.benchmark.studies.search_tables import chosen_idea_lines, ideas_markdown, outcome_markdown, read_search
from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.core.shipped import weights_root
from pddm_utils.methods.registry import METHOD_NAMES
from pddm_utils.publish.family_page import families_block
from pddm_utils.publish.lesion_groups import groups_block
from pddm_utils.publish.overview import overview_block
from pddm_utils.publish.overview_words import answer_block, decisions_block, floors_block, short_block
from pddm_utils.publish.run_tables import leaderboards_block, patients_block

_DIFFERENCE = "95 % BCa bootstrap interval over subjects, p by sign flips, Holm-corrected over the table"
_INTERVAL = "mean [95 % BCa bootstrap interval over subjects, 10,000 draws] ± std over seeds where there are several"


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

    Marks: `<!-- results:KIND [RUN or DATASET ...] -->` ... `<!-- /results -->`. Of all runs together: `answer`,
    `overview`, `decisions`, `floors`, `leaderboards`. `patients DATASET RUN ...`: patient by patient. `groups RUN
    DATASET`: by size and brightness of lesions. Of studies: `ideas`, `ideas-on-test`, `trained`, `recipe`, `families`,
    each with its folder. `models`: the cards of the shipped models.

    Raises:
        InputError: an unknown mark.
    """

    def block(match: re.Match) -> str:
        kind, *rest = match[1].split()
        everywhere: dict[str, Callable[[Path], str]] = {
            "answer": answer_block,
            "overview": overview_block,
            "decisions": decisions_block,
            "short": short_block,
            "floors": floors_block,
            "leaderboards": leaderboards_block,
        }
        makers: dict[str, Callable[..., str]] = {
            "recipe": lambda folder, *names: recipe_block(results / folder, *names),
            "families": lambda folder: families_block(results / folder),
            "models": models_block,
            "ideas": lambda folder, cohort: ideas_block(results / folder, cohort),
            "ideas-on-test": lambda folder: outcome_block(results / folder),
            "trained": lambda folder, question: trained_block(results / folder, question),
            "groups": lambda run, dataset: groups_block(results / run, dataset),
            "patients": lambda dataset, *runs: patients_block(dataset, *(results / name for name in runs)),
        }
        if kind in everywhere:
            return f"<!-- results:{match[1]} -->\n{everywhere[kind](results)}\n<!-- /results -->"
        if kind not in makers:
            raise InputError(f"unknown mark results:{match[1]}; known kinds: {', '.join([*everywhere, *makers])}")
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
