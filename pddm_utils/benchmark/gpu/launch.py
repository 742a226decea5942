"""Starts the bundle it lies in, as `run.py`: unpacks the wheels that this machine lacks, then runs the `gpu` command.

It needs nothing but Python and no network; `python run.py --help` lists the options. Nothing is installed: the wheels
are unpacked into the folder `site` beside this file, or into the one that PDDM_SITE names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def lacks(name: str, versions: str) -> bool:
    """Whether this machine has no such distribution, or none of the versions that are asked for."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    try:
        from packaging.specifiers import SpecifierSet  # comes with accelerate
    except ImportError:
        return False
    return not SpecifierSet(versions).contains(found, prereleases=True)


def unpack(site: Path) -> None:
    """Unpack the package, and every wheel of something that is lacking; all at once, so that processes may race."""
    if site.is_dir():
        return
    needed = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))["wheels"]
    site.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=site.parent))
    for file, (name, versions) in needed.items():
        if name == "pddm-utils" or lacks(name, versions):
            print(f"unpacked: {file}", flush=True)
            with zipfile.ZipFile(HERE / "wheels" / file) as wheel:
                wheel.extractall(scratch)
    try:
        scratch.rename(site)
    except OSError:  # another process was first
        shutil.rmtree(scratch)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("Python 3.11 or newer is needed")
    # A folder for each bundle: another one's code is neither run nor taken away from a process that runs it.
    own = hashlib.sha256((HERE / "bundle.json").read_bytes()).hexdigest()[:12]
    site = Path(os.environ.get("PDDM_SITE", HERE / "site")) / own
    unpack(site)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    words = ["-m", "pddm_utils", "gpu", "--bundle", str(HERE), *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *words])
