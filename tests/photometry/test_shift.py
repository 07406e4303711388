"""The shift at which one image explains another best, against trying every shift."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.photometry.forward.shift import best_shift


def brute(template: np.ndarray, values: np.ndarray, ivar: np.ndarray, reach: int) -> tuple[int, int]:
    best, found = np.inf, (0, 0)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            moved = np.roll(template, (y, x), (0, 1)).ravel()
            root = np.sqrt(ivar.ravel())
            design = np.stack([moved, np.ones_like(moved)], axis=1) * root[:, None]
            solved, *_ = np.linalg.lstsq(design, values.ravel() * root, rcond=None)
            chi2 = np.sum((design @ solved - values.ravel() * root) ** 2)
            if solved[0] > 0 and chi2 < best:
                best, found = chi2, (y, x)
    return found


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-6, 5)])
def test_against_every_shift(rng: np.random.Generator, shift: tuple[int, int]) -> None:
    template = np.zeros((40, 48))
    template[12:28, 12:36] = rng.random((16, 24)) ** 6
    ivar = (rng.random(template.shape) > 0.3) * rng.uniform(0.5, 2.0, template.shape) / 0.3**2
    values = 1.7 * np.roll(template, shift, (0, 1)) + 40.0 + 0.3 * rng.normal(size=template.shape)
    values = np.where(ivar > 0, values, 0.0)
    assert best_shift(template, values, ivar, (0, 0), (8, 8))[0] == shift == brute(template, values, ivar, 8)


def test_only_within_reach(rng: np.random.Generator) -> None:
    template = np.zeros((40, 48))
    template[12:28, 12:36] = rng.random((16, 24)) ** 6
    values = np.roll(template, (9, 0), (0, 1))
    near, far = best_shift(template, values, np.full(values.shape, 1e4), (0, 0), (3, 3))
    assert near[0] <= 3
    assert far == (9, 0)  # told of
    assert best_shift(template, values, np.full(values.shape, 1e4), (7, 0), (3, 3)) == ((9, 0), None)
    assert best_shift(template, values, np.full(values.shape, 1e4), (9, 0), (0, 2)) == ((9, 0), None)


def test_a_negative_image_is_no_match(rng: np.random.Generator) -> None:
    """An anticorrelation explains the data as well, with a negative flux scale."""
    template = np.zeros((32, 32))
    template[4:8, 4:8] = 1.0
    values = -3.0 * np.roll(template, (5, 5), (0, 1)) + 1.0 * np.roll(template, (1, 2), (0, 1))
    assert best_shift(template, values, np.ones_like(values), (0, 0), (6, 6)) == ((1, 2), None)
