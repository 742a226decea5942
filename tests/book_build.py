"""Runs the notebooks with papermill and builds the site from what they leave, each once per test run.

`python tests/book_build.py [JOBS]` does both ahead of the tests, several notebooks at a time, in `_build/test`; tests
that find the variables `PDDM_EXECUTED` and `PDDM_SITE` take the notebooks and the site of these folders.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import papermill
import yaml
from joblib import Parallel, delayed
from tqdm import tqdm

from pddm_utils.publish.playground import build_playground

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "_build" / "test"
TIMEOUT_S = 600


def toc_pages() -> list[str]:
    """Pages of the book as `_toc.yml` names them, without suffix, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    below = {chapter["file"]: [section["file"] for section in chapter.get("sections", ())] for chapter in chapters}
    return [toc["root"], *(page for chapter, sections in below.items() for page in (chapter, *sections))]


def notebook_paths() -> list[Path]:
    """The notebooks of the book, in reading order."""
    return [ROOT / f"{page}.ipynb" for page in toc_pages() if page.startswith("notebooks/")]


def tree() -> set[str]:
    """Files and folders where a notebook must not leave any."""
    folders = [ROOT / name for name in ("notebooks", "book", "results", "weights")]
    inside = {path for folder in folders for path in folder.rglob("*")}
    return {str(path.relative_to(ROOT)) for path in inside | set(ROOT.glob("*")) - {ROOT / "runs", ROOT / "_build"}}


@functools.cache
def fresh_runs() -> Path:
    """A folder for what notebooks keep, new for this test run: parts of an earlier commit are used with a warning."""
    WORK.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="runs-", dir=WORK))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def execute_smoke(path: Path, folder: Path, runs: Path) -> Path:
    """Execute a notebook with the `smoke` profile into a folder; what it keeps goes to `runs`.

    Beside the executed copy, which is returned, a JSON file says the CPU seconds and the files that appeared.

    Raises:
        papermill.PapermillExecutionError: if a cell raises.
    """
    output = folder / path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ |= {"PDDM_PROFILE": "smoke", "PDDM_BOOK": "1"}
    known = papermill.inspect_notebook(str(path))
    parameters = {"profile": "smoke", "runs": os.path.relpath(runs, path.parent)}
    before, used = tree(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters={name: value for name, value in parameters.items() if name in known},
            kernel_name="python3",
            cwd=str(path.parent),
            execution_timeout=TIMEOUT_S,
            progress_bar=False,
            log_output=False,
        )
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        record = {"cpu_seconds": seconds, "new_files": sorted(tree() - before)}
        output.with_suffix(".json").write_text(json.dumps(record))
    return output


@functools.cache
def run_notebook(path: Path) -> Path:
    """The executed copy of a notebook: from the folder that PDDM_EXECUTED names, or executed now.

    Raises:
        papermill.PapermillExecutionError: if a cell raises.
    """
    if os.environ.get("PDDM_EXECUTED"):
        return Path(os.environ["PDDM_EXECUTED"]).resolve() / path.name
    return execute_smoke(path, WORK / "notebooks", fresh_runs())


@functools.cache
def built_site() -> Path:
    """The site as HTML files: the folder that PDDM_SITE names, or a build from the executed notebooks.

    Warnings are errors. Notebooks are not executed again; the status page is. The page Play has its models where npm
    delivers what runs them, and else says that it has none.

    Raises:
        RuntimeError: with the build's warnings, if the build fails.
    """
    if os.environ.get("PDDM_SITE"):
        return Path(os.environ["PDDM_SITE"]).resolve()
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    for folder in ("book", "notebooks", "results"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, source / folder)
    shutil.copy2(ROOT / "_toc.yml", source)
    for path in notebook_paths():
        shutil.copy2(run_notebook(path), source / "notebooks")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"] |= {"execute_notebooks": "force", "exclude_patterns": ["notebooks/*"]}
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    output = WORK / "site"
    shutil.rmtree(output, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going"]
    play = build_playground(WORK / "playground", WORK / "runs", subjects=2, scans=2).folder
    quiet = os.environ | {"NO_COLOR": "1", "PDDM_PLAYGROUND": str(play)}
    build = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if build.returncode != 0:
        raise RuntimeError(f"the book does not build without warnings:\n{build.stderr[-6000:]}")
    return output / "_build" / "html"


def execute_all(jobs: int) -> None:
    """Execute every notebook; one that fails is reported, and its copy ends where it failed."""

    def execute(path: Path) -> str:
        try:
            execute_smoke(path, WORK / "notebooks", runs)
        except papermill.PapermillExecutionError as error:
            return f"{path.name}: {error}"
        return ""

    paths, runs = notebook_paths(), fresh_runs()
    shutil.rmtree(WORK / "notebooks", ignore_errors=True)
    done = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(execute)(path) for path in paths)
    for problem in tqdm(done, total=len(paths), desc="executing notebooks", unit="notebook"):
        if problem:
            print(problem, file=sys.stderr)


if __name__ == "__main__":
    execute_all(jobs=int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    os.environ["PDDM_EXECUTED"] = str(WORK / "notebooks")
    print(f"built: {built_site()}")
