"""Figures of results: what they show, in which units, and that they are written or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ifujax.errors import DataError, UsageError
from ifujax.inference.status import AT_BOUND, NOISE_ESTIMATED, NOT_CONVERGED
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.figures import figure_format, fwhm_figure, image_figure, star_figure, value_text, write_figure
from ifujax.photometry.forward.preparation import prepare
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.results import FittedValue, ImagePhotometry, StarPhotometry
from ifujax.photometry.run import fit_image_photometry
from ifujax.photometry.stars.fit import StarOutcome, star_pixels
from ifujax.photometry.stars.models import filtered_profile
from tests.small_pair import ALL_FIXED, regridded, small_pair, star_position


@pytest.fixture(scope="module")
def image() -> ImagePhotometry:
    return fit_image_photometry(regridded(), small_pair().muse, **ALL_FIXED)


def of_forward(image: ImagePhotometry, chi2: float = 2300.0, **options) -> ImagePhotometry:
    """Return the result as if the forward method had found it, of all pixels but a border."""
    muse = image.muse
    data = np.full(muse.shape, np.nan)
    data[10:40, 5:41] = muse.values[10:40, 5:41]
    errors = dict(image.outcome.errors) | {"fwhm": 0.012}
    outcome = replace(
        image.outcome, data=data, model=np.where(np.isfinite(data), 0.05, np.nan), chi2=chi2, n_good=30 * 36, n_free=1, warn=0,
        errors=errors, covariance=np.array([[0.012**2]]), covariance_names=("fwhm",),
    )  # fmt: skip
    return replace(image, outcome=outcome, options=replace(image.options, method="forward", **options))


def star_result(hst_profile: str = "moffat") -> StarPhotometry:
    """Return a star whose models are exact profiles."""
    pair, radius = small_pair(), 1.6
    ra, dec = star_position()
    sides = {"muse": star_pixels(pair.muse, ra, dec, radius), "hst": star_pixels(regridded(), ra, dec, radius)}
    details, models = {}, {}
    for which, (flux, fwhm, beta) in {"muse": (270.0, 0.65, 2.8), "hst": (300.0, 0.085, 1.6)}.items():
        star, (x, y) = sides[which], (0.1, -0.15) if which == "muse" else (0.0, 0.0)
        r = np.hypot(star.x - x, star.y - y)
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        profile = (beta - 1) / (np.pi * alpha**2) * (1 + (r / alpha) ** 2) ** -beta
        if which == "hst" and hst_profile == "filtered":
            table, spacing = filtered_profile(fwhm, beta, star.step[0], 1024)
            profile = np.interp(r, spacing * np.arange(1024), table[0])
        models[which] = 0.05 + flux * star.step[0] * star.step[1] * profile
        values = {"flux": flux, "fwhm": fwhm, "beta": beta, "bg": 0.05, "dx": x, "dy": y}
        details |= {f"{which}_{name}": value for name, value in values.items()}
    values = {"scale": 0.9, "bg": 0.005, "dx": 0.1, "dy": -0.15, "fwhm": 0.65, "beta": 2.8}
    found = StarOutcome(
        values=values, errors=dict.fromkeys(values, 0.01), covariance=np.eye(6) * 1e-4, covariance_names=tuple(values),
        details=details, detail_errors=dict.fromkeys(details, 0.01), muse_chi2=190.0, hst_chi2=1.0, n_good=400, n_free=10,
        n_iter=5, status=0, warn=NOISE_ESTIMATED.value, rms=0.02, muse=sides["muse"], hst=sides["hst"], muse_model=models["muse"],
        hst_model=models["hst"],
    )  # fmt: skip
    names = Outcome.__dataclass_fields__
    kept = {name: getattr(found, name) for name in names if hasattr(found, name)}
    outcome = Outcome(**kept, chi2=191.0, data=np.zeros((0, 0)), model=np.zeros((0, 0)))
    return StarPhotometry("stars", "muse", outcome, pair.muse, star=(ra, dec, radius), details=found, options=PhotometryOptions())


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts] + [text.get_text() for ax in figure.axes for text in ax.texts]


def test_image_of_the_older_method(image):
    figure = image_figure(image)
    shown = texts(figure)
    assert "MUSE image: muse" in shown
    assert "0.65″ (fixed)" in shown
    assert "images tapered and smoothed" in shown
    assert not any("reduced" in text or "noise" in text for text in shown)
    bars = [ax.get_ylabel() for ax in figure.axes] + [child.get_ylabel() for ax in figure.axes for child in ax.child_axes]
    assert not any("sigma" in label for label in bars)
    assert texts(image_figure(image, title=""))[0] != "MUSE image: muse"


def test_image_in_sigma_and_cut_to_what_was_used(image):
    figure = image_figure(of_forward(image), title="other")
    shown = texts(figure)
    assert "other" in shown
    assert "0.650 ± 0.012″" in shown
    residual = figure.axes[2].images[0].get_array()
    assert residual.shape == (30, 36)
    muse = image.muse
    expected = ((muse.values - 0.05) / muse.error)[10:40, 5:41]
    np.testing.assert_allclose(residual, expected)
    scaled = image_figure(of_forward(image, chi2=4 * 1079.0, noise="scaled")).axes[2].images[0].get_array()
    np.testing.assert_allclose(scaled, expected / 2)


@pytest.mark.parametrize("reference", ["native", "regridded"])
def test_sigma_is_that_of_the_pixels_compared(image, reference):
    """Noise by itself: MUSE is low-passed where HST was."""
    pair, cache, squares = small_pair(), {}, []
    hst = pair.hst if reference == "native" else regridded()
    options = replace(image.options, method="forward", margin=0.0)
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(0.0, 0.02, pair.muse.shape)
        muse = replace(pair.muse, values=noise, variance=np.full(noise.shape, 4e-4))
        prepared = prepare(hst, muse, options, cache=cache)
        data = prepared.grid.cut(np.where(prepared.ivar > 0, prepared.values, np.nan))
        outcome = replace(of_forward(image).outcome, data=data, model=np.where(np.isfinite(data), 0.0, np.nan))
        result = replace(of_forward(image), outcome=outcome, muse=muse, prepared=prepared)
        squares.append(image_figure(result).axes[2].images[0].get_array().compressed() ** 2)
    # 1024 pixels of each at least, of which the low-pass leaves a third independent: 3 sigma
    independent = np.size(squares) * prepared.noise_share
    assert independent > 3500
    assert abs(np.mean(squares) - 1) < 3 * np.sqrt(2 / independent)
    assert bool(np.nanstd(data) < 0.015) is (reference == "regridded")


@pytest.mark.parametrize("kind", ["variance far too large", "no variance"])
def test_residuals_in_flux_where_sigma_says_nothing(image, kind):
    result = of_forward(image, chi2=3.0 if kind == "variance far too large" else 1000.0)
    if kind == "no variance":
        result = replace(result, muse=replace(result.muse, variance=None))
    residual = image_figure(result).axes[2].images[0].get_array()
    np.testing.assert_allclose(residual, (image.muse.values - 0.05)[10:40, 5:41])


def test_notes_of_failures_and_warnings(image):
    good = of_forward(image)
    bound = replace(good, outcome=replace(good.outcome, warn=AT_BOUND.value | NOISE_ESTIMATED.value))
    assert "note: a parameter lies at its bound" in texts(image_figure(bound))
    nothing = np.full(good.muse.shape, np.nan)
    failed = replace(good, outcome=replace(good.outcome, status=NOT_CONVERGED.value, model=nothing, data=nothing))
    assert "failed: iteration limit reached before" in texts(image_figure(failed))


@pytest.mark.parametrize("profile", ["moffat", "filtered"])
def test_star_has_smooth_curves_from_the_centre(profile):
    figure = star_figure(star_result(profile))
    shown = texts(figure)
    assert "0.100 ± 0.010″" in shown
    assert "−0.150 ± 0.010″" in shown
    assert not any("noise" in text for text in shown)  # MUSE has a variance; that HST has none is usual
    title = figure.get_suptitle()
    assert title.startswith("MUSE image: muse, star at RA 338.23")
    star = star_result(profile).details
    for ax, which in zip((figure.axes[0], figure.axes[2]), ("muse", "hst")):
        x, y = ax.lines[1].get_data()
        assert x[0] == 0
        assert len(x) == 300
        pixels = getattr(star, which)
        r = np.hypot(pixels.x - star.details[f"{which}_dx"], pixels.y - star.details[f"{which}_dy"])
        model = getattr(star, f"{which}_model")
        assert np.abs(np.interp(r, x, y) - model).max() < 5e-3 * np.ptp(model)
    assert "sigma" in figure.axes[1].get_ylabel()
    assert "sigma" not in figure.axes[3].get_ylabel()


def test_star_whose_model_is_no_function_of_radius():
    result = star_result()
    bent = result.details.muse_model * (1 + 0.1 * np.sin(3 * result.details.muse.x))
    figure = star_figure(replace(result, details=replace(result.details, muse_model=bent)))
    assert len(figure.axes[0].lines[1].get_xdata()) == bent.size


def test_star_that_failed():
    result = star_result()
    nothing = dict.fromkeys(result.details.details, np.nan)
    failed = replace(
        result,
        outcome=replace(result.outcome, status=NOT_CONVERGED.value),
        details=replace(result.details, details=nothing, detail_errors=nothing, muse_model=result.details.muse_model * np.nan),
    )
    assert any("failed: iteration limit" in text for text in texts(star_figure(failed)))


def test_fwhm_of_several_bands(image):
    good = of_forward(image)
    failed = replace(good, outcome=replace(good.outcome, status=NOT_CONVERGED.value))
    figure = fwhm_figure([good, failed, good], [5921.0, 7000.0, 8057.0], ["F606W", "x", "F814W"], line=(0.8, -3e-5))
    bars = figure.axes[0].containers[0]
    np.testing.assert_allclose(bars.lines[0].get_xdata(), [5921.0, 8057.0])
    ends = np.asarray(bars.lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[0.638, 0.662]] * 2)
    assert "F814W" in texts(figure)
    with pytest.raises(DataError, match="fwhm must hold a finite value"):
        fwhm_figure([failed], [5921.0])
    with pytest.raises(DataError, match="fwhm must have 1 values"):
        fwhm_figure([good, good], [5921.0])


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (FittedValue(-0.01204, 0.00116), "−0.0120 ± 0.0012"),
        (FittedValue(250.508, 0.209), "250.51 ± 0.21"),
        (FittedValue(12345.6, 321.0), "12346 ± 321"),
        (FittedValue(-2.5, 0.0, True), "−2.5 (fixed)"),
        (FittedValue(1.0, np.nan), "1"),
        (FittedValue(1.5, 3e-12), "1.5 ± 3e−12"),
    ],
)
def test_values_as_text(item, text):
    assert value_text(item) == text


def test_writing(tmp_path):
    figure = Figure(figsize=(1, 1))
    for name in ("a.png", "b.PDF", "c.svg"):
        assert write_figure(figure, tmp_path / name).stat().st_size > 0
    with pytest.raises(UsageError, match="must not exist"):
        write_figure(figure, tmp_path / "a.png")
    write_figure(figure, tmp_path / "a.png", overwrite=True)
    with pytest.raises(UsageError, match=r"unknown figure format '.xyz'.*png"):
        write_figure(figure, tmp_path / "a.xyz")
    assert figure_format("pdf") == "pdf"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.PDF", "c.svg"]
