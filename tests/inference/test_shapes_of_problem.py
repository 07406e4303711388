"""One engine, four shapes of problem: spectra, image stamps, one big joint fit, banded splines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline, make_lsq_spline

from ifujax import Bounded, LeastSquaresOptions, Normal, Observations, ParameterSpace, fit_batch, fit_joint, solve_linear
from ifujax.inference import status as bits
from tests.inference.problems import START, Peak, X, peak_numpy, peaks, scipy_fit


def test_spectra(rng):
    obs, truth = peaks(rng, 30)
    space = ParameterSpace.build({"centre": Bounded(-5, 5), "width": Bounded(0.2, 5)})
    start = {name: START[name] for name in ("centre", "width")}
    fit = fit_batch(Peak(), space, obs, start, options=LeastSquaresOptions(linear="eliminate", warm_up=False))
    pulls = np.concatenate([(fit.params[name] - truth[name]) / fit.error[name] for name in ("centre", "width")])
    assert (fit.status == 0).all()
    assert np.abs(pulls).max() < 5
    assert 0.7 < pulls.std() < 1.3


# --- image stamps: a reference image blurred in Fourier space -----------------------------------------------------------


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["shape", "linear_names"])
@dataclass(frozen=True)
class Stamp:
    """A reference image convolved with a Gaussian PSF, shifted, scaled, on a background: by its Fourier transform."""

    shape: tuple[int, int]
    linear_names: tuple[str, ...] = ("flux", "background")

    def design(self, params: Any, coords: Any) -> tuple[Any, Any]:
        sigma = params["fwhm"] / 2.3548
        blur = jnp.exp(-2 * (jnp.pi * sigma) ** 2 * (coords["u"] ** 2 + coords["v"] ** 2))
        phase = 2 * jnp.pi * (coords["u"] * params["dx"] + coords["v"] * params["dy"])
        image = jnp.fft.irfft2(coords["reference"] * blur * jnp.exp(-1j * phase), s=self.shape)
        return (image.ravel(), jnp.ones(image.size, image.dtype)), jnp.zeros(image.size, image.dtype)


def test_image_stamps(rng):
    size, batch, sigma = 24, 6, 0.02
    y, x = np.mgrid[:size, :size] - size / 2

    def scene(dx, dy, fwhm, sources):
        width = np.hypot(fwhm, 2.0) / 2.3548  # sources of fwhm 2, blurred
        dim = (2.0 / 2.3548 / width) ** 2
        return sum(f * dim * np.exp(-((x - a - dx) ** 2 + (y - b - dy) ** 2) / (2 * width**2)) for a, b, f in sources)

    sources = [[(*rng.uniform(-4, 4, 2), rng.uniform(1, 3)) for _ in range(3)] for _ in range(batch)]
    truth = {"dx": rng.uniform(-1, 1, batch), "dy": rng.uniform(-1, 1, batch), "fwhm": rng.uniform(2.5, 4, batch)}
    reference = np.array([np.fft.rfft2(scene(0, 0, 0, item)) for item in sources])
    images = np.array([scene(*(truth[name][i] for name in ("dx", "dy", "fwhm")), sources[i]) for i in range(batch)])
    data = 1.7 * images + 0.3 + rng.normal(scale=sigma, size=images.shape)
    u, v = np.fft.rfftfreq(size)[None, :], np.fft.fftfreq(size)[:, None]
    coords = {"reference": reference, "u": np.broadcast_to(u, reference.shape[1:]), "v": np.broadcast_to(v, reference.shape[1:])}
    flat = data.reshape(batch, -1)
    obs = Observations(flat, np.full_like(flat, sigma**-2), coords, {"reference": 0, "u": None, "v": None})
    space = ParameterSpace.build({"dx": Bounded(-3, 3), "dy": Bounded(-3, 3), "fwhm": Bounded(0.5, 8)})
    fit = fit_batch(
        Stamp((size, size)),
        space,
        obs,
        {"dx": 0.0, "dy": 0.0, "fwhm": 3.0},
        options=LeastSquaresOptions(linear="eliminate", warm_up=False),
    )
    assert (fit.status == 0).all()
    for name, value in truth.items():
        assert (np.abs(fit.params[name] - value) < 5 * fit.error[name]).all()
    assert (np.abs(fit.linear - [1.7, 0.3]) < 5 * fit.linear_error).all()
    assert (np.abs(fit.chi2 / fit.dof - 1) < 0.3).all()


# --- one big fit: lines of many slits whose positions share a polynomial ------------------------------------------------


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["linear_names"])
@dataclass(frozen=True)
class Slit:
    """Three lines whose pixel positions follow a polynomial surface plus the slit's own shift and stretch."""

    linear_names: tuple[str, ...] = ("first", "second", "third", "level")

    def design(self, params: Any, coords: Any) -> tuple[Any, Any]:
        place = coords["basis"] @ params["surface"] + params["shift"] + params["stretch"] * coords["line"]
        columns = [jnp.exp(-0.5 * ((coords["u"] - place[k]) / params["width"]) ** 2) for k in range(3)]
        return (*columns, jnp.ones_like(coords["u"])), jnp.zeros_like(coords["u"])

    def __call__(self, params: Any, coords: Any) -> Any:
        columns, _ = self.design(params, coords)
        return sum(params[name] * column for name, column in zip(self.linear_names, columns))


