"""Bring models, pages and pictures of the repository up to date: `python -m pddm_utils.publish <command> --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pddm_utils.core.command_line import Commands, names_in, profile_options, settings_of

_PAGES = (
    "README.md",
    *(f"book/{name}.md" for name in ("welcome", "results", "validation_search", "recipe", "families", "model-cards")),
)


def _models(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.cards import publish

    settings = settings_of(arguments)
    results = Path(arguments.results or Path("results") / settings.profile)
    for folder in publish(settings, Path(arguments.runs), results, arguments.methods, arguments.suffix):
        print(f"written: {folder}")


def _tables(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pages import fill_pages

    for page in fill_pages([Path(page) for page in arguments.pages], Path(arguments.results)):
        print(f"updated: {page}")


def _address(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.address import set_address

    changed = set_address(Path(), arguments.address)  # None with --remove
    print("\n".join(f"updated: {path}" for path in changed) or "nothing to change")


def _hero(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pictures import save_hero

    settings = settings_of(arguments)
    subject = save_hero(settings, Path(arguments.runs), Path("results") / settings.profile, Path(arguments.out))
    print(f"written: {arguments.out} ({subject})")


def _method_figure(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.method_picture import save_method_picture

    save_method_picture(Path(arguments.runs), Path(arguments.out), arguments.subject)
    print(f"written: {arguments.out}")


def _overview(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.overview_chart import save_overview

    for path in save_overview(Path(arguments.results), Path(arguments.out)):
        print(f"written: {path}")


def _family_figure(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.family_page import save_family_figure

    save_family_figure(Path(arguments.runs), Path(arguments.out))


def _recipe_figure(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pictures import save_recipe_figure

    save_recipe_figure(Path(arguments.results), arguments.profile, arguments.dataset, Path(arguments.out))
    print(f"written: {arguments.out}")


def _moving_picture(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.moving_picture import save_moving_picture

    save_moving_picture(Path(arguments.runs), Path(arguments.out), arguments.subject)
    print(f"written: {arguments.out}")


def _social(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pictures import save_social_preview

    save_social_preview(settings_of(arguments), Path(arguments.runs), Path(arguments.out))
    print(f"written: {arguments.out}")


def _real_figures(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pictures import save_real_figures

    for path in save_real_figures(Path(arguments.runs), Path(arguments.out)):
        print(f"written: {path}")


def _search_figure(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pictures import save_idea_figure

    save_idea_figure(Path(arguments.results), Path(arguments.out))
    print(f"written: {arguments.out}")


def _playground(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.playground import build_playground

    made = build_playground(arguments.out, arguments.runs)
    print(f"written: {made.folder}" + (f"; the page Play stays without models: {made.missing}" if made.missing else ""))


def _add_models_and_tables(commands: Commands) -> None:
    models = commands.add(
        "models",
        _models,
        "make shipped models of a finished benchmark",
        "--profile laptop",
        (profile_options(),),
    )
    models.add_argument("--results", help="folder of its tables; results/PROFILE when left out")
    models.add_argument("--methods", type=names_in, default=(), metavar="A,B", help="which models; default all")
    models.add_argument("--suffix", default="", metavar="=-WORD", help="added to their names, beside others")

    tables = commands.add("tables", _tables, "bring the result tables of Markdown pages up to date", "book/results.md")
    tables.add_argument("pages", nargs="*", default=_PAGES, help="all pages with tables when left out")
    tables.add_argument("--results", default="results", help="folder of all runs")


def _add_address(commands: Commands) -> None:
    address = commands.add(
        "address",
        _address,
        "write the repository's address into the files that need it",
        "https://github.com/owner/name",
    )
    either = address.add_mutually_exclusive_group(required=True)
    either.add_argument("address", nargs="?", help="https://github.com/owner/name")
    either.add_argument("--remove", action="store_true", help="take it out again")


def _add_pictures(commands: Commands) -> None:
    profile = (profile_options(),)
    hero = commands.add("hero", _hero, "draw the median test subject of a finished benchmark", "--profile ixi", profile)
    hero.add_argument("--out", default="book/figures/hero.png")

    method = commands.add("method-figure", _method_figure, "draw the method on one slice of a simulated scan")
    method.add_argument("--runs", default="runs", help="folder for prepared scans")
    method.add_argument("--subject", type=int, default=0, help="which test subject with a tumour, from 0 on")
    method.add_argument("--out", default="book/figures/method.png")

    moving = commands.add("moving-picture", _moving_picture, "draw the method box by box, as an animated GIF")
    moving.add_argument("--runs", default="runs", help="folder for prepared scans")
    moving.add_argument("--subject", type=int, default=0, help="which test subject with a tumour, from 0 on")
    moving.add_argument("--out", default="book/figures/method.gif")

    family = commands.add("family-figure", _family_figure, "draw one lesion of each family; needs PDDM_DATA")
    family.add_argument("--runs", default="runs", help="folder for prepared scans")
    family.add_argument("--out", default="book/figures/families.png")

    recipe = commands.add("recipe-figure", _recipe_figure, "draw what the factorial of trainings found")
    recipe.add_argument("--results", default="results/recipe")
    recipe.add_argument("--profile", default="soop")
    recipe.add_argument("--dataset", default="soop-flair", help="lesioned validation scans")
    recipe.add_argument("--out", default="book/figures/recipe.png")

    overview = commands.add("overview", _overview, "draw what all runs found, real lesions first")
    overview.add_argument("--results", default="results", help="folder of the benchmark's tables")
    overview.add_argument("--out", default="book/figures", help="folder for overview.svg, its dark and narrow variants")

    social = commands.add("social", _social, "draw the picture that a shared link shows", "--profile demo", profile)
    social.add_argument("--out", default="book/_static/social.png")

    real = commands.add("real-figures", _real_figures, "draw the book's figures of real scans; needs PDDM_DATA")
    real.add_argument("--runs", default="runs", help="folder for what is computed")
    real.add_argument("--out", default="book/figures", help="folder for the pictures")

    figure = commands.add("search-figure", _search_figure, "draw what the validation search found")
    figure.add_argument("--results", default="results/validation")
    figure.add_argument("--out", default="book/figures/validation_search.png")


def _add_playground(commands: Commands) -> None:
    play = commands.add("playground", _playground, "make the models and slices that the page Play runs in a browser")
    play.add_argument("--runs", default="runs", help="folder whose cache/ keeps the simulated scans")
    play.add_argument("--out", default="_build/playground", help="folder for the files")


def maintainer_commands() -> Commands:
    """What only maintainers run."""
    commands = Commands("python -m pddm_utils.publish", __doc__)
    _add_models_and_tables(commands)
    _add_address(commands)
    _add_pictures(commands)
    _add_playground(commands)
    return commands


def main(words: list[str] | None = None) -> int:
    """Run one command; bad input ends with one line on standard error and exit code 2."""
    os.environ["PDDM_BOOK"] = "1"  # the pages' figures have no ground of their own: one theme is dark
    return maintainer_commands().run(words)


if __name__ == "__main__":
    sys.exit(main())
