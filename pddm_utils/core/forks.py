"""Processes that are forked from one that has used PyTorch."""

from __future__ import annotations

import os
import sys


def keep_forks_usable() -> None:
    """Let every process that is forked from this one from now on use one thread for PyTorch.

    The threads of OpenMP are not copied with the process: the first network pass in the copy would wait for them for
    ever. `multiprocessing` forks by default on Linux before Python 3.14; with the start method `spawn` each process
    has threads of its own.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
