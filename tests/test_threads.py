"""Results depend on the number of threads; all that computes takes the one that is asked for."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from pddm_utils.core.threads import use_threads


def test_torch_and_blas_take_the_number() -> None:
    before = torch.get_num_threads()
    with threadpool_limits(2):  # put back at the end
        use_threads(1)
        libraries = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert libraries and {pool["num_threads"] for pool in libraries} == {torch.get_num_threads()} == {1}
        use_threads(2)
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
