"""Medians of rows of which some values do not count."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ifujax.robust import MAD_TO_SIGMA, row_median


def test_row_median_is_that_of_the_used_values(rng: np.random.Generator) -> None:
    values, used = rng.normal(size=(50, 9)), rng.random((50, 9)) < 0.6
    used[0], used[1, 1:] = False, False
    for row, found in enumerate(row_median(values, used)):
        mine = values[row, used[row]]
        assert (np.isnan(found) and not mine.size) or found == np.median(mine)


def test_row_median_of_a_mask_for_all_rows_and_of_no_columns() -> None:
    values = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(row_median(values, np.arange(6) < 3), [1.0, 7.0])
    assert np.isnan(row_median(np.zeros((2, 0)), np.zeros((2, 0), bool))).all()


def test_constant_turns_a_median_deviation_into_a_standard_one() -> None:
    np.testing.assert_allclose(MAD_TO_SIGMA, 1.0 / stats.norm.ppf(0.75), rtol=1e-12)
