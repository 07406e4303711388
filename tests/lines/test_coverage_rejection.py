"""Errors of fits on a frozen continuum: how often the 68 % interval holds the truth, its polynomial's own error included."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning
from ifujax.inference.status import AT_BOUND
from ifujax.lines.config import ContinuumOptions, EmissionModel, LineFitConfig
from ifujax.lines.continuum import extra_variance, fit_rejection, response_of
from ifujax.models.continuum import legendre_basis
from tests.lines.test_coverage import ONE_SIGMA

C = 299792.458
LINES = {"n2a": 6548.05, "ha": 6562.80, "n2b": 6583.45}
SHARED = ("velocity", "velocity_dispersion")
PER_LINE = ("flux", "amplitude", "equivalent_width", "flux_direct", "equivalent_width_direct")
TRUTH_OF = {"flux_direct": "flux", "equivalent_width_direct": "equivalent_width"}


@dataclass
class Made:
    """Spectra (wave, 1, n) with unit noise, their fluxes and so on by name, and the axis."""

    cube: Cube
    truth: dict[str, np.ndarray]


def made(
    n: int, degree: int, seed: int, *, low: float = 6460.0, high: float = 6670.0, step: float = 1.15, noise: float = 1.0
) -> Made:
    """Gaussians by the normal distribution's integral over each pixel, on polynomials of any shape well above zero."""
    rng = np.random.default_rng(seed)
    wavelength = np.arange(low, high, step)
    edges = np.append(wavelength - 0.5 * step, wavelength[-1] + 0.5 * step)
    x = np.linspace(-1.0, 1.0, len(wavelength))
    shape = rng.uniform(-3.0, 3.0, (n, degree + 1)) @ np.polynomial.chebyshev.chebvander(x, degree).T
    continuum = shape + (rng.uniform(5.0, 20.0, n) - shape.min(axis=1))[:, None]
    truth = {"velocity": rng.uniform(-250.0, 250.0, n), "velocity_dispersion": rng.uniform(60.0, 180.0, n)}
    peak = np.exp(rng.uniform(np.log(5.0), np.log(50.0), n)) * noise
    ratio = rng.uniform(0.3, 1.2, n)
    data = continuum.copy()
    for name, rest in LINES.items():
        sigma = truth["velocity_dispersion"] * rest / C
        flux = np.sqrt(2.0 * np.pi) * peak * sigma * {"ha": 1.0, "n2b": ratio, "n2a": ratio / 3.0}[name]
        # Relativistic, as everywhere: the wavelength that has this velocity.
        beta = truth["velocity"] / C
        centre = rest * np.sqrt((1.0 + beta) / (1.0 - beta))
        sigma = sigma * centre / rest
        below = ndtr((edges[None] - centre[:, None]) / sigma[:, None])
        profile = np.diff(below, axis=1)
        data += flux[:, None] * profile / step
        truth[f"{name}.flux"] = flux
        truth[f"{name}.amplitude"] = flux / (np.sqrt(2.0 * np.pi) * truth["velocity_dispersion"] * rest / C)
        truth[f"{name}.equivalent_width"] = -flux * (profile / continuum).sum(axis=1)
    data += noise * rng.standard_normal(data.shape)
    plane = np.ascontiguousarray(data.T[:, None])
    cube = Cube(plane, wavelength, uncertainty=np.full_like(plane, noise**2), uncertainty_kind="variance")
    return Made(cube, truth)


def config(degree: int, *, mode: str = "rejection", lines: tuple[str, ...] = tuple(LINES), **options) -> LineFitConfig:
    gas = ifujax.Kinematics(
        velocity=ifujax.Bounded(-600.0, 600.0, start=0.0), velocity_dispersion=ifujax.Bounded(20.0, 500.0, start=110.0)
    )
    model = EmissionModel([ifujax.Line(name, LINES[name], gas) for name in lines], continuum_degree=degree)
    return LineFitConfig(model, continuum=ContinuumOptions(mode=mode, **options))  # type: ignore[arg-type]


