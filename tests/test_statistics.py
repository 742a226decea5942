"""Bootstrap intervals, paired differences and Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pddm_utils.evaluation import statistics
from pddm_utils.evaluation.metrics import scan_auroc
from pddm_utils.evaluation.statistics import (
    bootstrap_auroc,
    bootstrap_interval,
    holm,
    paired_difference,
    relative_improvement,
    seed_mean,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@contextmanager
def constants(**values: float) -> Iterator[None]:
    """Other constants of the module, such as `DRAWS`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(statistics, name, value)
        yield


def bca(drawn, estimate: float, left_out_one, level: float = 0.95) -> tuple[float, float]:
    """Ends of the BCa interval (Efron 1987, section 3) of drawn values; the percentiles where it is undefined."""
    drawn, influence = np.asarray(drawn), np.mean(left_out_one) - np.asarray(left_out_one)
    bias = stats.norm.ppf(((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
        ends = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
        shares = stats.norm.cdf(bias + (bias + ends) / (1 - acceleration * (bias + ends)))
    if np.isnan(shares).any():
        shares = [(1 - level) / 2, (1 + level) / 2]
    return tuple(np.quantile(drawn, shares))


def test_seed_mean_averages_within_a_scan_and_leaves_nan_out():
    keys, means = seed_mean([1, 2, 3, np.nan, np.nan, 5], ["b", "a", "b", "a", "c", "b"])
    assert keys.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(means, [2, 3, np.nan])
    with pytest.raises(ValueError, match="one length"):
        seed_mean([1, 2], ["a"])


def test_interval_of_a_constant_is_a_point():
    interval = bootstrap_interval(np.full(8, 0.25))
    assert interval[:3] == (0.25, 0.25, 0.25) and (interval.n, interval.left_out) == (8, 0)


def test_interval_is_close_to_theory_for_a_large_sample(rng):
    values = rng.normal(size=400)
    interval = bootstrap_interval(values)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_interval_matches_scipy_bootstrap(rng):
    values = rng.exponential(size=25)
    ours = bootstrap_interval(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.06)
    percentile = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert ours.high > percentile.high + 0.02  # skewed to the right, and so is its mean


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    with constants(DRAWS=500):
        intervals = [bootstrap_interval(rng.normal(3, 1, size=30)) for _ in range(300)]
    coverage = np.mean([one.low <= 3 <= one.high for one in intervals])
    assert 0.89 <= coverage <= 0.98


def test_bca_covers_a_skewed_mean_more_often_than_percentiles():
    rng = np.random.default_rng(2)
    ours = theirs = 0
    for trial in range(200):
        values = rng.lognormal(0, 1, size=20)
        with constants(DRAWS=800, SEED=trial):
            interval = bootstrap_interval(values)
        drawn = values[np.random.default_rng(trial).integers(0, 20, size=(800, 20))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        ours += interval.low <= math.exp(0.5) <= interval.high
        theirs += low <= math.exp(0.5) <= high
    assert ours > theirs


@pytest.mark.parametrize(
    "values", [np.full(9, 0.2), np.r_[np.zeros(8), 1], np.r_[np.full(5, 1e-17), 0.0], np.arange(5.0)]
)
def test_no_interval_is_lost_where_values_are_alike(values):
    interval = bootstrap_interval(values)
    assert interval.low <= interval.mean + 1e-12 and interval.mean <= interval.high + 1e-12
    same = paired_difference(values + 0.5, values)
    assert (same.mean, same.low, same.high) == pytest.approx((0.5, 0.5, 0.5))


def test_nan_is_left_out_and_counted():
    values = np.array([1, 2, 3, 4, 5, 6.0])
    with_nan = np.concatenate([[np.nan], values, [np.nan]])
    interval = bootstrap_interval(with_nan)
    assert interval[:4] == bootstrap_interval(values)[:4] and interval.left_out == 2


def test_no_interval_below_five_subjects():
    interval = bootstrap_interval([1, 2, 3, 4])
    assert interval.mean == 2.5 and math.isnan(interval.low) and math.isnan(interval.high) and interval.n == 4
    assert not math.isnan(bootstrap_interval([1, 2, 3, 4, 5]).low)
    copies = bootstrap_interval(np.arange(8.0), clusters=list("aabbccdd"))
    assert copies.n == 4 and math.isnan(copies.low)
    nothing = bootstrap_interval([np.nan, np.nan])
    assert math.isnan(nothing.mean) and (nothing.n, nothing.left_out) == (0, 2)
    assert bootstrap_interval([]).n == 0


def test_copies_of_one_scan_do_not_narrow_the_interval(rng):
    values = rng.normal(size=12)
    alone = bootstrap_interval(values)
    doubled = bootstrap_interval(np.repeat(values, 2), clusters=np.repeat(np.arange(12), 2))
    assert doubled[:4] == pytest.approx(alone[:4])
    naive = bootstrap_interval(np.repeat(values, 2))
    assert naive.high - naive.low < 0.8 * (doubled.high - doubled.low)


def test_clusters_need_not_be_sorted_or_of_one_size(rng):
    values, clusters = np.array([0, 10, 20, 30, 40, 50, 60.0]), np.array(list("abcdeaf"))
    order = rng.permutation(7)
    interval = bootstrap_interval(values, clusters)
    assert interval.mean == 30 and interval.n == 6
    assert bootstrap_interval(values[order], clusters[order]) == pytest.approx(interval)


@settings(max_examples=20)
@given(
    values=st.lists(st.floats(-1, 1), min_size=5, max_size=12),
    more=st.lists(st.integers(0, 4), min_size=7, max_size=7),
)
@example(values=[0.0, -0.812, 1.0, 1.0, 1.0, 0.938], more=[0] * 7)  # draws of each once: equal but for the last digit
def test_interval_equals_a_loop_over_drawn_subjects(values, more):
    clusters = np.concatenate([np.arange(5), more])
    values, clusters = np.array(values), clusters[: len(values)]
    values = values.round(3)  # so that the last digits of two sums do not decide about ties
    means = []
    for drawn in np.random.default_rng(3).integers(0, 5, size=(200, 5)):
        means.append(np.concatenate([values[clusters == one] for one in drawn]).mean())
    without = [values[clusters != one].mean() for one in range(5)]
    with constants(DRAWS=200, SEED=3):
        interval = bootstrap_interval(values, clusters)
    spread = np.ptp(means) + np.ptp(without)
    expected = bca(np.round(means, 12), round(values.mean(), 12), without) if spread > 1e-9 else (values.mean(),) * 2
    assert interval[1:3] == pytest.approx(expected, abs=max(0.05 * spread, 1e-9))


def test_draws_without_a_ratio_are_left_out():
    a, b = np.linspace(1, 2, 6), np.array([1.0, 0, 0, 0, 0, 0])  # a third of the draws miss the only subject with b > 0
    drawn = np.random.default_rng(0).integers(0, 6, size=(900, 6))
    kept = drawn[(drawn == 0).any(axis=1)]
    ratios = a[kept].sum(axis=1) / b[kept].sum(axis=1) - 1
    with constants(DRAWS=900):
        interval = relative_improvement(a, b)
    assert 0 < len(kept) < len(drawn)  # without that subject there is no ratio: BCa has no answer, percentiles have
    assert interval[1:3] == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])))


