"""What a result was made with: commit, versions of packages, hardware, in words that name no machine."""

from __future__ import annotations

import os
import platform
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "diffusers", "accelerate", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn")
_DIRTY = "-dirty"  # behind a commit: the package had changes that were not committed
_said: set[str] = set()


@cache
def made_with() -> dict[str, Any]:
    """Commit (empty outside a checkout), Python and packages of this process, JSON-ready."""
    return {
        "git_commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str:
    """Of an installed package; empty for one that this machine lacks and its work does not need."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def environment() -> dict[str, Any]:
    """`made_with` and the hardware, JSON-ready."""
    return {**made_with(), "hardware": _hardware()}


def warn_of_others(records: Iterable[Mapping[str, Any]]) -> None:
    """Warn once, naming what differs, where something kept from an earlier run was made with something else.

    Args:
        records: `made_with` of everything that is used; an empty one is unknown.
    """
    now = _flat(made_with())
    others: dict[str, set[str]] = {}
    for record in map(_flat, records):
        for name, value in now.items():
            then = record.get(name, "unknown")
            if then != value or value.endswith(_DIRTY):
                others.setdefault(name, set()).add(then)
    if others.get("commit") == {now["commit"]}:
        others["commit"] = {f"{now['commit']}, whose uncommitted changes may have been others"}
    if others:
        different = "; ".join(f"{name} {', '.join(sorted(then))} (now {now[name]})" for name, then in others.items())
        message = f"models or parts of an earlier run are used, made with {different}; delete them to compute them anew"
        if message not in _said:  # Python's own memory of warnings is wiped whenever a library changes a filter
            _said.add(message)
            warnings.warn(message, stacklevel=2)


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    """The versions of a record by name, commits short."""
    if not record:
        return {}
    commit = record["git_commit"]
    commit = commit[:7] + (_DIRTY if commit.endswith(_DIRTY) else "")
    return {"commit": commit or "unknown", "Python": record["python"], **record["packages"]}


def _commit() -> str:
    def git(*words: str) -> str:
        folder = Path(__file__).parents[1]
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=folder)
        except OSError:  # no git on this machine
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return commit + (_DIRTY if commit and git("status", "--porcelain", "--", ".") else "")


def _hardware() -> dict[str, Any]:
    """Processor, cores and GPU."""
    import torch  # late, because a cold import takes seconds and few need it

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
