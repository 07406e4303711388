"""Velocity widths: percentiles against root finding, derivatives, measurements on pixels, errors, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr, voigt_profile
from scipy.stats import binom

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import UsageError
from ifujax.inference.precision import working_precision
from ifujax.lines.config import LSF, EmissionModel, FitOptions, Kinematics, Line, LineFitConfig
from ifujax.lines.velocity_width import VelocityWidth, flux_percentiles, subdivided
from ifujax.lines.widths import NAMES, VelocityQuantities
from ifujax.models.doppler import velocity_of
from ifujax.models.emission import EmissionSpectrum, SpectralCoords
from ifujax.models.lsf import LineSpread
from ifujax.simulate import LogUniform, SimulatedLine, SimulatedSpectra, Uniform, spectra
from tests.lines.problems import as_cube, as_model
from tests.lines.test_coverage import ONE_SIGMA

HA = 6562.8
EDGES = np.arange(6480.0, 6650.0, 0.8)


# --- percentiles of pixels -------------------------------------------------------------------------------------------


def test_percentiles_interpolate_between_the_edges_that_bracket_them() -> None:
    edges = np.array([0.0, 10.0, 20.0, 40.0])
    flux = np.array([[1.0, 2.0, 1.0]])
    found = flux_percentiles(flux, edges, np.array([-np.inf]).clip(0.0), np.array([40.0]), (0.125, 0.25, 0.5, 0.875))
    np.testing.assert_allclose(np.ravel(found), [5.0, 10.0, 15.0, 30.0])


def test_window_cuts_pixels() -> None:
    edges = np.array([0.0, 10.0, 20.0, 30.0])
    found = flux_percentiles(np.array([[4.0, 1.0, 4.0]]), edges, np.array([5.0]), np.array([25.0]), (0.2, 0.5))
    np.testing.assert_allclose(np.ravel(found), [7.5, 15.0])


def test_percentiles_of_noise(rng: np.random.Generator) -> None:
    """Where the cumulative flux is not monotonic: low plus the length over which it is below the share."""
    edges = np.sort(rng.uniform(-500.0, 500.0, 31))
    flux = np.exp(-0.5 * (np.linspace(-3, 3, 30) / 1.0) ** 2)[None, :] + 0.4 * rng.standard_normal((20, 30))
    low, high = np.full(20, edges[0] + 3.0), np.full(20, edges[-1] - 5.0)
    shares = (0.1, 0.5, 0.9)
    found = np.array(flux_percentiles(flux, edges, low, high, shares))
    fine = np.linspace(low[0], high[0], 400001)
    for row in range(20):
        cumulative = np.interp(fine, edges, np.concatenate([[0.0], np.cumsum(flux[row])]))
        cumulative -= cumulative[0]
        below = [np.mean(cumulative < share * cumulative[-1]) * (high[0] - low[0]) + low[0] for share in shares]
        np.testing.assert_allclose(found[:, row], below, atol=0.02)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(np.cumsum(flux, axis=1), axis=1) < 0).any()  # or nothing was tested


def test_no_flux_has_no_percentiles() -> None:
    edges = np.array([0.0, 10.0, 20.0])
    assert np.isnan(flux_percentiles(np.array([[1.0, -2.0]]), edges, np.zeros(1), np.full(1, 20.0), (0.5,))).all()


def test_subdivided_pixels_keep_their_flux_and_follow_a_polynomial() -> None:
    edges = np.arange(0.0, 11.0)

    def cumulative(x: np.ndarray) -> np.ndarray:
        return (x - 4.0) ** 5 - 20 * (x - 3.0) ** 3 + 2 * x**2

    fine, fine_edges = subdivided(np.diff(cumulative(edges))[None, :], edges, parts=4)
    np.testing.assert_allclose(fine.reshape(10, 4).sum(axis=1), np.diff(cumulative(edges)), atol=1e-10)
    np.testing.assert_allclose(fine[0, 8:-8], np.diff(cumulative(fine_edges))[8:-8], atol=1e-9)


@pytest.mark.parametrize(("pixel", "tolerance"), [(0.3, 2e-4), (0.5, 8e-4), (0.67, 1.6e-3), (1.0, 1.4e-2)])
def test_width_of_a_sampled_gaussian(pixel: float, tolerance: float) -> None:
    """2.563 sigma; pixels filled evenly make it too wide."""
    shares = (0.1, 0.9)
    widths, even = [], []
    for offset in np.linspace(0.0, 1.0, 9):
        edges = np.arange(-12.0, 12.0, pixel) + offset * pixel
        flux = np.diff(ndtr(edges))[None, :]
        ends = np.array([-6.0]), np.array([6.0])
        widths.append(np.diff(np.ravel(flux_percentiles(*subdivided(flux, edges), *ends, shares)))[0])
        even.append(np.diff(np.ravel(flux_percentiles(flux, edges, *ends, shares)))[0])
    np.testing.assert_allclose(widths, 2.5631031, rtol=tolerance)
    assert np.mean(even) == pytest.approx(2.5631031 * (1 + 0.085 * pixel**2), rel=4e-3)


# --- percentiles of the model ----------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[str, ...]] = {
    "two": ("gaussian", "gaussian"),
    "lorentzian": ("lorentzian",),
    "mixed": ("voigt", "gauss_hermite"),
}
PARAMETERS = {
    "flux": (3.0, 2.0),
    "velocity": (40.0, -130.0),
    "velocity_dispersion": (90.0, 210.0),
    "h3": (0.08, -0.05),
    "h4": (0.05, 0.1),
    "lorentz_fwhm": (70.0, 120.0),
}


def model_of(shapes: tuple[str, ...], *, lsf: bool = False, rest: tuple[float, ...] = (HA, HA)) -> EmissionSpectrum:
    n = len(shapes)
    spread = LineSpread("constant", np.array([2.6]), np.zeros(0), np.float64(0.0)) if lsf else None
    names = tuple("ab"[:n])
    return EmissionSpectrum(names, ("flux",) * n, shapes, "integrated", False, 0, np.array(rest[:n]), np.float64(0.0), spread)


def parameters_of(model: EmissionSpectrum) -> dict[str, float]:
    return {
        f"{name}.{parameter}": PARAMETERS[parameter][i] for i, name in enumerate(model.names) for parameter in model.parameters(i)
    }


def coords_of(model: EmissionSpectrum) -> SpectralCoords:
    return model.coords(EDGES, (EDGES[0], EDGES[-1]), 224)


def evaluated(quantities: VelocityQuantities, model: EmissionSpectrum) -> Callable[[dict], dict]:
    coords = coords_of(model)
    return jax.jit(lambda params: quantities.from_model(model, params, jnp.zeros(0), coords))


def density(model: EmissionSpectrum, i: int, sigma: float) -> Callable[[float], float]:
    """Unit profile of a line as a function of velocity relative to its rest wavelength, from the definitions."""
    p = {parameter: PARAMETERS[parameter][i] for parameter in model.parameters(i)}
    centre = p["velocity"]
    if model.shapes[i] == "lorentzian":
        return lambda v: float(voigt_profile(v - centre, 0.0, 0.5 * 2.3548200450309493 * p["velocity_dispersion"]))
    if model.shapes[i] == "voigt":
        return lambda v: float(voigt_profile(v - centre, sigma, 0.5 * p["lorentz_fwhm"]))
    h3, h4 = p.get("h3", 0.0), p.get("h4", 0.0)

    def hermite(v: float) -> float:
        w = (v - centre) / sigma
        third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
        fourth = (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24)
        norm = np.sqrt(2 * np.pi) * sigma * (1 + 3 * h4 / np.sqrt(24))
        return float(np.exp(-0.5 * w * w) * (1 + h3 * third + h4 * fourth) / norm)

    return hermite


@pytest.mark.parametrize("shapes", SHAPES)
def test_percentiles_of_the_model(shapes: str) -> None:
    model = model_of(SHAPES[shapes])
    profiles = [density(model, i, PARAMETERS["velocity_dispersion"][i]) for i in range(len(model.names))]
    fluxes = np.array(PARAMETERS["flux"][: len(profiles)])

    def below(v: float) -> float:
        # From the line's middle, beyond which no profile here is cut off by quad.
        parts = [0.5 + quad(f, PARAMETERS["velocity"][i], v, epsabs=1e-12, limit=400)[0] for i, f in enumerate(profiles)]
        for i, shape in enumerate(model.shapes):
            if shape == "gauss_hermite":  # not symmetric
                parts[i] = quad(profiles[i], PARAMETERS["velocity"][i] - 4000, v, epsabs=1e-12, limit=400)[0]
        return float(fluxes @ parts / fluxes.sum())

    truth = [brentq(lambda v, p=p: below(v) - p, -3000.0, 3000.0, xtol=1e-6) for p in (0.1, 0.5, 0.9)]
    quantities = VelocityQuantities(tuple(range(len(profiles))), HA, 80.0, 5.0)
    with working_precision("float64"):
        found = evaluated(quantities, model)(parameters_of(model))
    ours = [float(found[f"model.{name}"]) for name in ("lower", "median", "upper", "width")]
    np.testing.assert_allclose(ours, [*truth, truth[2] - truth[0]], atol=2e-3)
    if "lorentzian" not in model.shapes and "voigt" not in model.shapes:
        mean = [quad(lambda v, f=f: v * f(v), -4000, 4000, limit=400)[0] for f in profiles]
        assert float(found["model.centroid"]) == pytest.approx(fluxes @ mean / fluxes.sum(), abs=1e-6)


def test_other_reference_wavelength() -> None:
    """Two lines apart in wavelength, seen from a third: percentiles of the sum in wavelength."""
    rest, reference = (6548.04, 6583.46), 6565.0
    model = model_of(("gaussian", "gaussian"), rest=rest)
    with working_precision("float64"):
        found = evaluated(VelocityQuantities((0, 1), reference, 60.0, 5.0), model)(parameters_of(model))
    fluxes = np.array(PARAMETERS["flux"])

    def below(v: float) -> float:
        wavelength = reference * np.sqrt((1 + v / 299792.458) / (1 - v / 299792.458))
        own = [velocity_of(wavelength, line) for line in rest]
        shares = [
            ndtr((u - c) / s) for u, c, s in zip(own, PARAMETERS["velocity"], PARAMETERS["velocity_dispersion"], strict=True)
        ]
        return float(fluxes @ shares / fluxes.sum())

    for name, share in (("lower", 0.2), ("median", 0.5), ("upper", 0.8)):
        assert below(float(found[f"model.{name}"])) == pytest.approx(share, abs=1e-9)


def test_intrinsic_is_without_the_instrument() -> None:
    model = model_of(("gaussian", "gaussian"), lsf=True)
    quantities = VelocityQuantities((0, 1), HA, 80.0, 5.0)
    with working_precision("float64"):
        seen = evaluated(quantities, model)(parameters_of(model))
        narrow = evaluated(quantities, replace(model, spread=None))(parameters_of(model))
    for name in NAMES:
        assert float(seen[f"intrinsic.{name}"]) == pytest.approx(float(narrow[f"model.{name}"]), abs=1e-9)
    assert float(seen["model.width"]) > float(seen["intrinsic.width"]) + 5.0
    assert not any(name.startswith("intrinsic") for name in narrow)


@pytest.mark.parametrize(
    "shapes",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("lorentzian", "mixed", "voigt") else name for name in SHAPES],
)
def test_derivatives(shapes: str) -> None:
    """Of the model's percentiles by every parameter, against finite differences."""
    model = model_of(SHAPES[shapes], lsf=shapes in ("two", "lorentzian"))
    function = evaluated(VelocityQuantities(tuple(range(len(model.names))), HA, 80.0, 5.0), model)
    at = parameters_of(model)
    along = jax.jit(lambda params, tangent: jax.jvp(function, (params,), (tangent,))[1])
    with working_precision("float64"):
        for parameter, value in at.items():
            slopes = along(at, {name: float(name == parameter) for name in at})
            step = 1e-4 * max(abs(value), 1.0)
            ends = [function(at | {parameter: value + side * step}) for side in (-1.0, 1.0)]
            for name, slope in slopes.items():
                if name.startswith(("model", "intrinsic")):
                    numerical = float(ends[1][name] - ends[0][name]) / (2 * step)
                    assert float(slope) == pytest.approx(numerical, rel=2e-4, abs=1e-6), (name, parameter)