def test_same_seed_same_interval(rng):
    values = rng.random(20)
    interval = bootstrap_interval(values)
    assert bootstrap_interval(values) == interval
    with constants(SEED=4):
        assert bootstrap_interval(values) != interval
    with constants(DRAWS=1_500):
        assert bootstrap_interval(values).n == 20  # draws need not fill whole chunks
    with constants(LEVEL=0.5):
        narrow = bootstrap_interval(values)
    with constants(LEVEL=0.99):
        assert narrow.high < bootstrap_interval(values).high


def test_paired_p_value_equals_full_enumeration():
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.15, 0.4])
    result = paired_difference(differences + 1, np.ones(6))
    observed = abs(differences.sum())
    patterns = [abs(np.dot(signs, differences)) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=6)]
    assert result.p_value == pytest.approx(np.mean(patterns))
    assert result.mean == pytest.approx(differences.mean()) and result.low < result.mean < result.high


@settings(max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=5, max_size=9))
def test_rounding_does_not_break_ties_between_sign_patterns(tenths):
    flipped = [abs(np.dot(signs, tenths)) for signs in itertools.product((1, -1), repeat=len(tenths))]
    p_value = paired_difference(np.array(tenths) * 0.1, np.zeros(len(tenths))).p_value
    assert p_value == np.mean(np.array(flipped) >= abs(sum(tenths)))


def test_paired_p_value_is_exact_up_to_32_subjects(rng):
    for subjects in (5, 13, 16):
        a, b = rng.normal(0.5, 1, size=(2, subjects)).round(1)  # with ties
        theirs = stats.permutation_test(
            (a - b,),
            lambda x, axis: np.abs(x.sum(axis=axis)).round(9),
            permutation_type="samples",
            n_resamples=np.inf,
            alternative="greater",
        )
        assert paired_difference(a, b).p_value == pytest.approx(theirs.pvalue, rel=1e-12)
    gain = paired_difference(np.arange(1, 33.0), np.zeros(32))
    assert gain.p_value == 2 / 2**32
    a, b = rng.normal(0.3, 1, size=(2, 24))
    p_values = set()
    for seed in range(4):
        with constants(SEED=seed):
            p_values.add(paired_difference(a, b).p_value)
    assert len(p_values) == 1


def test_paired_p_value_matches_scipy_for_many_subjects(rng):
    a, b = rng.normal(0.15, 1, size=60), rng.normal(size=60)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10_000, rng=1
    )
    assert paired_difference(a, b).p_value == pytest.approx(theirs.pvalue, abs=0.025)


