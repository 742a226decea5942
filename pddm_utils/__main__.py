"""Find anomalies in brain MRI and compare methods: `python -m pddm_utils <command> --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from pathlib import Path

from pddm_utils.core.command_line import Commands, names_in, profile_options, settings_of
from pddm_utils.core.errors import InputError
from pddm_utils.data.preprocess.plan import STEPS
from pddm_utils.data.scan import CONTRASTS
from pddm_utils.detection.choices import MAP_UNITS
from pddm_utils.methods.registry import TRAINED_METHODS


def _train(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.models import train_method

    train_method(
        settings_of(arguments),
        arguments.method,
        arguments.seed,
        Path(arguments.runs),
        Path(arguments.runs) / "cache",
    )


def _benchmark(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.leaderboard import best_floors, read_selection
    from pddm_utils.benchmark.run import Benchmark, run_benchmark
    from pddm_utils.benchmark.tables import headline_markdown

    settings = settings_of(arguments)
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
            arguments.folds,
        )
    )
    print(headline_markdown(scores, floors=best_floors(scores, read_selection(results))))
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
    from pddm_utils.benchmark.studies.ablations import Ablations
    from pddm_utils.benchmark.studies.trained import TRAINED_QUESTIONS, run_trained_ablations

    sizes = {"subjects": arguments.subjects, "slice_step": arguments.slice_step}
    run = Ablations(Path(arguments.results), Path(arguments.runs), **sizes)
    for path in run_trained_ablations(run, arguments.questions or tuple(TRAINED_QUESTIONS)):
        print(f"written: {path}")


def _validation_search(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.search import COHORTS, Search, look_at_test, run_search

    search = Search(Path(arguments.results), Path(arguments.runs), arguments.cohorts or tuple(COHORTS))
    print(f"written: {look_at_test(search) if arguments.test else run_search(search)}")


def _recipe(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.factorial import CELLS, LONGER, Factorial, run_factorial

    run = Factorial(settings_of(arguments), Path(arguments.results), Path(arguments.runs), arguments.jobs)
    print(f"written: {run_factorial(run, CELLS + LONGER if arguments.longer else CELLS)}")


def _bundle(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.gpu.bundle import make_bundle

    told = make_bundle(Path(arguments.out), Path(arguments.runs), arguments.profiles, arguments.jobs)
    print(
        "\n".join([*told, f"written: {arguments.out}; on the other machine: python run.py --minutes 8 --out results"])
    )


def _gpu(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.gpu.stages import GpuRun, run_stages

    out, work = Path(arguments.out), Path(arguments.work)
    chosen = {name: getattr(arguments, name) for name in ("networks", "stages") if getattr(arguments, name)}
    missing = run_stages(GpuRun(Path(arguments.bundle), out, work, arguments.minutes, **chosen))
    if missing:
        print("not done; the same command goes on with it:\n  " + "\n  ".join(missing))
    print(f"written: {out}/results.json")


def _families(arguments: argparse.Namespace) -> None:
    from pddm_utils.benchmark.studies.families import Families, run_families

    settings, runs, results = settings_of(arguments), Path(arguments.runs), Path(arguments.results)
    run = Families(settings, runs, results, arguments.jobs, arguments.slice_step)
    print(f"written: {run_families(run)}")


def _detect(arguments: argparse.Namespace) -> None:
    from pddm_utils.detection.detect import NOTICE, detect

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
        arguments.other_people,
    )
    counts = Counter((row.split, row.dataset) for row in rows)
    print("\n".join(f"{count:5d} {split:5s} {dataset}" for (split, dataset), count in counts.items()))
    print(f"written: {arguments.out}")


def _preprocess(arguments: argparse.Namespace) -> None:
    from pddm_utils.core.files import write_text
    from pddm_utils.data.preprocess.plan import plan_of
    from pddm_utils.data.preprocess.review import review_scans, write_quality_table
    from pddm_utils.data.preprocess.runner import preprocess_manifest
    from pddm_utils.show.preprocess_page import quality_page

    plan = plan_of(arguments.steps and arguments.steps.split(","), arguments.template or "")
    outcomes = preprocess_manifest(arguments.manifest, arguments.out, plan, arguments.jobs)
    reviews, out = review_scans(outcomes), Path(arguments.out)
    write_quality_table(reviews, out / "quality.csv")
    write_text(out / "qc.html", quality_page(reviews))
    failed = [outcome for outcome in outcomes if outcome.error]
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} scans done, "
        f"{sum(outcome.was_done for outcome in outcomes)} of them before; look at {arguments.out}/qc.html"
    )
    for review in reviews:
        if review.reasons:
            print(f"flagged: {review.name}: {'; '.join(review.reasons)}")
    if failed:
        lines = "\n  ".join(f"{outcome.row.scan_id}: {outcome.error}" for outcome in failed)
        raise InputError(
            f"{arguments.manifest}: {len(failed)} scan(s) failed; mend them and start again, what is done "
            f"is kept\n  {lines}"
        )
    print(f"written: {arguments.out}/manifest.csv")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, names_in(text)))


def _add_detect(commands: Commands) -> None:
    detect = commands.add("detect", _detect, "find anomalies in one NIfTI scan", "sub-01_T2w.nii.gz --out found")
    detect.add_argument("scan")
    detect.add_argument("--out", required=True, help="folder for the results")
    detect.add_argument("--contrast", choices=CONTRASTS, help="read from the file name when left out")
    detect.add_argument("--brain-mask", help="NIfTI mask, or 'extract' for a T1 scan with a skull")
    detect.add_argument("--model", help="a shipped model or a folder; chosen by contrast when left out")
    detect.add_argument(
        "--map",
        choices=tuple(MAP_UNITS),
        default="residual",
        help="z-score: the residual in healthy standard deviations at its place of the brain, in the "
        "lesions' direction only. Chosen on validation scans with inserted (simulated) lesions: "
        "it finds more of large tumours and FAILS for small lesions, such as those of multiple "
        "sclerosis, more than the residual does. Default: residual",
    )


def _add_train(commands: Commands) -> None:
    train = commands.add(
        "train",
        _train,
        "train one model, or go on with it",
        "--method pddpm --profile smoke",
        (profile_options(),),
    )
    train.add_argument("--method", choices=TRAINED_METHODS, required=True)
    train.add_argument("--seed", type=int, default=0)


def _add_benchmark(commands: Commands) -> None:
    benchmark = commands.add(
        "benchmark",
        _benchmark,
        "train what is missing, score every method",
        "--profile demo --weights shipped",
        (profile_options(),),
    )
    benchmark.add_argument("--weights", choices=("train", "shipped"), default="train")
    benchmark.add_argument("--methods", type=names_in, default=(), metavar="A,B", help="instead of the profile's")
    benchmark.add_argument("--datasets", type=names_in, default=(), metavar="A,B", help="test sets; default all")
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


def _add_studies(commands: Commands) -> None:
    changed = argparse.ArgumentParser(add_help=False)
    changed.add_argument("--questions", nargs="+", metavar="NAME", help="all of them when left out")
    changed.add_argument("--subjects", type=int, default=20, help="test subjects of each data set")
    changed.add_argument("--slice-step", type=int, default=2, help="every n-th slice is used")
    changed.add_argument("--results", default="results/ablations", help="folder for the tables")
    changed.add_argument("--runs", default="runs", help="folder for models, prepared scans and partial results")

    ablations = commands.add(
        "ablations",
        _ablations,
        "change one part of the method at a time, with shipped models",
        "--questions noise_level",
        (changed,),
    )
    ablations.add_argument("--benchmark", default="results/laptop", help="results of a finished benchmark")

    commands.add(
        "trained-ablations",
        _trained_ablations,
        "change one part of the training at a time; a quarter of an hour each",
        "--questions noise_in_training",
        (changed,),
    )

    search = commands.add(
        "validation-search",
        _validation_search,
        "try ideas against the gap on validation scans",
        "--cohorts simulated-t2",
    )
    search.add_argument("--test", action="store_true", help="score what validation chose on test scans instead")
    search.add_argument("--cohorts", type=names_in, default=(), metavar="A,B", help="simulated-t2,ixi-t1; default both")
    search.add_argument("--results", default="results/validation", help="folder for the tables")
    search.add_argument("--runs", default="runs", help="folder for prepared scans and partial results")

    recipe = commands.add(
        "recipe",
        _recipe,
        "train with several noises, draws of levels and rates, and score all on validation scans",
        "--profile laptop --jobs 2",
        (profile_options(),),
    )
    recipe.add_argument("--results", default="results/recipe", help="folder for the tables")
    recipe.add_argument("--longer", action="store_true", help="and the best of them for 4,000 steps, and wider")
    recipe.add_argument("--jobs", type=int, default=1, help="trainings side by side, each with one thread")

    families = commands.add(
        "families",
        _families,
        "rank the methods on each family of inserted lesions; needs PDDM_DATA",
        "--profile families --set test_subjects=20",
        (profile_options(),),
    )
    families.add_argument("--results", default="results/families", help="folder for the tables")
    families.add_argument("--slice-step", type=int, default=1, help="every n-th slice of a test scan is used")
    families.add_argument("--jobs", type=int, default=1, help="processes side by side, each with one thread")


def _add_gpu(commands: Commands) -> None:
    bundle = commands.add("bundle", _bundle, "pack what a GPU machine without a network needs", "--out bundle")
    bundle.add_argument("--out", default="_build/bundle", help="the folder to make")
    bundle.add_argument("--profiles", type=names_in, default=(), metavar="A,B", help="whose cohorts; default gpu-*")
    bundle.add_argument("--runs", default="runs", help="folder for prepared scans")
    bundle.add_argument("--jobs", type=int, default=1, help="scans prepared side by side")

    gpu = commands.add("gpu", _gpu, "check, measure and train on the device at hand", "--minutes 8 --out results/gpu")
    gpu.add_argument("--out", required=True, help="what travels back: at most eight files of at most 16 MiB")
    gpu.add_argument("--minutes", type=float, default=8, help="a part that has begun is finished")
    gpu.add_argument("--bundle", default="_build/bundle", help="folder that `bundle` made")
    gpu.add_argument("--work", default="runs/gpu", help="folder for checkpoints and models")
    gpu.add_argument("--networks", type=names_in, default=(), metavar="A,B,C", help="default laptop,middle,paper")
    gpu.add_argument(
        "--stages", type=names_in, default=(), metavar="A,B", help="default checks,speed,training,compiled"
    )


def _add_sources(commands: Commands) -> None:
    commands.add("sources", _sources, "list the data sources: access, licence")

    fetch = commands.add(
        "fetch", _fetch, "download a public source, or unpack an archive you have", "decathlon --data data"
    )
    fetch.add_argument("source")
    fetch.add_argument("--data", required=True, help="folder for all data sets")
    fetch.add_argument("--archive", help="unpack this file instead of downloading")


def _add_manifest(commands: Commands) -> None:
    manifest = commands.add(
        "manifest", _manifest, "write the table of a source's scans", "decathlon data/decathlon --out scans.csv"
    )
    manifest.add_argument("source")
    manifest.add_argument("folder", help="where the scans lie")
    manifest.add_argument("--out", required=True, help="the CSV to write")
    manifest.add_argument("--contrast", choices=CONTRASTS, default="T2")
    manifest.add_argument("--splits", help="folder of the authors' split files (ixi-t1, ixi-t2, brats21)")
    manifest.add_argument("--fold", type=int, choices=range(5), default=0, help="of the authors' five")
    manifest.add_argument("--masks", help="folder with one brain mask a subject (ixi-t1, ixi-t2)")
    manifest.add_argument("--add", action="store_true", help="keep the other data sets that the CSV holds")
    manifest.add_argument(
        "--other-people",
        action="store_true",
        help="nobody here is in the CSV's other data sets: sub-01 is another sub-01",
    )


def _add_preprocess(commands: Commands) -> None:
    preprocess = commands.add(
        "preprocess",
        _preprocess,
        "register, correct and frame the raw scans of a manifest",
        "--manifest raw.csv --out prepared",
    )
    preprocess.add_argument("--manifest", required=True, help="CSV of raw scans, with an optional column t1")
    preprocess.add_argument("--out", required=True, help="folder for NIfTIs, manifest.csv and qc.html")
    preprocess.add_argument("--steps", help=f"{','.join(STEPS)}, or some of them")
    preprocess.add_argument("--template", help="skull-stripped brain, such as SRI24; MNI152 T1 when left out")
    preprocess.add_argument("--jobs", type=int, default=1, help="scans side by side")


def user_commands() -> Commands:
    """What users run; what only maintainers run is in `pddm_utils.publish`."""
    commands = Commands("python -m pddm_utils", __doc__)
    for add in (
        _add_detect,
        _add_benchmark,
        _add_train,
        _add_studies,
        _add_gpu,
        _add_sources,
        _add_manifest,
        _add_preprocess,
    ):
        add(commands)
    return commands


def main(words: list[str] | None = None) -> int:
    """Run one command; bad input ends with one line on standard error and exit code 2."""
    return user_commands().run(words)


if __name__ == "__main__":
    sys.exit(main())