@pytest.mark.parametrize("kernel", [(), (0.25, 0.5, 0.25)])
@pytest.mark.parametrize("shapes", ["two", "lorentzian"])
def test_response_to_residuals(shapes: str, kernel: tuple[float, ...]) -> None:
    """What a little flux in one pixel does to the measurement on the pixels, by doing it."""
    model = model_of(SHAPES[shapes])
    quantities = VelocityQuantities(tuple(range(len(model.names))), HA, 80.0, 5.0, kernel)
    params, coords, n = parameters_of(model), coords_of(model), len(EDGES) - 1
    with working_precision("float64"):
        found = jax.tree.map(float, evaluated(quantities, model)(params))
        line = np.asarray(jax.jit(lambda p: model.lines(p, coords))(params))[:n]
        response = jax.jit(lambda p: quantities.from_residuals(model, p, jnp.zeros(0), coords))(params)
    ends = np.array([found["window.low"]]), np.array([found["window.high"]])

    def measure(spectrum: np.ndarray) -> np.ndarray:
        if kernel:
            spectrum = np.convolve(spectrum, kernel, mode="same")
        pixels, edges = subdivided((spectrum * np.diff(EDGES))[None, :], velocity_of(EDGES, HA), parts=32)
        return np.ravel(flux_percentiles(pixels, edges, *ends, quantities.shares))

    plain = measure(line)
    tolerance = 0.3 if not kernel else 30.0  # smoothing broadens
    np.testing.assert_allclose(plain, [found[f"direct.{name}"] for name in ("lower", "median", "upper")], atol=tolerance)
    size = 1e-3 * line.max()
    for pixel in range(70, 140, 3):
        moved = measure(line + size * (np.arange(n) == pixel)) - plain
        for k, name in enumerate(("lower", "median", "upper")):
            expected = float(response[f"direct.{name}"][pixel]) * size
            biggest = float(np.abs(response[f"direct.{name}"]).max()) * size
            assert moved[k] == pytest.approx(expected, abs=(0.03 if not kernel else 0.2) * biggest), (pixel, name)