N_SLITS, LINES, U = 66, np.array([-1.0, 0.1, 1.0]), np.linspace(-9, 9, 64)
SLIT_START = {"surface": np.zeros(21), "width": 1.0, "shift": 0.0, "stretch": 0.0}


@pytest.fixture(scope="module")
def slits():
    rng = np.random.default_rng(11)
    where = np.linspace(-1, 1, N_SLITS)
    vander = np.polynomial.legendre.legvander2d(*np.meshgrid(where, LINES, indexing="ij"), [6, 2])
    basis = vander.reshape(N_SLITS, 3, 21)
    surface = rng.normal(size=21) * 0.1
    surface[1] = 4.5
    shift, stretch = rng.normal(size=(2, N_SLITS)) * 0.05
    place = basis @ surface + shift[:, None] + stretch[:, None] * LINES
    height = rng.uniform(5, 30, size=(N_SLITS, 3))
    clean = (height[:, :, None] * np.exp(-0.5 * ((U - place[:, :, None]) / 0.9) ** 2)).sum(axis=1) + 2.0
    values = clean + rng.normal(scale=0.5, size=clean.shape)
    coords = {"basis": basis, "line": LINES, "u": U}
    return Observations(values, np.full_like(values, 4.0), coords, {"basis": 0, "line": None, "u": None}), surface


def slit_spaces(**local):
    start = np.zeros(21)
    start[1] = 4.0
    shared = ParameterSpace.build({"surface": Bounded(-20, 20), "width": Bounded(0.3, 3)}, shapes={"surface": (21,)})
    own = {name: Bounded(-1, 1, prior=Normal(0.0, 0.05)) for name in ("shift", "stretch")}
    return shared, ParameterSpace.build({**own, **local}), SLIT_START | {"surface": start}


@pytest.fixture(scope="module")
def joint(slits):
    shared, local, start = slit_spaces()
    return fit_joint(Slit(), shared, local, slits[0], start, options=LeastSquaresOptions(linear="eliminate"))


def test_joint_fit_of_150_parameters_and_eliminated_fluxes(slits, joint):
    obs, surface = slits
    fit = joint.raise_if_failed()
    assert 22 + 2 * N_SLITS >= 150
    assert fit.n_free == 22 + 6 * N_SLITS
    assert fit.dof == obs.values.size - fit.n_free
    pulls = (fit.shared["surface"] - surface) / fit.shared_error["surface"]
    assert np.abs(pulls).max() < 5
    assert 0.5 < pulls.std() < 1.6

    # The same by scipy, every flux a parameter: 418 dense ones.
    basis = obs.coords["basis"]
    cut = [22, 22 + N_SLITS, 22 + 2 * N_SLITS]

    def residual(theta):
        shift, stretch, linear = theta[cut[0] : cut[1]], theta[cut[1] : cut[2]], theta[cut[2] :].reshape(N_SLITS, 4)
        place = basis @ theta[:21] + shift[:, None] + stretch[:, None] * LINES
        lines = np.exp(-0.5 * ((U - place[:, :, None]) / theta[21]) ** 2)
        model = (linear[:, :3, None] * lines).sum(axis=1) + linear[:, 3:]
        return np.concatenate([((obs.values - model) * 2.0).ravel(), theta[cut[0] : cut[2]] / 0.05])

    theta = [fit.shared["surface"], [fit.shared["width"]], fit.local["shift"], fit.local["stretch"], fit.linear.ravel()]
    theta = np.concatenate(theta)
    assert fit.chi2 == pytest.approx(np.sum(residual(theta) ** 2), rel=1e-9)
    jacobian = jac_by_differences(residual, theta)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    error = np.sqrt(np.diag(covariance))
    further = covariance @ jacobian.T @ residual(theta)  # what a dense Gauss-Newton step would still change
    assert (np.abs(further) < 2e-3 * error).all()
    np.testing.assert_allclose(fit.shared_error["surface"], error[:21], rtol=1e-4)
    np.testing.assert_allclose(fit.covariance, covariance[:22, :22], atol=1e-4 * error[:22].max() ** 2)
    np.testing.assert_allclose(fit.local_error["shift"], error[cut[0] : cut[1]], rtol=1e-4)
    np.testing.assert_allclose(fit.local_error["stretch"], error[cut[1] : cut[2]], rtol=1e-4)
    np.testing.assert_allclose(fit.linear_error.ravel(), error[cut[2] :], rtol=1e-4)
    own = [cut[0] + 7, cut[1] + 7, *range(cut[2] + 28, cut[2] + 32)]
    scale = np.outer(error[own], error[own])
    np.testing.assert_allclose(fit.block_covariance[7] / scale, covariance[np.ix_(own, own)] / scale, atol=1e-4)


