"""Calls in processes side by side, whose warnings are shown by the process that asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from joblib import Parallel, delayed


def side_by_side(call: Callable[..., Any], arguments: Iterable[tuple], jobs: int) -> Iterator[Any]:
    """The result of each call, in order, as it comes; one process shows all warnings, and in one form.

    Args:
        call: a function of a module.
        arguments: of each call.
        jobs: processes side by side; 1 calls in this one.
    """
    calls = (delayed(_recorded)(call, *one) for one in arguments)
    for result, told in Parallel(n_jobs=jobs, return_as="generator")(calls):
        for text, category in told:
            warnings.warn(text, category, stacklevel=2)
        yield result


def _recorded(call: Callable[..., Any], *arguments: Any) -> tuple[Any, list[tuple[str, type[Warning]]]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        result = call(*arguments)
    return result, [(str(one.message), one.category) for one in told]
