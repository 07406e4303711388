"""Sums over residuals, what noise makes of them, and the correlation that is found in them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from ifujax.inference.correlation import coloured, pooled, positive, whitening
from ifujax.inference.goodness import CHANCE, chi2_far_from_1, structure
from ifujax.inference.precision import working_precision
from ifujax.inference.residuals import N_ABSORBED, N_SUMS, SCANNED, ResidualSums, absorption, absorption_of_two, residual_sums

_SUMS = jax.jit(residual_sums)


def half_way(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Noise that was interpolated half way between pixels: 0.5 with the next one."""
    white = rng.standard_normal((count, n + 1))
    return (white[:, 1:] + white[:, :-1]) / np.sqrt(2)


def kernel(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Noise that was smoothed by an uneven kernel: 0.685, 0.272, 0.037."""
    weights = np.array([0.2, 1.0, 0.7, 0.3])
    white = rng.standard_normal((count, n + 3))
    return sum(w * white[:, i : i + n] for i, w in enumerate(weights)) / np.sqrt((weights**2).sum())


def slopes(n: int, degree: int, lines: tuple[float, ...], width: float = 3.0) -> np.ndarray:
    columns = list(np.polynomial.legendre.legvander(np.linspace(-1, 1, n), degree).T)
    for place in lines:
        t = (np.arange(n) - place * n) / width
        g = np.exp(-0.5 * t**2)
        columns += [g, t * g, (t**2 - 1) * g]
    return np.array(columns)


def left(noise: np.ndarray, j: np.ndarray, used: np.ndarray | None = None) -> ResidualSums:
    """Sums over what a linear fit leaves of noise (count, n)."""
    used = np.ones(noise.shape[1], bool) if used is None else used
    j, noise = j * used, noise * used
    covariance = np.linalg.inv(j @ j.T)
    residual = noise - noise @ j.T @ covariance @ j
    with working_precision("float64"):
        found = np.asarray(_SUMS(residual, np.broadcast_to(used, residual.shape)))
    return ResidualSums(found, absorption(j, covariance, used))


def test_sums_are_what_they_say() -> None:
    rng = np.random.default_rng(1)
    used = rng.random(160) > 0.1
    residual = np.where(used, np.clip(rng.standard_normal((3, 160)), -2.5, 2.5), 0.0)
    with working_precision("float64"):
        found = np.asarray(_SUMS(residual, np.broadcast_to(used, residual.shape)))
    sums = ResidualSums(found, np.zeros(N_ABSORBED))
    for k in (0, 1, 5):
        np.testing.assert_allclose(
            sums.products[:, k], (residual[:, : 160 - k] * residual[:, k:]).sum(axis=1), rtol=1e-5, atol=1e-4
        )
        np.testing.assert_array_equal(sums.pairs[:, k], (used[: 160 - k] & used[k:]).sum())
    total = (residual**2).sum(axis=1)
    for kind, of in (("peak", lambda part, width: part.sum() ** 2 / width), ("pile", lambda part, width: (part**2).sum())):
        share, first = sums.stretch(kind)
        for j, width in enumerate(SCANNED):
            for row in range(3):
                at = int(first[row, j])
                assert share[row, j] == pytest.approx(of(residual[row, at : at + width], width) / total[row], rel=1e-3)
                every = [of(residual[row, p : p + width], width) for p in range(0, 160 - width + 1, 4)]
                assert share[row, j] * total[row] >= max(every) * (1 - 1e-3)
    # The power of a width is the sum over all stretches, those over the ends included.
    for j, width in ((2, 8), (1, 4)):
        padded = np.pad(residual, [(0, 0), (width - 1, width - 1)])
        power = sum(padded[:, p : p + width].sum(axis=1) ** 2 for p in range(160 + width - 1))
        np.testing.assert_allclose(sums.power[:, j], power, rtol=1e-4)


@pytest.mark.parametrize(
    ("n", "degree", "lines"), [(60, 1, (0.5,)), (120, 5, (0.3, 0.6)), (280, 3, (0.3, 0.4)), (1200, 3, (0.5,))]
)
def test_noise_is_no_structure(n: int, degree: int, lines: tuple[float, ...]) -> None:
    """At most 2 % of fits of noise alone are called structured, of whatever length; nor are those of a wrong variance."""
    noise = 3.0 * np.random.default_rng(n).standard_normal((4000, n))
    found = structure(left(noise, slopes(n, degree, lines)))
    assert np.isfinite(found.chance).all()
    share = found.found.mean()
    assert share < CHANCE + 3 * np.sqrt(CHANCE / 4000)
    assert share < 0.02
    if n > 200:  # and it is not deaf
        assert share > CHANCE / 5


def test_known_correlation_is_no_structure() -> None:
    sums = left(half_way(np.random.default_rng(2), 2000, 280), slopes(280, 3, (0.3, 0.4)))
    assert structure(sums).found.mean() > 0.9
    assert structure(sums, np.array([1.0, 0.5])).found.mean() < 0.02


@pytest.mark.parametrize("shape", ["bump", "wave", "burst"])
def test_structure_is_found_and_placed(shape: str) -> None:
    rng, n = np.random.default_rng(3), 300
    x = np.arange(n)
    added = {
        "bump": 2.0 * np.exp(-0.5 * ((x - 200.0) / 8.0) ** 2),
        "wave": 0.7 * np.sin(2 * np.pi * x / 40.0),
        "burst": np.where((x >= 90) & (x < 106), 2.2 * (-1.0) ** x, 0.0),
    }[shape]
    found = structure(left(rng.standard_normal((400, n)) + added, slopes(n, 1, (0.5,))))
    assert found.found.mean() > 0.97
    if shape != "wave":
        at = {"bump": (185, 215), "burst": (90, 106)}[shape]
        inside = (found.first < at[1]) & (found.first + found.count > at[0])
        assert inside.mean() > 0.97
        assert np.median(found.share) > 0.05


@pytest.mark.parametrize(
    ("made", "truth"), [(half_way, (0.5, 0.0, 0.0)), (kernel, (0.685, 0.272, 0.037)), (None, (0.0, 0.0, 0.0))]
)
@pytest.mark.parametrize(("n", "degree", "lines"), [(60, 5, (0.5,)), (120, 5, (0.3, 0.6)), (280, 5, (0.5,))])
def test_correlation_is_freed_of_what_fits_absorb(
    made: Callable[..., np.ndarray] | None, truth: tuple[float, ...], n: int, degree: int, lines: tuple[float, ...]
) -> None:
    """Residuals of 60 pixels under a polynomial of degree 5 and a line have a correlation that is 0.2 too low."""
    rng = np.random.default_rng(n)
    noise = rng.standard_normal((1500, n)) if made is None else made(rng, 1500, n)
    used = np.ones(n, bool)
    if n == 120:
        used[50:58] = False
    sums = left(noise, slopes(n, degree, lines), used)
    found = pooled(sums)
    np.testing.assert_allclose(found.values[1:4], truth, atol=0.025 if n < 200 else 0.012)
    raw = sums.products.sum(axis=0) / sums.pairs.sum(axis=0)
    if n == 60:
        assert raw[1] / raw[0] < truth[0] - 0.14
    assert found.significant == (made is not None)


def test_chi2_window_follows_the_degrees_of_freedom() -> None:
    dof = np.array([25600, 50, 25600, 25600, 2, 2])
    chi2 = np.array([1.24, 1.24, 0.8, 1.1, 9.0, 20.0]) * dof  # 18 of 2 degrees of freedom is a chance of 1e-4
    np.testing.assert_array_equal(chi2_far_from_1(chi2, dof), [True, False, True, True, False, True])
    assert not chi2_far_from_1(np.array([3.0, np.nan]), np.array([0, 5])).any()


def test_coloured_noise_and_its_whitening() -> None:
    correlation = np.array([1.0, 0.6, 0.2])
    noise = coloured(np.random.default_rng(5).standard_normal((30000, 83)), correlation)
    assert noise.shape == (30000, 80)
    for k, wanted in enumerate((1.0, 0.6, 0.2, 0.0)):
        assert (noise[:, : 80 - k] * noise[:, k:]).mean() == pytest.approx(wanted, abs=0.005)
    assert (noise[:, 0] * noise[:, -1]).mean() == pytest.approx(0.0, abs=0.02)  # the circle is cut
    used = np.ones(80, bool)
    used[[20, 21, 22, 50]] = False
    rows = whitening(correlation, used[None])[0]
    matrix = np.zeros((80, 80))
    for p in range(80):
        for k in range(min(rows.shape[1], p + 1)):
            matrix[p, p - k] = rows[p, k]
    covariance = sum(c * (np.eye(80, k=k) + (np.eye(80, k=-k) if k else 0.0)) for k, c in enumerate(correlation))
    whitened = (matrix @ covariance @ matrix.T)[np.ix_(used, used)]
    np.testing.assert_allclose(whitened, np.eye(used.sum()), atol=0.02)
    assert not rows[~used].any()


def test_correlation_is_kept_positive() -> None:
    impossible = positive(np.array([1.0, 0.7]))
    assert 0.45 < impossible[1] < 0.5
    np.testing.assert_allclose(positive(np.array([1.0, 0.3, 0.1])), [1.0, 0.3, 0.1])


def test_absorption_of_two_fits_against_matrices() -> None:
    """What two fits leave of noise, as matrices: sums along diagonals, for noise that is correlated at each lag alone."""
    rng = np.random.default_rng(5)
    n = 72
    slopes, spread, more = rng.standard_normal((3, 4, n)) * 0.2
    found = ResidualSums(np.zeros((1, N_SUMS)), absorption_of_two(slopes, spread, more, np.ones(n, bool)))
    left, other = np.eye(n) - slopes.T @ spread, slopes.T @ more

    def lag(k: int) -> np.ndarray:
        return 0.5 * (np.eye(n, k=k) + np.eye(n, k=-k))

    def taken(noise: np.ndarray) -> np.ndarray:
        return noise - left @ noise @ left.T - other @ noise @ other.T

    lags = [lag(k) for k in range(found.absorbed.size)]
    np.testing.assert_allclose(found.absorbed, [np.sum(taken(np.eye(n)) * each) for each in lags])
    hidden = np.array([[np.sum(taken(noise) * each) for each in lags] for noise in lags])
    np.testing.assert_allclose(found.hidden, 0.5 * (hidden + hidden.T), atol=1e-12)
    pairs = np.eye(n)[:-1] + np.eye(n)[1:]  # stretches of two pixels; those over the ends hold one
    edge = taken(np.eye(n))
    inner = np.einsum("ip,pq,iq->", pairs, edge, pairs)
    assert found.taken[0] == pytest.approx(inner + edge[0, 0] + edge[-1, -1])
