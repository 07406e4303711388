"""Information criteria: their values, the rule of choice, evidence and weights."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.errors import UsageError
from ifujax.lines.selection.criteria import THRESHOLDS, check_criterion, choose, criterion_of, evidence_of, weights_of


def test_values() -> None:
    chi2, n = np.array([100.0, 210.0]), np.array([120.0, 200.0])
    np.testing.assert_allclose(criterion_of("bic", chi2, n, 5), chi2 + 5 * np.log(n))
    # Hurvich & Tsai: with few data each parameter costs more than 2.
    np.testing.assert_allclose(criterion_of("aic", chi2, n, 5), chi2 + 10 + 60 / (n - 6))
    assert criterion_of("aic", np.array(0.0), np.array(1e9), 5) == pytest.approx(10.0)


def test_too_few_data_have_no_criterion() -> None:
    for criterion in ("bic", "aic"):
        values = criterion_of(criterion, np.array([1.0, 1.0, np.nan]), np.array([6.0, 7.0, 50.0]), 5)
        np.testing.assert_array_equal(np.isfinite(values), [False, True, False])


def test_the_simplest_within_the_threshold() -> None:
    #                 clear   by simplicity  just not   middle   not fitted   only the complex one
    values = np.array(
        [
            [100.0, 100.0, 100.0, 112.0, np.nan, np.nan],
            [80.0, 91.0, 89.0, 108.0, np.nan, np.nan],
            [85.0, 95.0, 95.0, 100.0, np.nan, 7.0],
        ]
    )
    np.testing.assert_array_equal(choose(values, np.array([5, 8, 11]), 10.0), [1, 0, 1, 1, -1, 2])
    np.testing.assert_array_equal(choose(values, np.array([5, 8, 11]), 0.0), [1, 1, 1, 2, -1, 2])
    # What is simple is a matter of parameters, not of order; of equally simple ones the lower wins.
    np.testing.assert_array_equal(choose(values, np.array([11, 8, 5]), 10.0), [2, 2, 2, 2, -1, 2])
    np.testing.assert_array_equal(choose(values, np.array([5, 5, 5]), 10.0), [1, 1, 1, 2, -1, 2])


def test_evidence_is_signed() -> None:
    values = np.array([[100.0, 100.0, np.nan, np.nan], [80.0, 91.0, 5.0, np.nan], [85.0, 95.0, np.nan, np.nan]])
    choice = choose(values, np.array([5, 8, 11]), 10.0)
    np.testing.assert_array_equal(choice, [1, 0, 1, -1])
    np.testing.assert_array_equal(evidence_of(values, choice), [5.0, -9.0, np.nan, np.nan])


def test_weights() -> None:
    values = np.array([[100.0, 3.0, np.nan], [102.0, np.nan, np.nan], [1e5, 3.0, np.nan]])
    weights = weights_of(values)
    np.testing.assert_allclose(weights[:, 0], np.array([1.0, np.exp(-1.0), 0.0]) / (1 + np.exp(-1.0)), atol=1e-12)
    np.testing.assert_array_equal(weights[:, 1], [0.5, 0.0, 0.5])
    assert np.isnan(weights[:, 2]).all()


def test_arguments() -> None:
    assert check_criterion("bic", None) == THRESHOLDS["bic"]
    assert check_criterion("aic", 0) == 0.0
    with pytest.raises(UsageError, match="unknown criterion 'bik'.*'bic'"):
        check_criterion("bik", None)
    for wrong in (-1.0, np.nan):
        with pytest.raises(UsageError, match="threshold must be zero or a positive number"):
            check_criterion("bic", wrong)
