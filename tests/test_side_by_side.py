"""Calls in processes side by side: their results in order, their warnings once and in the process that asked."""

from __future__ import annotations

import warnings

import pytest

from pddm_utils.core.errors import ScanWarning
from pddm_utils.core.side_by_side import side_by_side


def doubled(number: int) -> int:
    if number % 2:
        warnings.warn(f"{number} is odd", ScanWarning, stacklevel=1)
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_order_and_warnings_here(jobs: int, capfd) -> None:
    with pytest.warns(ScanWarning) as told:
        assert list(side_by_side(doubled, [(number,) for number in range(5)], jobs)) == [0, 2, 4, 6, 8]
    assert [str(one.message) for one in told] == ["1 is odd", "3 is odd"]
    assert capfd.readouterr().err == "", "nothing by the workers themselves"