# --- fits ------------------------------------------------------------------------------------------------------------


def blend(n: int, *, two: bool, seed: int, snr: tuple[float, float] = (30.0, 100.0)) -> SimulatedSpectra:
    """H-alpha of one or two components and a line of [N II] beside it."""
    group = "narrow" if two else "gas"
    lines = [SimulatedLine("n2", 6583.46, 0.5, group), SimulatedLine("ha", HA, 1.0, group)]
    velocity, dispersion = {group: Uniform(-100.0, 100.0)}, {group: Uniform(60.0, 90.0) if two else Uniform(60.0, 200.0)}
    if two:
        lines.append(SimulatedLine("ha_b", HA, Uniform(0.7, 1.5), "broad"))
        velocity["broad"], dispersion["broad"] = Uniform(-300.0, 0.0), Uniform(200.0, 300.0)
    return spectra(
        n,
        lines,
        wavelength=np.arange(6440.0, 6700.0, 1.15),
        velocity=velocity,
        velocity_dispersion=dispersion,
        continuum=(Uniform(8.0, 15.0), Uniform(-1.0, 1.0)),
        snr=LogUniform(*snr),
        lsf_fwhm=2.6,
        seed=seed,
    )


def truth_of(problem: SimulatedSpectra, names: tuple[str, ...], sigma: str) -> dict[str, np.ndarray]:
    """Percentiles by root finding, row by row."""
    flux, velocity, width = (np.stack([problem.truth[f"{name}.{k}"] for name in names]) for k in ("flux", "velocity", sigma))
    share = flux / flux.sum(axis=0)

    def at(row: int, p: float) -> float:
        def excess(v: float) -> float:
            return float(share[:, row] @ ndtr((v - velocity[:, row]) / width[:, row])) - p

        return brentq(excess, -5000.0, 5000.0, xtol=1e-9)

    lower, median, upper = (np.array([at(row, p) for row in range(len(problem))]) for p in (0.1, 0.5, 0.9))
    mean = (share * velocity).sum(axis=0)
    return dict(zip(NAMES, (upper - lower, lower, upper, median, mean)))