def pulls_of(made: Made, wanted: LineFitConfig, **fit_options) -> dict[str, np.ndarray]:
    """(estimate - truth) / error of everything that is reported, in fits without a parameter at a bound."""
    fit = ifujax.fit_cube(made.cube, wanted, **fit_options)
    sound = ((fit.status == 0) & ((fit.warn & AT_BOUND.value) == 0)).ravel()
    pulls = {}
    for line in fit.lines:
        for name in PER_LINE + (SHARED if line == "ha" else ()):
            truth = made.truth[name if name in SHARED else f"{line}.{TRUTH_OF.get(name, name)}"]
            pulls[f"{line}.{name}"] = ((fit[line, name] - truth) / fit.error[line, name]).ravel()[sound]
    return pulls


def coverage_of(pulls: dict[str, np.ndarray]) -> dict[str, float]:
    coverage = {}
    for name, pull in pulls.items():
        pull = pull[np.isfinite(pull)]
        coverage[name] = float(np.mean(np.abs(pull) <= 1.0))
        robust = 0.5 * np.diff(np.percentile(pull, [15.87, 84.13]))[0]
        print(f"    {name:<28}{100 * coverage[name]:6.2f} %   pull: median {np.median(pull):+.3f}, half width {robust:.3f}")
    return coverage


def limits(n: int, low: float = ONE_SIGMA, high: float = ONE_SIGMA) -> tuple[float, float]:
    """Between which the coverage of `n` fits lies, but for one in a thousand, if intervals hold between `low` and `high`."""
    return float(binom.ppf(0.0005, n, low) / n), float(binom.ppf(0.9995, n, high) / n)


def test_coverage_quick() -> None:
    """Without the polynomial's own error 56 % of the fluxes and 46 % of the equivalent widths of H-alpha hold the truth."""
    coverage = coverage_of(pulls_of(made(400, 3, seed=3), config(3)))
    low, high = limits(400)
    for name, share in coverage.items():
        assert low <= share <= high, name


@pytest.mark.slow
def test_coverage() -> None:
    """2,000 fits of each degree: a coverage is known to 1 % for each and to 0.5 % for all together.

    Without the polynomial's own error it is 0.39 to 0.66 for fluxes and equivalent widths of H-alpha.
    """
    pulls: dict[str, list[np.ndarray]] = {}
    for degree in range(1, 6):
        print(f"\ncontinuum of degree {degree}:")
        mine = pulls_of(made(2000, degree, seed=100 + degree), config(degree))
        for name, share in coverage_of(mine).items():
            low, high = limits(len(mine[name]), 0.66, 0.70)
            assert low <= share <= high, (degree, name)
            pulls.setdefault(name, []).append(mine[name])
    print("\nall degrees:")
    for name, share in coverage_of({name: np.concatenate(parts) for name, parts in pulls.items()}).items():
        assert 0.65 <= share <= 0.71, name


def with_masked(spectra: Made, share: float, seed: int) -> Made:
    cube = spectra.cube
    flags = (np.random.default_rng(seed).random(cube.shape) < share).astype(np.int8)
    return Made(replace(cube, flags=flags), spectra.truth)


def in_other_units(spectra: Made, factor: float) -> Made:
    cube = spectra.cube
    scaled = ("flux", "amplitude")
    truth = {name: value * factor if name.endswith(scaled) else value for name, value in spectra.truth.items()}
    return Made(replace(cube, values=cube.values * factor, uncertainty=cube.uncertainty * factor**2), truth)


def without_variance(spectra: Made) -> Made:
    return Made(replace(spectra.cube, uncertainty=None, uncertainty_kind=None), spectra.truth)


def unequal_thresholds() -> tuple[Made, LineFitConfig]:
    return made(1000, 3, 31), config(3, lower_threshold=3.0, upper_threshold=5.0)


