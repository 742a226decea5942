"""A Python like that of a bare GPU node: torch and what goes with it, no diffusers, no nibabel, no network."""

from __future__ import annotations

import os
import re
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HAS = ("torch", "accelerate", "safetensors", "scipy", "pandas", "scikit-learn", "matplotlib")
_NO_NETWORK = """
import socket

def refuse(*words, **names):
    raise OSError("this machine has no network")

def connect(self, address, connect=socket.socket.connect):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        refuse()
    return connect(self, address)

socket.socket.connect, socket.create_connection = connect, refuse
"""


def with_what_they_need(names: tuple[str, ...]) -> set[str]:
    """Distributions that are installed here, and those that they need."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform
            continue
        if name not in found:
            found.add(name)
            waiting += [re.match(r"[\w.-]+", line).group() for line in lines if "extra ==" not in line]
    return found


def bare_node(folder: Path) -> tuple[Path, dict[str, str]]:
    """Make such a Python below a folder; its path, and the environment of what runs there."""
    venv.create(folder / "node", with_pip=False)
    python = folder / "node" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "node" / "lib" / version / "site-packages"
    for name in with_what_they_need(HAS):
        for top in {file.parts[0] for file in distribution(name).files or () if file.parts[0] != ".."}:
            place = Path(str(distribution(name).locate_file(top)))
            if place.exists() and top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(place)
    (site / "sitecustomize.py").write_text(_NO_NETWORK)
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = kept | {"HOME": str(folder), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return python, environment