def pulls_of(problem: SimulatedSpectra, names: tuple[str, ...], widths: VelocityWidth) -> dict[str, np.ndarray]:
    pulls = {}
    for kind, sigma in (("model", "sigma"), ("intrinsic", "velocity_dispersion"), ("direct", "sigma")):
        truth, maps = truth_of(problem, names, sigma), getattr(widths, kind)
        for name in NAMES:
            pulls[f"{kind}.{name}"] = ((getattr(maps, name) - truth[name]) / getattr(maps.error, name)).ravel()
    return pulls


@lru_cache(maxsize=1)
def fitted() -> tuple[SimulatedSpectra, ifujax.CubeFit]:
    problem = blend(240, two=True, seed=8)
    return problem, ifujax.fit_cube(as_cube(problem), as_model(problem))


@pytest.mark.slow
def test_coverage_quick() -> None:
    problem, fit = fitted()
    names = ("ha", "ha_b")
    widths = fit.velocity_width(names)
    assert widths.lines == names
    assert widths.rest_wavelength == HA
    low, high = (binom.ppf(p, 240, ONE_SIGMA) / 240 for p in (0.0005, 0.9995))
    for name, pull in pulls_of(problem, names, widths).items():
        share = float(np.mean(np.abs(pull) <= 1.0))
        print(f"    {name:<22}{100 * share:6.2f} %   pull: median {np.median(pull):+.3f}")
        assert low <= share <= high, name


