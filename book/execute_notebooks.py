"""Execute the notebooks, several at a time, into the cache that `jupyter-book build` reads.

`execute_notebooks.py [JOBS]`; what the cache holds is not executed again. `PDDM_PROFILE` is the profile.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import yaml
from joblib import Parallel, delayed
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"  # where Jupyter Book looks


def missing(cache: JupyterCacheAbstract) -> list[Path]:
    """Notebooks of the table of contents that the cache does not hold, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [ROOT / f"{chapter['file']}.ipynb" for part in toc["parts"] for chapter in part["chapters"]]

    def holds(path: Path) -> bool:
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            return False
        return True

    return [path for path in pages if path.is_file() and not holds(path)]


def execute(path: Path, timeout_s: int) -> tuple[Path, ExecutionResult]:
    """Run one notebook where it lies; a cell's error is in the result."""
    notebook = nbformat.read(path, as_version=4)
    quiet = ["--IPKernelApp.log_level=ERROR"]
    return path, single_nb_execution(
        notebook, cwd=str(path.parent), timeout=timeout_s, allow_errors=False, extra_arguments=quiet
    )


def main(jobs: int) -> int:
    """Execute what is missing; the exit code is 1, after all were tried, if a cell raised."""
    timeout_s = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["execute"]["timeout"]
    # Kernels share the processor instead of each taking all of it.
    os.environ["PDDM_BOOK"] = "1"  # figures on a transparent ground
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    cache = get_cache(str(CACHE))
    paths = missing(cache)
    failed = False
    results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(execute)(path, timeout_s) for path in paths
    )
    bar = tqdm(results, total=len(paths), desc="executing notebooks", unit="notebook")
    for path, result in bar:
        if result.err:
            failed = True
            bar.write(f"{path.name} failed:\n{result.exc_string}", file=sys.stderr)
            continue
        bar.set_postfix_str(f"{path.stem}: {result.time:.0f} s")
        bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2))
