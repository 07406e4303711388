"""From which points of the prior other solutions are looked for."""

from __future__ import annotations

import numpy as np

from ifujax.inference.sampling.solutions import seeds


def hills(z):
    """A high hill, and a narrow one a quarter as high (in its log), with ripples that no hill is."""
    high = -0.5 * ((z - [2.0, 0.0]) ** 2).sum(axis=-1) / 0.5**2
    low = -6.0 - 0.5 * ((z - [-2.0, 0.5]) ** 2).sum(axis=-1) / 0.4**2
    return np.logaddexp(high, low) + 0.5 * np.sin(9.0 * z[..., 0]) * np.cos(7.0 * z[..., 1])


def test_every_hill_has_a_start(rng):
    z = rng.uniform(-4, 4, (40, 205, 2))
    chosen = seeds(z, hills(z), 6)
    assert (chosen[:, :2] >= 0).all()
    at = np.take_along_axis(z, chosen.clip(min=0)[:, :, None], axis=1)
    for centre in ([2.0, 0.0], [-2.0, 0.5]):
        distance = np.where(chosen >= 0, np.linalg.norm(at - centre, axis=2), np.inf)
        assert (distance.min(axis=1) < 1.2).mean() > 0.95


def test_the_best_comes_first_and_none_twice(rng):
    z, value = rng.normal(size=(5, 100, 3)), rng.normal(size=(5, 100))
    value[2] = -np.inf
    value[3, 50:] = np.nan
    chosen = seeds(z, value, 8)
    for r in (0, 1, 4):
        assert chosen[r, 0] == value[r].argmax()
        kept = chosen[r][chosen[r] >= 0]
        assert len(np.unique(kept)) == len(kept)
    assert (chosen[2] == -1).all()
    assert (chosen[3] < 50).all()
    assert seeds(z, value, 0).shape == (5, 0)
