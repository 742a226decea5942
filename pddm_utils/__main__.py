"""Command line: `python -m pddm_utils <command> --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections import Counter
from pathlib import Path

import yaml

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings, profile_names
from pddm_utils.methods.registry import TRAINED_METHODS


def _settings(arguments: argparse.Namespace) -> Settings:
    overrides = {}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item}: write NAME=VALUE, for example --set train_steps=200")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {item}: the value is not valid YAML; write it as in a profile") from None
    return load_settings(arguments.profile, overrides)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, _names(text)))


def _train(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.models import train_method

    train_method(
        _settings(arguments),
        arguments.method,
        arguments.seed,
        Path(arguments.runs),
        Path(arguments.runs) / "cache",
        accept_code_change=arguments.accept_code_change,
    )


def _benchmark(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.run import Benchmark, run_benchmark
    from pddm_utils.benchmark.tables import headline_markdown

    settings = _settings(arguments)
    if arguments.methods:
        settings = dataclasses.replace(settings, methods=arguments.methods)
    suffix = "-shipped" if arguments.weights == "shipped" else ""
    results = Path(arguments.results or Path("results") / f"{settings.profile}{suffix}")
    scores = run_benchmark(
        Benchmark(
            settings,
            arguments.weights == "shipped",
            Path(arguments.runs),
            results,
            arguments.jobs,
            arguments.seeds,
            arguments.datasets,
            arguments.accept_code_change,
            arguments.folds,
        )
    )
    print(headline_markdown(scores))
    print(f"written: {results}/scores.csv, curves.csv, selection.csv, run.json")


def _ablations(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.ablations import NAMES, Ablations, run_ablations

    run = Ablations(
        Path(arguments.results),
        Path(arguments.runs),
        Path(arguments.benchmark),
        arguments.subjects,
        arguments.slice_step,
    )
    names = arguments.questions or NAMES
    written = run_ablations(run, names)
    for path in written:
        print(f"written: {path}")
    if len(written) < len(names):
        print(f"{len(names) - len(written)} of {len(names)} tables are there already; delete one to have it made again")


def _trained_ablations(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.trained import TRAINED_QUESTIONS, TrainedAblations, run_trained_ablations

    run = TrainedAblations(
        Path(arguments.results),
        Path(arguments.runs),
        arguments.subjects,
        arguments.slice_step,
        arguments.accept_code_change,
    )
    for path in run_trained_ablations(run, arguments.questions or tuple(TRAINED_QUESTIONS)):
        print(f"written: {path}")


def _validation_search(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.search import COHORTS, Search, look_at_test, run_search

    search = Search(Path(arguments.results), Path(arguments.runs), arguments.cohorts or tuple(COHORTS))
    print(f"written: {look_at_test(search) if arguments.test else run_search(search)}")


def _publish(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.cards import publish

    settings = _settings(arguments)
    results = Path(arguments.results or Path("results") / settings.profile)
    for folder in publish(settings, Path(arguments.runs), results, arguments.accept_code_change):
        print(f"written: {folder}")


def _hero(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.hero import save_hero

    settings = _settings(arguments)
    subject = save_hero(settings, Path(arguments.runs), Path("results") / settings.profile, Path(arguments.out))
    print(f"written: {arguments.out} ({subject})")


def _social(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.social import save_social_preview

    save_social_preview(_settings(arguments), Path(arguments.runs), Path(arguments.out))
    print(f"written: {arguments.out}")


def _real_figures(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.real_figures import save_real_figures

    for path in save_real_figures(Path(arguments.runs), Path(arguments.out)):
        print(f"written: {path}")


def _search_figure(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.search_figures import save_idea_figure
    from pddm_utils.benchmark.studies.search_tables import read_search

    save_idea_figure(read_search(arguments.results, "ideas")[0], Path(arguments.out))
    print(f"written: {arguments.out}")


def _tables(arguments: argparse.Namespace) -> None:
    from pddm_utils.publish.pages import fill_pages

    for page in fill_pages([Path(page) for page in arguments.pages], Path(arguments.results)):
        print(f"updated: {page}")


def _detect(arguments: argparse.Namespace) -> None:
    from pddm_utils.detection.detect import MAP_UNITS, NOTICE, detect

    found = detect(
        arguments.scan, arguments.out, arguments.contrast, arguments.brain_mask, arguments.model, arguments.map
    )
    print(
        f"{found.anomalous_ml:.1f} ml above the threshold {found.threshold:.3f} {MAP_UNITS[found.map_kind]} "
        f"({found.model}); results in {arguments.out}. {NOTICE}"
    )


def _sources(_: argparse.Namespace) -> None:
    from pddm_utils.data.sources.registry import SOURCES, describe

    print("\n".join(map(describe, SOURCES)))


def _fetch(arguments: argparse.Namespace) -> None:
    from pddm_utils.data.sources.registry import fetch

    print(f"unpacked: {fetch(arguments.source, arguments.data, arguments.archive)}")


def _manifest(arguments: argparse.Namespace) -> None:
    from pddm_utils.data.sources.registry import make_manifest

    rows = make_manifest(
        arguments.source,
        arguments.folder,
        arguments.out,
        arguments.contrast,
        arguments.splits,
        arguments.fold,
        arguments.masks,
        arguments.add,
    )
    counts = Counter((row.split, row.dataset) for row in rows)
    print("\n".join(f"{count:5d} {split:5s} {dataset}" for (split, dataset), count in counts.items()))
    print(f"written: {arguments.out}")


def _preprocess(arguments: argparse.Namespace) -> None:
    from pddm_utils.data.preprocess.plan import plan_of
    from pddm_utils.data.preprocess.runner import preprocess_manifest
    from pddm_utils.show.preprocess_page import write_quality_page

    plan = plan_of(arguments.steps and arguments.steps.split(","), arguments.template or "")
    outcomes = preprocess_manifest(arguments.manifest, arguments.out, plan, arguments.jobs)
    flagged = write_quality_page(outcomes, arguments.out)
    failed = [outcome for outcome in outcomes if outcome.error]
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} scans done, "
        f"{sum(outcome.was_done for outcome in outcomes)} of them before; look at {arguments.out}/qc.html"
    )
    for name, reasons in flagged.items():
        print(f"flagged: {name}: {'; '.join(reasons)}")
    if failed:
        lines = "\n  ".join(f"{outcome.row.scan_id}: {outcome.error}" for outcome in failed)
        raise InputError(
            f"{arguments.manifest}: {len(failed)} scan(s) failed; mend them and start again, what is done "
            f"is kept\n  {lines}"
        )
    print(f"written: {arguments.out}/manifest.csv")


def _add_data_commands(commands: argparse._SubParsersAction) -> None:
    commands.add_parser("sources", help="list the data sources: access, licence").set_defaults(run=_sources)

    fetch = commands.add_parser("fetch", help="download a public source, or unpack an archive you have")
    fetch.add_argument("source")
    fetch.add_argument("--data", required=True, help="folder for all data sets")
    fetch.add_argument("--archive", help="unpack this file instead of downloading")
    fetch.set_defaults(run=_fetch)

    manifest = commands.add_parser("manifest", help="write the table of a source's scans")
    manifest.add_argument("source")
    manifest.add_argument("folder", help="where the scans lie")
    manifest.add_argument("--out", required=True, help="the CSV to write")
    manifest.add_argument("--contrast", choices=("T1", "T2", "FLAIR"), default="T2")
    manifest.add_argument("--splits", help="folder of the authors' split files (ixi-t1, ixi-t2, brats21)")
    manifest.add_argument("--fold", type=int, choices=range(5), default=0, help="of the authors' five")
    manifest.add_argument("--masks", help="folder with one brain mask a subject (ixi-t1, ixi-t2)")
    manifest.add_argument("--add", action="store_true", help="keep the other data sets that the CSV holds")
    manifest.set_defaults(run=_manifest)

    preprocess = commands.add_parser("preprocess", help="register, correct and frame the raw scans of a manifest")
    preprocess.add_argument("--manifest", required=True, help="CSV of raw scans, with an optional column t1")
    preprocess.add_argument("--out", required=True, help="folder for NIfTIs, manifest.csv and qc.html")
    preprocess.add_argument("--steps", help="resample,strip,register,crop,bias,scale,smooth,frame, or some of them")
    preprocess.add_argument("--template", help="skull-stripped brain, such as SRI24; MNI152 T1 when left out")
    preprocess.add_argument("--jobs", type=int, default=1, help="scans side by side")
    preprocess.set_defaults(run=_preprocess)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pddm_utils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--profile", default="laptop", help=f"one of {', '.join(profile_names())}, or a .yaml file")
    shared.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one setting")
    shared.add_argument("--runs", default="runs", help="folder for models and partial results")

    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--accept-code-change",
        action="store_true",
        help="use models and checkpoints that other code made from the same settings and data",
    )

    train = commands.add_parser("train", parents=[shared, models], help="train one model, or go on with it")
    train.add_argument("--method", choices=TRAINED_METHODS, required=True)
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=_train)

    benchmark = commands.add_parser(
        "benchmark", parents=[shared, models], help="train what is missing, score every method"
    )
    benchmark.add_argument("--weights", choices=("train", "shipped"), default="train")
    benchmark.add_argument("--methods", type=_names, default=(), metavar="A,B", help="instead of the profile's")
    benchmark.add_argument("--datasets", type=_names, default=(), metavar="A,B", help="test sets; default all")
    benchmark.add_argument("--seeds", type=_numbers, default=(), metavar="0,1", help="of the profile's; default all")
    benchmark.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="N",
        help="cross-validation over the healthy subjects, fold k as seed k; default none",
    )
    benchmark.add_argument("--jobs", type=int, default=2, help="processes side by side")
    benchmark.add_argument("--results", help="folder for the tables; results/PROFILE[-shipped] when left out")
    benchmark.set_defaults(run=_benchmark)

    changed = argparse.ArgumentParser(add_help=False)
    changed.add_argument("--questions", nargs="+", metavar="NAME", help="all of them when left out")
    changed.add_argument("--subjects", type=int, default=20, help="test subjects of each data set")
    changed.add_argument("--slice-step", type=int, default=2, help="every n-th slice is used")
    changed.add_argument("--results", default="results/ablations", help="folder for the tables")
    changed.add_argument("--runs", default="runs", help="folder for models, prepared scans and partial results")

    ablations = commands.add_parser(
        "ablations", parents=[changed], help="change one part of the method at a time, with shipped models"
    )
    ablations.add_argument("--benchmark", default="results/laptop", help="results of a finished benchmark")
    ablations.set_defaults(run=_ablations)

    trained = commands.add_parser(
        "trained-ablations",
        parents=[changed, models],
        help="change one part of the training at a time; a quarter of an hour each",
    )
    trained.set_defaults(run=_trained_ablations)

    search = commands.add_parser("validation-search", help="try ideas against the gap on validation scans")
    search.add_argument("--test", action="store_true", help="score what validation chose on test scans instead")
    search.add_argument("--cohorts", type=_names, default=(), metavar="A,B", help="simulated-t2,ixi-t1; default both")
    search.add_argument("--results", default="results/validation", help="folder for the tables")
    search.add_argument("--runs", default="runs", help="folder for prepared scans and partial results")
    search.set_defaults(run=_validation_search)

    publish = commands.add_parser(
        "publish", parents=[shared, models], help="make shipped models of a finished benchmark"
    )
    publish.add_argument("--results", help="folder of its tables; results/PROFILE when left out")
    publish.set_defaults(run=_publish)

    hero = commands.add_parser("hero", parents=[shared], help="draw the median test subject of a finished benchmark")
    hero.add_argument("--out", default="book/figures/hero.png")
    hero.set_defaults(run=_hero)

    social = commands.add_parser("social", parents=[shared], help="draw the picture that a shared link shows")
    social.add_argument("--out", default="book/_static/social.png")
    social.set_defaults(run=_social)

    real = commands.add_parser("real-figures", help="draw the book's figures of real scans; needs PDDM_DATA")
    real.add_argument("--runs", default="runs", help="folder for what is computed")
    real.add_argument("--out", default="book/figures", help="folder for the pictures")
    real.set_defaults(run=_real_figures)

    figure = commands.add_parser("search-figure", help="draw what the validation search found")
    figure.add_argument("--results", default="results/validation")
    figure.add_argument("--out", default="book/figures/validation_search.png")
    figure.set_defaults(run=_search_figure)

    tables = commands.add_parser("tables", help="bring the result tables of Markdown pages up to date")
    tables.add_argument(
        "pages",
        nargs="*",
        default=[
            "README.md",
            "book/results.md",
            "book/leaderboard.md",
            "book/validation_search.md",
            "book/model-cards.md",
        ],
    )
    tables.add_argument("--results", default="results")
    tables.set_defaults(run=_tables)

    detect = commands.add_parser("detect", help="find anomalies in one NIfTI scan")
    detect.add_argument("scan")
    detect.add_argument("--out", required=True, help="folder for the results")
    detect.add_argument("--contrast", choices=("T1", "T2"), help="read from the file name when left out")
    detect.add_argument("--brain-mask", help="NIfTI mask, or 'extract' for a T1 scan with a skull")
    detect.add_argument("--model", help="a shipped model or a folder; chosen by contrast when left out")
    detect.add_argument(
        "--map",
        choices=("residual", "z-score"),
        default="residual",
        help="z-score: the residual in healthy standard deviations at its place of the brain, in the "
        "lesions' direction only. Chosen on validation scans with inserted (simulated) lesions: "
        "it finds more of large tumours and FAILS for small lesions, such as those of multiple "
        "sclerosis, more than the residual does. Default: residual",
    )
    detect.set_defaults(run=_detect)
    _add_data_commands(commands)
    return parser


def main(words: list[str] | None = None) -> int:
    """Run one command; bad input ends with one line on standard error and exit code 2."""
    arguments = _parser().parse_args(words)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # no file and line: the reader is a user
    try:
        arguments.run(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
