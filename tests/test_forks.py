"""A process forked after PyTorch was used works: its first network pass does not wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import multiprocessing
import pddm_utils, torch

def work(_):
    layer = torch.nn.Conv2d(16, 16, 3)
    return layer(torch.ones(4, 16, 96, 96)).shape[0] * torch.get_num_threads()

if __name__ == "__main__":
    torch.set_num_threads(2)
    assert work(0) == 8, "two threads here"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(work, range(2)).get(timeout=60) == [4, 4], "one thread in each copy"
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
def test_a_forked_process_can_run_a_network() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=120)