def test_spaxels_and_options() -> None:
    _, fit = fitted()
    names = ("ha", "ha_b")
    plain = fit.velocity_width(names)
    clipped = fit.velocity_width(names, clip_negative_flux=True)
    np.testing.assert_array_equal(clipped.model.width, plain.model.width)
    assert np.median(clipped.direct.width - plain.direct.width) > 2.0
    smooth = fit.velocity_width(names, smooth=1.5)
    # In quadrature: 1.5 pixels are 79 km/s.
    wider = np.sqrt(np.median(plain.direct.width) ** 2 + (2.563 * 79) ** 2)
    assert np.median(smooth.direct.width) == pytest.approx(wider, rel=0.1)
    alone = fit.velocity_width("ha", 50, rest_wavelength=6560.0)
    np.testing.assert_allclose(alone.model.median, fit["ha", "velocity"] + velocity_of(HA, 6560.0), atol=0.2)
    np.testing.assert_allclose(alone.model.width, 1.3489795 * fit["ha", "sigma"], rtol=1e-4)
    one = plain.spaxel(x=7, y=0)
    assert one.direct.error is not None
    assert one.model.width == plain.model.width[0, 7]
    assert one.direct.error.median == plain.direct.error.median[0, 7]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.velocity_width("hb"), "line"),
        (lambda fit: fit.velocity_width([]), "got none"),
        (lambda fit: fit.velocity_width(["ha", "ha"]), "different"),
        (lambda fit: fit.velocity_width(["ha", "n2"]), "one rest wavelength"),
        (lambda fit: fit.velocity_width("ha", 100), "percentage"),
        (lambda fit: fit.velocity_width("ha", sigma_factor=0), "sigma_factor"),
        (lambda fit: fit.velocity_width("ha", smooth=200), "smooth"),
        (lambda fit: fit.velocity_width("ha", rest_wavelength=-1), "rest_wavelength"),
    ],
)
def test_what_can_not_be_asked_for(call: Callable, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(fitted()[1])


def bright_line(n: int, *, masked: slice | None = None, skipped: int | None = None, **model_options) -> ifujax.CubeFit:
    """One line without noise to speak of, sigma 120 km/s observed, in the middle of the axis or where `centre` says."""
    wavelength = np.arange(6540.0, 6586.0, 1.0)
    edges = np.append(wavelength - 0.5, wavelength[-1] + 0.5)
    line = np.diff(ndtr((velocity_of(edges, HA) - 20.0) / 120.0))
    data = np.tile((10.0 + 500.0 * line)[:, None, None], (1, 1, n))
    data += 1e-3 * np.random.default_rng(1).standard_normal(data.shape)
    if masked is not None:
        data[masked, 0, 0] = np.nan
    if skipped is not None:
        data[:, 0, skipped] = np.nan
    cube = Cube(data, wavelength, uncertainty=np.full(data.shape, 1e-6), uncertainty_kind="variance")
    options = model_options.pop("fit", FitOptions())
    model = EmissionModel([Line("ha", HA, Kinematics())], continuum_degree=0, **model_options)
    return ifujax.fit_cube(cube, LineFitConfig(model, fit=options))


def test_masked_pixels_take_the_model_and_lost_spaxels_are_nan() -> None:
    fit = bright_line(3, masked=slice(20, 24), skipped=2)
    widths = fit.velocity_width("ha")
    for maps in (widths.model, widths.direct):
        np.testing.assert_allclose(maps.width[0, :2], 2.5631031 * 120.0, rtol=1e-3)
        np.testing.assert_allclose(maps.median[0, :2], 20.0, atol=0.5)
        assert np.isnan(maps.width[0, 2])
        assert np.isnan(maps.error.width[0, 2])
    assert widths.direct.error.width[0, 0] > 0  # type: ignore[union-attr]
    assert widths.intrinsic is None
    # With most of the line masked nothing is left to read off the data.
    assert np.isnan(bright_line(1, masked=slice(18, 28)).velocity_width("ha").direct.width).all()


def test_line_cut_off_by_the_axis() -> None:
    wavelength = np.arange(6560.0, 6600.0, 1.0)
    edges = np.append(wavelength - 0.5, wavelength[-1] + 0.5)
    data = (1.0 + 100.0 * np.diff(ndtr(velocity_of(edges, HA) / 120.0)))[:, None, None]
    cube = Cube(data, wavelength, uncertainty=np.full(data.shape, 1e-4), uncertainty_kind="variance")
    widths = ifujax.fit_cube(cube, EmissionModel([Line("ha", HA, Kinematics())], continuum_degree=0)).velocity_width("ha")
    assert widths.model.width[0, 0] == pytest.approx(2.5631031 * 120.0, rel=1e-2)
    assert np.isnan(widths.direct.width).all()


@pytest.mark.slow
def test_scaled_errors_and_fixed_models() -> None:
    plain, scaled = bright_line(2), bright_line(2, fit=FitOptions(scale_errors=True))
    ratio = scaled.velocity_width("ha").model.error.width / plain.velocity_width("ha").model.error.width  # type: ignore[union-attr]
    np.testing.assert_allclose(ratio, np.sqrt(plain.reduced_chi2), rtol=1e-6)
    widths = bright_line(1, fit=FitOptions(fixed=True), lsf=LSF.constant(2.0)).velocity_width("ha")
    assert widths.intrinsic is not None
    assert widths.intrinsic.width[0, 0] == pytest.approx(2.5631031 * 100.0, rel=1e-6)  # the declared start
    assert np.isnan(widths.model.error.width).all()  # type: ignore[union-attr]


@pytest.mark.slow
def test_float32_in_any_unit() -> None:
    problem, fit = fitted()
    names = ("ha", "ha_b")
    plain = fit.velocity_width(names)
    single = ifujax.fit_cube(as_cube(problem, factor=1e20), as_model(problem), precision="float32").velocity_width(names)
    for kind in ("model", "intrinsic", "direct"):
        one, other = getattr(plain, kind), getattr(single, kind)
        for name in NAMES:
            error = getattr(one.error, name)
            assert np.abs((getattr(other, name) - getattr(one, name)) / error).max() < 0.05, (kind, name)
            np.testing.assert_allclose(getattr(other.error, name), error, rtol=1e-3)


def test_line_without_flux_has_no_width() -> None:
    """Where only noise below the continuum is, the flux ends at 0."""
    wavelength = np.arange(6500.0, 6626.0, 1.0)
    data = 10.0 + np.random.default_rng(3).standard_normal((len(wavelength), 1, 12))
    data[np.abs(wavelength - HA) < 12.0] -= 1.0
    cube = Cube(data, wavelength, uncertainty=np.ones_like(data), uncertainty_kind="variance")
    kinematics = Kinematics(ifujax.Bounded(-100.0, 100.0, start=0.0), ifujax.Bounded(80.0, 150.0, start=100.0))
    fit = ifujax.fit_cube(cube, EmissionModel([Line("ha", HA, kinematics)], continuum_degree=0))
    empty = fit["ha", "flux"] == 0
    assert empty.sum() >= 3
    widths = fit.velocity_width("ha")
    for maps in (widths.model, widths.direct):
        assert np.isnan(maps.width[empty]).all()
        assert np.isnan(maps.error.width[empty]).all()


def test_number_of_a_spectrum() -> None:
    wavelength = np.arange(6500.0, 6626.0, 1.0)
    edges = np.append(wavelength - 0.5, wavelength[-1] + 0.5)
    values = 10.0 + 500.0 * np.diff(ndtr(velocity_of(edges, HA) / 120.0))
    spectrum = ifujax.Spectrum(values, wavelength, uncertainty=np.full(values.shape, 0.01), uncertainty_kind="variance")
    widths = ifujax.fit_spectrum(spectrum, EmissionModel([Line("ha", HA, Kinematics())])).velocity_width("ha", 68.268949)
    assert widths.model.width == pytest.approx(240.0, rel=1e-3)
    assert isinstance(widths.direct.median, float)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.slow
def test_coverage(two: bool) -> None:
    problem = blend(4000, two=two, seed=21)
    names = ("ha", "ha_b") if two else ("ha",)
    fit = ifujax.fit_cube(as_cube(problem), as_model(problem))
    assert not fit.status.any()
    for name, pull in pulls_of(problem, names, fit.velocity_width(names)).items():
        share = float(np.mean(np.abs(pull) <= 1.0))
        robust = 0.5 * np.diff(np.percentile(pull, [15.87, 84.13]))[0]
        print(f"    {name:<22}{100 * share:6.2f} %   pull: median {np.median(pull):+.3f}, half width {robust:.3f}")
        assert 0.65 <= share <= 0.71, name
