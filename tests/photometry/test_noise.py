"""The autocovariance of noise, found from residuals that a fit has taken a part of."""

from __future__ import annotations

import numpy as np

from ifujax.photometry.forward.noise import residual_correlation, unabsorbed

REACH = 2


def test_autocovariance_is_that_of_the_noise_not_of_the_residuals(rng):
    """Drizzled noise in a small stamp, with five smooth shapes and a constant fitted to it."""
    y, x = np.indices((17, 17)) - 8.0
    used = np.hypot(x, y) < 8.5
    bump = np.exp(-(x**2 + y**2) / 8.0)
    slopes = np.stack([np.ones_like(x), bump, x * bump, y * bump, (x**2 + y**2) * bump, x * y * bump]) * used
    basis = np.linalg.qr(slopes[:, used].T)[0]
    found, mended = [], []
    for _ in range(2000):
        white = rng.normal(size=(18, 18))
        noise = (white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1]) / 2
        residual = np.zeros_like(noise)
        residual[used] = noise[used] - basis @ (basis.T @ noise[used])
        correlation = residual_correlation(residual, used, REACH)
        found.append(correlation)
        mended.append(unabsorbed(correlation, slopes, used))
    truth = np.zeros((5, 5))
    truth[1:4, 1:4] = [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]
    bias = np.mean(mended, axis=0) - truth
    error = np.std(mended, axis=0) / np.sqrt(len(mended))
    assert np.abs(bias / error).max() < 4.0
    assert np.sum(found, axis=(1, 2)).mean() < 0.75 * truth.sum()  # what it is for
