"""Intervals, paired comparisons and corrections, always over subjects (never over voxels, slices or seeds).

Order of work: average seeds within a subject (`seed_mean`), then resample subjects. Copies of one scan with
and without a lesion share a subject and are drawn together as one cluster.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pddm_utils.evaluation.metrics import scan_auroc

DRAWS = 10_000
LEVEL = 0.95
SEED = 0  # of the draws
SIGNIFICANT = 0.05
METHOD = "BCa"  # of scipy.stats.bootstrap: bias-corrected and accelerated (Efron 1987)
MIN_SUBJECTS = 5
EXACT_SUBJECTS = 32  # all 2^32 sign patterns can be counted: 2^16 of each half of the subjects
SIGN_PATTERNS = 2**16  # of a sign-flip test that are drawn where there are too many subjects to try all of them
_TIE_DIGITS = 12  # so that the last digits of sums do not break ties
_BATCH = 1000  # draws at a time: memory stays at 1000 x clusters


class Interval(NamedTuple):
    """Estimate with a bootstrap interval; `low` and `high` are NaN below `MIN_SUBJECTS` subjects.

    `n` counts subjects (clusters) used, `left_out` values that were NaN.
    """

    mean: float
    low: float
    high: float
    n: int
    left_out: int


class PairedDifference(NamedTuple):
    """Mean of `a - b` with a bootstrap interval and a two-sided p-value.

    `low`, `high` and `p_value` are NaN below `MIN_SUBJECTS` subjects. `n` counts subjects (clusters) used,
    `left_out` pairs with a NaN on either side.
    """

    mean: float
    low: float
    high: float
    p_value: float
    n: int
    left_out: int


def seed_mean(values: ArrayLike, keys: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Average the seeds of each scan, leaving NaN out.

    Args:
        values: `(rows,)` a metric, one row per scan and seed.
        keys: `(rows,)` what identifies the scan.

    Returns:
        `(scans,)` sorted keys and `(scans,)` means; NaN where every seed is NaN.

    Example:
        >>> seed_mean([0.2, 0.4, 1.0], ["a", "a", "b"])[1].round(3).tolist()
        [0.3, 1.0]
    """
    values, keys = _columns(values, keys)
    unique, index = np.unique(keys, return_inverse=True)
    valid = ~np.isnan(values)
    sums = np.bincount(index[valid], weights=values[valid], minlength=unique.size)
    counts = np.bincount(index[valid], minlength=unique.size)
    means = np.full(unique.size, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return unique, means


def bootstrap_interval(
    values_by_subject: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Interval:
    """Mean with a BCa bootstrap interval over subjects (`DRAWS` draws, coverage `LEVEL`).

    Args:
        values_by_subject: `(scans,)` a metric, seeds already averaged. NaN is left out and counted.
        clusters: `(scans,)` subject of each value; values of one subject are drawn together. None: each value
            is a subject of its own.

    Returns:
        Mean over values, interval, number of subjects and of values left out.

    Raises:
        ValueError: if the lengths differ.
    """
    values, clusters = _columns(values_by_subject, clusters)
    valid = ~np.isnan(values)
    left_out = int(np.count_nonzero(~valid))
    if not valid.any():
        return Interval(np.nan, np.nan, np.nan, 0, left_out)
    sums, sizes = _cluster_sums(values[valid], clusters[valid])
    return _ratio_interval(sums, sizes, left_out)


def bootstrap_auroc(
    scores: ArrayLike,
    labels: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Interval:
    """Scan-level AUROC with a BCa bootstrap interval over subjects.

    Draws that hold one class only have no AUROC and are left out.

    Args:
        scores: `(scans,)` scan scores, NaN left out and counted.
        labels: `(scans,)` bool, True for a scan with a lesion.
        clusters: `(scans,)` subject of each scan; None: each scan is a subject of its own.

    Returns:
        AUROC (NaN with one class) and its interval; no interval when a class has fewer than 5 subjects.

    Raises:
        ValueError: if the lengths differ.
    """
    values, clusters = _columns(scores, clusters)
    values, labels = _columns(values, labels)
    valid = ~np.isnan(values)
    left_out = int(np.count_nonzero(~valid))
    values, lesion = values[valid], labels[valid].astype(bool)
    subjects, index = np.unique(clusters[valid], return_inverse=True)
    auroc, with_lesion, without = scan_auroc(values, lesion), index[lesion], index[~lesion]
    if min(np.unique(with_lesion).size, np.unique(without).size) < MIN_SUBJECTS:
        return Interval(auroc, np.nan, np.nan, subjects.size, left_out)
    lesioned, healthy = values[lesion, None], values[None, ~lesion]
    wins = (lesioned > healthy) + 0.5 * (lesioned == healthy)

    def aurocs(counts: np.ndarray) -> np.ndarray:
        weights, others = counts[:, with_lesion], counts[:, without]
        return _ratio(((weights @ wins) * others).sum(axis=1), weights.sum(axis=1) * others.sum(axis=1))

    low, high = _bootstrap(aurocs, subjects.size)
    return Interval(auroc, float(low), float(high), subjects.size, left_out)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    subjects: ArrayLike | None = None,
) -> PairedDifference:
    """Mean difference `a - b` of two methods on the same scans.

    The interval is the bootstrap of `bootstrap_interval` on the differences. The two-sided p-value is that of
    a sign-flip permutation test: under the null hypothesis the sign of each subject's summed difference is a
    coin toss. All sign patterns are tried for up to `EXACT_SUBJECTS` subjects, else `SIGN_PATTERNS` random ones
    (plus the observed one, so p is never 0).

    Args:
        a: `(scans,)` metric of the first method, seeds already averaged.
        b: `(scans,)` metric of the second; row i is the same scan as row i of `a`.
        subjects: `(scans,)` subject of each row; rows of one subject are resampled and flipped together.

    Returns:
        Mean difference, interval, p-value, number of subjects and of pairs left out (NaN on either side).

    Raises:
        ValueError: if the lengths differ.
    """
    a, subjects = _columns(a, subjects)
    a, b = _columns(a, b)
    differences = a - b.astype(float)
    interval = bootstrap_interval(differences, subjects)
    if interval.n < MIN_SUBJECTS:
        p_value = float("nan")
    else:
        valid = ~np.isnan(differences)
        sums, _ = _cluster_sums(differences[valid], subjects[valid])
        p_value = _sign_flip_p_value(sums)
    return PairedDifference(interval.mean, interval.low, interval.high, p_value, interval.n, interval.left_out)


def relative_improvement(
    a: ArrayLike,
    b: ArrayLike,
    subjects: ArrayLike | None = None,
) -> Interval:
    """`mean(a) / mean(b) - 1` of two methods on the same scans, with a BCa bootstrap interval over subjects.

    Args:
        a: `(scans,)` metric of the first method, seeds already averaged.
        b: `(scans,)` metric of the second, at least 0; row i is the same scan as row i of `a`.
        subjects: `(scans,)` subject of each row; rows of one subject are drawn together.

    Returns:
        The improvement (0.25 is 25 %; NaN where the mean of `b` is 0) and its interval; `left_out` counts pairs with a
        NaN on either side.

    Raises:
        ValueError: if the lengths differ.
    """
    a, subjects = _columns(a, subjects)
    a, b = _columns(a, b)
    b = b.astype(float)
    valid = ~np.isnan(a - b)
    left_out = int(np.count_nonzero(~valid))
    if not b[valid].any():
        return Interval(np.nan, np.nan, np.nan, np.unique(subjects[valid]).size, left_out)
    (top, _), (bottom, _) = (_cluster_sums(side[valid], subjects[valid]) for side in (a, b))
    ratio = _ratio_interval(top, bottom, left_out)
    return ratio._replace(mean=ratio.mean - 1, low=ratio.low - 1, high=ratio.high - 1)


def bootstrap_band(curves: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean curve with a pointwise BCa bootstrap interval over subjects.

    Args:
        curves: `(subjects, points)`, without NaN.

    Returns:
        Mean, lower and upper end, `(points,)` each; the ends are NaN below `MIN_SUBJECTS` subjects.
    """
    curves = np.asarray(curves, dtype=float)
    mean = curves.mean(axis=0)
    if len(curves) < MIN_SUBJECTS:
        return mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    return mean, *_bootstrap(lambda counts: (counts @ curves).T / counts.sum(axis=1), len(curves))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction over the comparisons of one table.

    Args:
        p_values: `(comparisons,)` in [0, 1]; NaN (no test) stays NaN and is not counted as a comparison.

    Returns:
        `(comparisons,)` adjusted p-values in the given order; reject where they are at most alpha.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    valid = np.flatnonzero(~np.isnan(p_values))
    order = valid[np.argsort(p_values[valid], kind="stable")]
    stepped = p_values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def clear_sign(mean: float, low: float, high: float, p_value: float) -> int:
    """1 or -1 where a difference is clearly above or below zero, 0 where it is not shown.

    Clear is what has an interval without zero and a p-value below 0.05.

    Args:
        mean: of the difference.
        low, high: its interval; NaN with too few subjects.
        p_value: corrected, where there are several comparisons.

    Example:
        >>> clear_sign(-0.2, -0.3, -0.1, 0.01), clear_sign(-0.2, -0.3, 0.1, 0.01)
        (-1, 0)
    """
    clear = (low > 0 or high < 0) and p_value < SIGNIFICANT
    return (1 if mean > 0 else -1) if clear else 0


def _sign_flip_p_value(sums: np.ndarray) -> float:
    shares = sums / max(np.abs(sums).sum(), np.finfo(float).tiny)
    if shares.size <= EXACT_SUBJECTS:
        return _exact_sign_flip_p_value(shares)

    rng = np.random.default_rng(SEED)

    def flipped(size: tuple[int, int]) -> np.ndarray:
        return shares * (2 * rng.integers(2, size=size, dtype=np.int8) - 1)

    def size_of_sum(sample: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(sample.sum(axis=axis)).round(_TIE_DIGITS)

    # Not permutation_test, which draws the same patterns as permutations of pairs: many times slower.
    test = stats.monte_carlo_test(
        shares, flipped, size_of_sum, n_resamples=SIGN_PATTERNS, batch=_BATCH, alternative="greater"
    )
    return float(test.pvalue)


def _exact_sign_flip_p_value(shares: np.ndarray) -> float:
    """Share of all sign patterns whose sum is at least as far from 0 as the observed one, ties included.

    The sums of one half of the subjects are sorted, so that for each pattern of the other half a search counts.
    """
    first, second = (_signed_sums(half) for half in np.array_split(shares, 2))
    second.sort()
    least = abs(shares.sum()) - 10.0**-_TIE_DIGITS
    if least <= 0:
        return 1.0
    above = second.size - np.searchsorted(second, least - first, side="left")
    below = np.searchsorted(second, -least - first, side="right")
    return float((above.sum() + below.sum()) / 2.0**shares.size)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """The sums under all sign patterns, `(2**n,)`."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the BCa interval of a statistic of n clusters; draws for which it is NaN are left out.

    Where BCa has no answer (all draws alike, or none on one side of the estimate) the ends are those percentiles of
    the draws that have the level between them.

    Args:
        statistic: from how often each cluster is drawn, `(draws, n)` floats, to `(draws,)` or `(points, draws)`. It
            must not depend on the number of clusters drawn: BCa leaves out one at a time.
    """

    def of_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        own_bins = drawn.reshape(-1, drawn.shape[axis]) + n * np.arange(drawn.size // drawn.shape[axis])[:, None]
        counts = np.bincount(own_bins.ravel(), minlength=n * len(own_bins)).reshape(-1, n).astype(float)
        values = statistic(counts).round(_TIE_DIGITS)  # a draw that ties with the estimate must do so on any processor
        return values[..., 0] if drawn.ndim == 1 else values

    resample = partial(
        stats.bootstrap, (np.arange(n),), of_drawn, batch=_BATCH, confidence_level=LEVEL, method=METHOD, rng=SEED
    )
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = resample(n_resamples=DRAWS)
        lost = np.isnan(result.bootstrap_distribution)
        if lost.any():
            result.bootstrap_distribution = result.bootstrap_distribution[~lost]
            result = resample(n_resamples=0, bootstrap_result=result)
    outside = (1 - LEVEL) / 2
    percentiles = np.quantile(result.bootstrap_distribution, (outside, 1 - outside), axis=-1)
    low, high = (
        np.where(np.isnan(end), percentile, end)
        for end, percentile in zip(result.confidence_interval, percentiles, strict=True)
    )
    return low, high


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """`top / bottom`, NaN where the bottom is 0."""
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _cluster_sums(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values of each cluster."""
    _, index = np.unique(clusters, return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index).astype(float)


def _ratio_interval(top: np.ndarray, bottom: np.ndarray, left_out: int) -> Interval:
    """`sum(top) / sum(bottom)` over subjects, both `(subjects,)`; draws whose bottom is 0 are left out."""
    ratio, n = float(top.sum() / bottom.sum()), top.size
    if n < MIN_SUBJECTS:
        return Interval(ratio, np.nan, np.nan, n, left_out)
    low, high = _bootstrap(lambda counts: _ratio(counts @ top, counts @ bottom), n)
    return Interval(ratio, float(low), float(high), n, left_out)


def _columns(values: ArrayLike, other: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Two 1-D columns of one length; `other` defaults to row numbers."""
    values = np.asarray(values, dtype=float)
    other = np.arange(values.size) if other is None else np.asarray(other)
    if values.ndim != 1 or values.shape != other.shape:
        raise ValueError(f"expected two columns of one length, got shapes {values.shape} and {other.shape}")
    return values, other
