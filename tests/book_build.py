"""Runs the notebooks with papermill and builds the site from what they leave, each once per test run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
import yaml

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


@functools.cache
def run_notebook(path: Path) -> Path:
    """Execute a notebook with the `smoke` profile and return the executed copy.

    Raises:
        papermill.PapermillExecutionError: if a cell raises.
    """
    output = WORK / "notebooks" / path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PDDM_PROFILE"] = "smoke"
    papermill.execute_notebook(
        str(path),
        str(output),
        parameters={"profile": "smoke"},
        kernel_name="python3",
        cwd=str(path.parent),
        execution_timeout=TIMEOUT_S,
        progress_bar=False,
        log_output=False,
    )
    return output


@functools.cache
def built_site() -> Path:
    """The site as HTML files: the folder that PDDM_SITE names, or a build from the executed notebooks.

    Warnings are errors. Notebooks are not executed again; the status page is.

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
    quiet = os.environ | {"NO_COLOR": "1"}
    build = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if build.returncode != 0:
        raise RuntimeError(f"the book does not build without warnings:\n{build.stderr[-6000:]}")
    return output / "_build" / "html"