def test_pairing_finds_a_small_constant_gain_under_large_spread(rng):
    b = rng.random(20) * 10
    result = paired_difference(b + 0.1 + rng.normal(0, 0.01, size=20), b)
    assert result.low > 0 and result.p_value < 0.001
    reverse = paired_difference(b, b + 0.1)
    assert reverse.high < 0


def test_no_difference_has_p_one_and_swapping_methods_keeps_p(rng):
    a, b = rng.random(30), rng.random(30)
    same = paired_difference(a, a)
    assert same[:4] == (0, 0, 0, 1)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.p_value == back.p_value and there.mean == pytest.approx(-back.mean)


def test_paired_p_value_is_about_uniform_without_an_effect():
    rng = np.random.default_rng(5)
    with constants(DRAWS=400):  # of the intervals; the p-values are exact
        p_values = [paired_difference(*rng.normal(size=(2, 12))).p_value for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.1


def test_paired_difference_needs_both_sides_and_five_subjects():
    result = paired_difference([1, 2, np.nan, 4, 5, 6, 7], [0, np.nan, 1, 1, 1, 1, 1])
    assert (result.n, result.left_out) == (5, 2) and result.mean == pytest.approx(np.mean([1, 3, 4, 5, 6]))
    few = paired_difference([1, 2, 3, 4], [0, 0, 0, 0])
    assert few.mean == 2.5 and all(math.isnan(one) for one in (few.low, few.high, few.p_value))
    with pytest.raises(ValueError, match="one length"):
        paired_difference([1, 2], [1, 2, 3])


def test_rows_of_one_subject_are_flipped_together(rng):
    differences = rng.normal(0.5, 1, size=8)
    alone = paired_difference(differences, np.zeros(8))
    copies = paired_difference(np.repeat(differences, 3), np.zeros(24), subjects=np.repeat(np.arange(8), 3))
    assert copies[:5] == pytest.approx(alone[:5])
    assert paired_difference(np.repeat(differences, 3), np.zeros(24)).p_value < alone.p_value


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.02, np.nan, 0.04]), [0.04, np.nan, 0.04])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= np.array(p_values)).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1.0, min(p_values) * len(p_values)))


def test_auroc_interval_brackets_the_auroc(rng):
    scores = np.concatenate([rng.normal(1, 1, 40), rng.normal(0, 1, 40)])
    labels = np.arange(80) < 40
    interval = bootstrap_auroc(scores, labels)
    assert interval.mean == scan_auroc(scores, labels)
    assert interval.low < interval.mean < interval.high and interval.n == 80
    hanley_mcneil = 0.055  # approximate standard error of an AUROC of 0.75 with 40 + 40 scans
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * hanley_mcneil, rel=0.35)


def test_auroc_draws_equal_recomputed_ones():
    scores = np.array([0.3, 0.1, 0.5, 0.2, 0.4, 0.3, 0.6, 0.3, 0.7, 0.8, 0.2, 0.1])
    labels, clusters = np.tile([True, False], 6), np.repeat(np.arange(6), 2)
    rng = np.random.default_rng(7)
    recomputed = []
    for drawn in rng.integers(0, 6, size=(400, 6)):
        rows = np.concatenate([np.flatnonzero(clusters == one) for one in drawn])
        recomputed.append(scan_auroc(scores[rows], labels[rows]))
    with constants(DRAWS=400, SEED=7):
        interval = bootstrap_auroc(scores, labels, clusters)
    without = [scan_auroc(scores[clusters != one], labels[clusters != one]) for one in range(6)]
    expected = bca(recomputed, scan_auroc(scores, labels), without)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.01)
    assert interval.n == 6


def test_auroc_with_paired_copies_is_drawn_by_subject(rng):
    base = rng.normal(0, 5, size=30)
    scores = np.concatenate([base + 2, base])  # the same scan with a lesion scores a little higher
    labels, clusters = np.arange(60) < 30, np.tile(np.arange(30), 2)
    by_subject, by_scan = bootstrap_auroc(scores, labels, clusters), bootstrap_auroc(scores, labels)
    assert by_subject.mean == by_scan.mean
    assert by_subject.high - by_subject.low < by_scan.high - by_scan.low


def test_auroc_needs_five_subjects_in_each_class(rng):
    few = bootstrap_auroc(rng.random(20), np.arange(20) < 4)
    assert not math.isnan(few.mean) and math.isnan(few.low)
    one_class = bootstrap_auroc(rng.random(20), np.ones(20, dtype=bool))
    assert math.isnan(one_class.mean) and math.isnan(one_class.low)
    missing = bootstrap_auroc([np.nan, *rng.random(20)], [True, *(np.arange(20) < 10)])
    assert missing.left_out == 1 and missing.n == 20 and not math.isnan(missing.low)
