"""Figures of image photometry: what is drawn, how masked pixels look, and that no text lies on another."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from ifujax.errors import DataError
from ifujax.plotting.photometry import StarProfile, fwhm_wavelength_figure, image_fit_figure, star_profile_figure
from tests.plotting.test_posterior_plots import drawn_texts, outside, overlaps

UNIT = "10**-20 erg Angstrom-1 s-1 cm-2"
TEXT = [
    ("scale", "0.9503 ± 0.0015"),
    ("dx", "+0.1202 ± 0.0004 ″"),
    ("FWHM", "0.6504 ± 0.0016 ″"),
    "",
    "rms 0.0502, $\\chi^2_\\nu$ = 1.003",
]
BANDS = np.array([5921.0, 7692.0, 8057.0, 9033.0])
NAMES = ["F606W", "F775W", "F814W", "F850LP"]


def assert_readable(figure: Figure) -> None:
    """Check that texts neither lie on each other nor stick out of the figure."""
    assert overlaps(figure) == []
    assert outside(figure) == []


def an_image(shape=(50, 60), sigma=0.05):
    rng = np.random.default_rng(8)
    y, x = np.indices(shape)
    model = 0.05 + 20.0 * np.exp(-0.5 * ((x - 30) ** 2 + (y - 20) ** 2) / 4.0)
    data = model + rng.normal(0, sigma, shape)
    data[5:9, 10:20] = np.nan
    return data, model


def a_star(n=400, **changes):
    rng = np.random.default_rng(5)
    radius = rng.uniform(0.0, 3.0, n)
    model = 20.0 / (1 + radius**2 / 0.36) ** 2.8
    options = {"error": np.full(n, 0.05), "text": TEXT[:3]} | changes
    return StarProfile(radius, model + rng.normal(0, 0.05, n), model, **options)


@pytest.mark.parametrize("shape", [(50, 60), (160, 160), (60, 200), (200, 40)])
@pytest.mark.parametrize("pixel", [None, 0.2])
def test_image_fit_is_readable(shape, pixel):
    data, model = an_image(shape)
    figure = image_fit_figure(
        data, model, error=np.full(shape, 0.05), pixel=pixel, title="udf04: image fit", unit=UNIT, text=TEXT
    )
    assert_readable(figure)
    texts = [text for text, _ in drawn_texts(figure)]
    assert {"scale", "0.9503 ± 0.0015", "residual (sigma)", "$10^{-20}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$"} <= set(texts)
    assert texts.count("x (pixels)" if pixel is None else "x (arcsec)") == 3
    for ax in figure.axes:  # pixels are square
        box = ax.get_window_extent()
        assert box.width / box.height == pytest.approx(shape[1] / shape[0], rel=1e-6)


def test_image_fit_shows_what_was_compared():
    data, model = an_image()
    error = np.full(data.shape, 0.05)
    error[0, 0] = 0.0
    figure = image_fit_figure(data, model, error=error, pixel=0.2)
    left, middle, right = (ax.images[0] for ax in figure.axes)
    assert left.norm is middle.norm
    assert left.get_extent() == [-6.0, 6.0, -5.0, 5.0]
    np.testing.assert_array_equal(np.ma.getmaskarray(left.get_array()), np.isnan(data))
    shown = right.get_array()
    assert shown.mask[0, 0]
    np.testing.assert_allclose(shown[10:, :], (data - model)[10:, :] / 0.05)
    assert right.norm.vmin == -right.norm.vmax
    # the sky is dark, the star bright, and one pixel of noise above the sky is seen
    sky, noise, top = (float(left.norm(value)) for value in (0.05, 0.1, 20.0))
    assert 0.02 < sky < noise - 0.03
    assert noise < 0.5
    assert top > 0.9
    given = image_fit_figure(data, model, np.zeros(data.shape), pixel=0.2)
    assert (given.axes[2].images[0].get_array() == 0).all()


def test_masked_pixels_are_grey_and_hatched():
    data, model = an_image()
    figure = image_fit_figure(data, model)
    ax = figure.axes[0]
    assert ax.patch.get_hatch()
    grey = to_rgba(ax.patch.get_facecolor())
    assert grey[0] == grey[1] == grey[2]
    picture = ax.images[0]
    assert picture.to_rgba(picture.get_array())[6, 12, 3] == 0.0  # seen through


def test_long_texts_make_the_figure_higher():
    data, model = an_image((20, 60))
    assert_readable(image_fit_figure(data, model, text=[(f"name {i}", "1.234 ± 0.005") for i in range(20)]))


def test_powers_of_ten_go_to_the_unit():
    data, model = an_image()
    figure = image_fit_figure(1e-18 * data, 1e-18 * model, unit="erg/s/cm2/Angstrom")
    assert_readable(figure)
    labels = [text for text, _ in drawn_texts(figure) if "erg" in text]
    assert labels[0].startswith("$10^{-17}$")
    assert labels[1].startswith("$10^{-19}$")


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.0])
def test_an_image_of_nothing_is_drawn(value):
    plane = np.full((8, 9), value)
    assert_readable(image_fit_figure(plane, plane, error=plane, title="nothing"))


def test_star_profiles():
    figure = star_profile_figure(
        a_star(title="MUSE F606W"), a_star(5000, error=None), title="star at 53.1623, −27.7802", unit=UNIT
    )
    assert_readable(figure)
    assert len(figure.axes) == 4
    texts = [text for text, _ in drawn_texts(figure)]
    assert {"MUSE F606W", "HST", "residual (sigma)", "residual"} <= set(texts)
    star = a_star()
    points, curve = figure.axes[0].lines
    np.testing.assert_array_equal(points.get_ydata(), star.values)
    np.testing.assert_array_equal(curve.get_ydata(), np.sort(star.model)[::-1])
    residual = figure.axes[1].lines[1].get_ydata()
    np.testing.assert_allclose(residual, (star.values - star.model) / 0.05)


def test_star_profile_with_its_own_curve_and_masked_pixels():
    star = a_star()
    values, at = np.array(star.values), np.linspace(0, 3, 50)
    values[::7] = np.nan
    masked = StarProfile(star.radius, values, star.model, star.error, at, np.exp(-at))
    figure = star_profile_figure(masked, masked)
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), np.exp(-at))
    assert_readable(figure)
    with pytest.raises(DataError, match="model must have 400 values"):
        star_profile_figure(star, StarProfile(star.radius, star.values, np.ones(3)))


@pytest.mark.parametrize("repeat", [1, 6])
def test_fwhm_against_wavelength(repeat):
    rng = np.random.default_rng(1)
    at = np.repeat(BANDS, repeat)
    fwhm = 0.857 - 3.68e-5 * at + rng.normal(0, 0.004, at.size)
    covariance = np.linalg.inv(np.array([[1.0, 7700.0], [7700.0, 7700.0**2 + 1200.0**2]]) * at.size / 0.004**2)
    figure = fwhm_wavelength_figure(
        at, fwhm, np.full(at.size, 0.004), list(np.repeat(NAMES, repeat)), line=(0.857, -3.68e-5), line_covariance=covariance
    )
    assert_readable(figure)
    texts = [text for text, _ in drawn_texts(figure)]
    assert [texts.count(name) for name in NAMES] == [1, 1, 1, 1]
    assert any("0.857″ − 3.68 × $10^{-5}$" in text for text in texts)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    middle = np.abs(band[:, 0] - 7700.0).argsort()[:2]
    half = np.ptp(band[middle, 1]) / 2
    assert half == pytest.approx(0.004 / np.sqrt(at.size), rel=0.05)


def test_names_of_close_bands_do_not_collide():
    figure = fwhm_wavelength_figure([6000.0, 6020.0, 6040.0, 9000.0], [0.7, 0.69, 0.71, 0.6], labels=["F606W", "F602W", "R", "z"])
    assert_readable(figure)


def test_fits_that_failed_are_left_out():
    figure = fwhm_wavelength_figure(BANDS, [0.6, np.nan, 0.5, 0.55], [0.01, np.nan, np.nan, 0.01], NAMES)
    assert "F775W" not in [text for text, _ in drawn_texts(figure)]
    assert_readable(fwhm_wavelength_figure([7000.0], [0.6]))
    with pytest.raises(DataError, match="finite value"):
        fwhm_wavelength_figure([7000.0], [np.nan])


def test_shapes_are_checked():
    data, model = an_image()
    with pytest.raises(DataError, match="model must have the shape"):
        image_fit_figure(data, model[:-1])
    with pytest.raises(DataError, match="data must have two axes"):
        image_fit_figure(data[0], model[0])
    with pytest.raises(DataError, match="error must have the shape"):
        image_fit_figure(data, model, error=np.ones(3))
    with pytest.raises(DataError, match="labels must be as many"):
        fwhm_wavelength_figure(BANDS, [0.6, 0.5, 0.4, 0.3], labels=["a"])
    with pytest.raises(DataError, match="fwhm_error must have 4"):
        fwhm_wavelength_figure(BANDS, [0.6, 0.5, 0.4, 0.3], [0.1])