ODD: dict[str, Callable[[], tuple[Made, LineFitConfig]]] = {
    "degree 0": lambda: (made(1000, 0, 21), config(0)),
    "many pixels masked": lambda: (with_masked(made(1000, 3, 22), 0.45, 1), config(3)),
    "a short window": lambda: (made(1000, 1, 23, low=6520.0, high=6612.0), config(1)),
    "no clipping": lambda: (made(1000, 3, 24), config(3, n_iterate=0)),
    "little clipping": lambda: (made(1000, 3, 25), config(3, lower_threshold=4.0, upper_threshold=4.0)),
    "unequal thresholds": unequal_thresholds,
    "lines without weight": lambda: (made(1000, 3, 26), config(3, line_weight=0.0)),
    "noise estimated": lambda: (without_variance(made(1000, 3, 27)), config(3)),
    "raw units": lambda: (in_other_units(made(1000, 3, 28), 1e-18), config(3)),
    "fitted near the lines only": lambda: (made(1000, 3, 29), windowed(config(3))),
}


def windowed(wanted: LineFitConfig) -> LineFitConfig:
    return replace(wanted, fit=replace(wanted.fit, optimize_fit=True, optimization_window=5.0))


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD)
def test_coverage_of_odd_cases(case: str) -> None:
    """1,000 fits tell a coverage to 1.5 %: those that leave out the polynomial's error are off by 5 to 20 %."""
    spectra, wanted = ODD[case]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no variance plane", IfujaxWarning)
        pulls = pulls_of(spectra, wanted, precision="float32" if case == "raw units" else "float64")
    for name, share in coverage_of(pulls).items():
        low, high = limits(len(pulls[name]), 0.66, 0.71)
        assert low <= share <= high, name


@pytest.mark.slow
def test_monte_carlo_agrees() -> None:
    """The scatter of 200 realisations is known to 5 %; its mean over 150 bright spectra to 0.5 %, beside what isn't linear."""
    spectra = made(150, 3, seed=41)
    wanted = config(3)
    plain = ifujax.fit_cube(spectra.cube, wanted)
    drawn = ifujax.fit_cube(spectra.cube, replace(wanted, fit=replace(wanted.fit, monte_carlo=200)))
    bright = (plain["ha", "snr"] > 15).ravel()
    assert bright.sum() > 40
    for name in ("flux", "velocity", "velocity_dispersion", "equivalent_width", "flux_direct"):
        ratio = np.median((drawn.error["ha", name] / plain.error["ha", name]).ravel()[bright])
        print(name, ratio)
        assert ratio == pytest.approx(1.0, abs=0.05), name


def test_median_where_few_pixels_are_kept() -> None:
    """Where too few pixels are left for the degree their median stands for the polynomial, with its own variance."""
    wavelength, n = np.linspace(6500.0, 6600.0, 16), 4000
    data = np.random.default_rng(4).standard_normal((n, 16))
    good = np.broadcast_to(np.arange(16) % 4 > 0, data.shape)  # 12 for a degree of 12
    weights = np.ones(16)
    window = (6500.0, 6600.0)
    fit = fit_rejection(wavelength, window, data, good, weights, degree=12, n_iterate=3, lower_threshold=3.0, upper_threshold=3.0)
    assert np.isnan(fit.coefficients).all()
    basis = legendre_basis(wavelength, *window, 12)
    weight, inverse, extra = response_of(fit, basis, good, weights, np.ones_like(data))
    level = (inverse[0] @ basis).T @ (basis * weight[0])  # of each pixel, by the noise of each
    np.testing.assert_allclose(level, np.broadcast_to(good[0] / 12.0, (16, 16)))
    predicted = (1.0 + extra[0]) * (level[0] ** 2).sum()
    medians = np.median(data[:, good[0]], axis=1)
    assert predicted == pytest.approx(medians.var(), rel=0.2)  # it is exact for many pixels


@pytest.mark.parametrize("threshold", [1.5, 2.0, 3.0])
def test_variance_that_clipping_adds(threshold: float) -> None:
    """4,000 means, clipped at thresholds of the true noise until they settle: their variance is known to 2.2 %."""
    data = np.random.default_rng(3).standard_normal((4000, 400))
    mean = np.zeros((len(data), 1))
    for _ in range(30):
        used = np.abs(data - mean) <= threshold
        mean = (data * used).sum(axis=1, keepdims=True) / used.sum(axis=1, keepdims=True)
    predicted = np.mean((1.0 + extra_variance(used.mean(axis=1))) / used.sum(axis=1))
    assert predicted == pytest.approx(mean.var(), rel=0.08)
