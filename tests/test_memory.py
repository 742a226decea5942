"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

_COUNT = """
import resource, sys
import numpy as np
from pddm_utils.diffusion.memory import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
else:
    print(False)
def use():  # what two layers of a network do: each array is written and freed
    first = np.ones(2**20)
    second = first + 1
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str) -> tuple[bool, int]:
    """Whether the setting was taken, and pages the system had to clear, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _COUNT, what], capture_output=True, text=True, check=True)
    taken, faults = done.stdout.split()
    return taken == "True", int(faults)


def test_freed_memory_is_used_again() -> None:
    taken, faults = page_faults("keep")
    assert taken == (platform.libc_ver()[0] == "glibc")
    if taken:
        assert faults * 10 < page_faults("give back")[1]
