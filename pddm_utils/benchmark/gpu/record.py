"""What a run on a device has measured so far, in one file that is always whole, and the time that is left to it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.core.provenance import environment

NAME = "results.json"
# Dense bf16 operations a second by NVIDIA's data sheets; the first name that a card's own contains.
_PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


class Clock:
    """The time of a run.

    Args:
        minutes: it may take.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds, self._start = 60 * minutes, time.monotonic()

    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.seconds - (time.monotonic() - self._start))

    def used(self) -> float:
        """Share of the time that has passed."""
        return 1 - self.left() / self.seconds


class Record:
    """Results by stage and name; each is on disk before the next is begun.

    Args:
        folder: where `results.json` lies, or will lie.
        about: JSON-ready, what the run depends on: another run's results in the folder are refused.
        writes: whether this process writes; of several, the first does.

    Raises:
        InputError: results of another run lie there, or a damaged file.
    """

    def __init__(self, folder: Path, about: dict[str, Any], writes: bool = True) -> None:
        self.path, self.writes = folder / NAME, writes
        self.content: dict[str, Any] = {"about": about}
        if self.path.is_file():
            try:
                self.content = json.loads(self.path.read_text(encoding="utf-8"))
                earlier = self.content["about"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{self.path}: damaged or of another program; choose another folder") from None
            if earlier != about:
                differs = ", ".join(sorted(name for name in about if earlier.get(name) != about[name]))
                raise InputError(f"{self.path}: of another run ({differs} differ); choose another folder")

    def has(self, stage: str, name: str) -> bool:
        """Whether there is a result, or the note that it failed."""
        return name in self.content.get(stage, {})

    def done(self, stage: str, name: str) -> bool:
        """Whether there is a result that is no note of a failure."""
        return self.has(stage, name) and "failed" not in self.get(stage, name)

    def get(self, stage: str, name: str) -> Any:
        """A result that is there."""
        return self.content[stage][name]

    def __str__(self) -> str:
        """All results, a line each: what a log keeps when the file is lost."""
        return "\n".join(
            f"{stage}: {name}: {json.dumps(value)}"
            for stage, parts in self.content.items()
            for name, value in parts.items()
        )

    def put(self, stage: str, name: str, value: Any) -> None:
        """Keep a result, JSON-ready."""
        self.content.setdefault(stage, {})[name] = value
        if self.writes:
            write_text(self.path, json.dumps(self.content, indent=1) + "\n")


@contextmanager
def exact_matrix_products() -> Iterator[None]:
    """Without TF32, which keeps ten bits of a factor: fp32 is to mean fp32 here."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def describe(device: torch.device) -> dict[str, Any]:
    """Card, driver and versions; of a processor what `environment` says."""
    if device.type != "cuda":
        return {"card": None, **environment()}
    facts = torch.cuda.get_device_properties(device)
    return {
        "card": facts.name,
        "memory_gib": round(facts.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "peak_bf16": peak_of(facts.name),
        **environment(),
    }


def peak_of(card: str) -> float | None:
    """Dense bf16 operations a second of a card by its data sheet; None for one that is not in the table."""
    return next((peak for name, peak in _PEAKS.items() if name in card), None)


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip()
    except OSError:
        return ""