def jac_by_differences(function, theta):
    columns = []
    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1e-5
        columns.append((function(theta + step) - function(theta - step)) / 2e-5)
    return np.stack(columns, axis=1)


def test_joint_fit_with_the_fluxes_kept(slits, joint):
    fluxes = {name: Bounded() for name in Slit().linear_names}
    shared, local, start = slit_spaces(**fluxes)
    fit = fit_joint(Slit(), shared, local, slits[0], start | dict.fromkeys(fluxes, 5.0))
    assert fit.status == 0
    assert fit.chi2 == pytest.approx(joint.chi2, rel=1e-8)
    np.testing.assert_allclose(fit.shared_error["surface"], joint.shared_error["surface"], rtol=1e-4)
    np.testing.assert_allclose(fit.local_error["third"], joint.linear_error[:, 2], rtol=1e-4)


def test_bad_blocks_are_left_out(slits, joint):
    obs, _ = slits
    values, ivar = obs.values.copy(), obs.ivar.copy()
    values[3], ivar[8, 3:] = np.nan, 0
    shared, local, start = slit_spaces()
    shift = np.zeros(N_SLITS)
    shift[20] = np.nan
    obs = Observations(values, ivar, obs.coords, obs.coords_axes)
    fit = fit_joint(Slit(), shared, local, obs, start | {"shift": shift}, options=LeastSquaresOptions(linear="eliminate"))
    assert fit.status == 0
    assert {int(i): int(fit.block_status[i]) for i in np.flatnonzero(fit.block_status)} == {
        3: bits.NO_DATA.value,
        8: bits.TOO_FEW_PIXELS.value,
        20: bits.NOT_FINITE.value,
    }
    assert np.isnan(fit.local["shift"][[3, 8, 20]]).all()
    assert (np.abs(fit.shared["surface"] - joint.shared["surface"]) < 2 * joint.shared_error["surface"]).all()
    empty = Observations(values, np.zeros_like(ivar), obs.coords, obs.coords_axes)
    none = fit_joint(Slit(), shared, local, empty, start, options=LeastSquaresOptions(linear="eliminate"))
    assert none.status == bits.NO_DATA.value
    assert np.isnan(none.shared["surface"]).all()


def test_joint_bounds_and_units(rng):
    obs, _ = peaks(rng, 8)
    shared = ParameterSpace.build({"centre": Bounded(-0.1, 0.2), "width": Bounded(0.3, 1.0)})
    start = {"centre": 0.0, "width": 1.0}

    def residual(theta):
        model = np.array([peak_numpy([theta[0], theta[1], *own]) for own in theta[2:].reshape(8, 2)])
        return ((obs.values - model) / 0.3).ravel()

    low, high = [-0.1, 0.3] + [-np.inf] * 16, [0.2, 1.0] + [np.inf] * 16
    best = scipy_fit(residual, [0.05, 0.9] + [5.0, 0.0] * 8, low, high)
    for factor in (1.0, 1e-20, 1e20):
        scaled = Observations(obs.values * factor, obs.ivar / factor**2, X)
        fit = fit_joint(Peak(), shared, None, scaled, start, options=LeastSquaresOptions(linear="eliminate"))
        assert fit.status == 0
        assert fit.chi2 == pytest.approx(2 * best.cost, rel=1e-7)
        assert fit.warn == bits.AT_BOUND.value
        assert fit.shared["width"] == 1.0
        assert fit.shared_error["width"] > 0
        assert fit.local == {}


# --- a banded spline ----------------------------------------------------------------------------------------------------


def test_banded_spline(rng):
    x = np.sort(rng.uniform(0, 10, 400))
    knots = np.r_[[0.0] * 4, np.linspace(0, 10, 42)[1:-1], [10.0] * 4]
    design = BSpline.design_matrix(x, knots, 3).toarray()
    values = np.sin(x)[None] * rng.uniform(1, 3, size=(10, 1)) + rng.normal(scale=0.05, size=(10, 400))
    ivar = np.full_like(values, 400.0) * rng.uniform(0.5, 1.5, size=values.shape)
    fit = solve_linear(design, values, ivar, bandwidth=3, covariance=True)
    for row in range(10):
        theirs = make_lsq_spline(x, values[row], knots, 3, w=np.sqrt(ivar[row]))
        np.testing.assert_allclose(fit.coefficients[row], theirs.c, atol=1e-8)
    dense = solve_linear(design, values, ivar)
    np.testing.assert_allclose(fit.coefficients, dense.coefficients, atol=1e-10)
    np.testing.assert_allclose(fit.error, dense.error, rtol=1e-9)
    # A penalty on second differences bridges a gap without data.
    gap = (x > 4) & (x < 6)
    differences = np.diff(np.eye(design.shape[1]), n=2, axis=0)
    masked = np.where(gap, 0.0, ivar)
    smooth = solve_linear(design, values, masked, bandwidth=3, penalty=10 * differences.T @ differences)
    assert (smooth.status == 0).all()
    assert np.abs(smooth.model(design) - np.sin(x) * (values @ np.sin(x) / (np.sin(x) @ np.sin(x)))[:, None])[:, ~gap].max() < 0.3
