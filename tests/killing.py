"""SIGKILL at random moments: what a power cut or the kernel's memory killer does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def kill_repeatedly(
    command: Sequence[str],
    environment: dict[str, str],
    sign_of_life: Callable[[], object],
    kills: int,
    seed: int,
    longest: float,
) -> None:
    """Start a command and kill it a random moment after it first changed something, several times over.

    Args:
        command, environment: what to run.
        sign_of_life: its value changes when the command has begun to write.
        kills: how often.
        seed: of the moments.
        longest: seconds between sign of life and kill, at most.
    """
    rng = random.Random(seed)
    for _ in range(kills):
        before = sign_of_life()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and sign_of_life() == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        process.wait()


def newest_change(folder: Path) -> int:
    """Newest modification below a folder, in ns; 0 when there is nothing."""
    newest = 0
    for parent, _, names in os.walk(folder):  # walks on where a folder vanishes meanwhile
        for path in (Path(parent), *(Path(parent) / name for name in names)):
            try:
                newest = max(newest, path.stat().st_mtime_ns)
            except FileNotFoundError:
                pass
    return newest


def visible_files(folder: Path) -> dict[str, bytes]:
    """Content by relative path, without what lies under a hidden name."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {
        path.as_posix(): (folder / path).read_bytes()
        for path in paths
        if not any(part.startswith(".") for part in path.parts)
    }
