"""The number of threads of a process's computations, of which the last digits of a result depend."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def use_threads(count: int) -> None:
    """Let torch, and the BLAS of numpy and SciPy, compute with so many threads from here on.

    With another number of threads sums are taken in another order: gradients of convolutions and matrix products
    differ by rounding, and so does what is trained with them.
    """
    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")
