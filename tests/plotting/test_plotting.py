"""Figures: what is drawn, where NaN and masks go, and that nothing needs pyplot or a display."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from astropy.wcs import WCS
from matplotlib.colors import AsinhNorm, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure

from ifujax import plotting
from ifujax.errors import DataError, UsageError
from ifujax.plotting.maps import color_scale
from ifujax.plotting.style import MASKED_COLOR, unit_text

RNG = np.random.default_rng(3)


def a_panel(n=120, **changes):
    wavelength = np.linspace(6500.0, 6620.0, n)
    line = 8 * np.exp(-0.5 * ((wavelength - 6563) / 3) ** 2)
    data = 2 + line + RNG.normal(size=n)
    options = {
        "error": np.ones(n),
        "model": 2 + line,
        "continuum": np.full(n, 2.0),
        "components": {"ha": line},
        "title": "x = 1, y = 2",
        "unit": "10**(-20)*erg/s/cm**2/Angstrom",
        "labels": {"H$\\alpha$": 6562.8, "elsewhere": 5000.0},
    }
    return plotting.SpectrumPanel(wavelength, data, **(options | changes))


def draw(panel):
    return plotting.plot_spectrum(
        panel.wavelength,
        panel.data,
        panel.error,
        panel.model,
        panel.continuum,
        panel.components,
        panel.bad,
        title=panel.title,
        unit=panel.unit,
        labels=panel.labels,
    )


def texts(ax):
    return [item.get_text() for item in ax.texts]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("", ""),
        ("km/s", "km s$^{-1}$"),
        ("10**(-20)*erg/s/cm**2/Angstrom", "$10^{-20}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$"),
        ("1e-15 erg / (s cm2 Angstrom)", "$10^{-15}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$"),
        ("not a unit", "not a unit"),
    ],
)
def test_units_are_typeset_and_unknown_ones_kept(unit, text):
    assert unit_text(unit) == text


def test_tiny_fluxes_have_their_power_of_ten_in_the_label():
    panel = a_panel(unit="erg/s/cm**2/Angstrom")
    names = ("data", "error", "model", "continuum")
    tiny = {name: 1e-17 * np.asarray(getattr(panel, name)) for name in names}
    ax = plotting.plot_spectrum(panel.wavelength, **tiny, unit=panel.unit).axes[0]
    ax.figure.canvas.draw()
    assert "10^{-16}" in ax.get_ylabel()
    assert ax.yaxis.get_offset_text().get_text() == ""
    figure = plotting.plot_map(1e-17 * RNG.uniform(1, 2, (5, 5)), unit="erg/s/cm**2")
    assert "10^{-17}" in figure.axes[0].child_axes[0].get_ylabel()


def test_spectrum_has_labels_and_a_residual_panel():
    figure = draw(a_panel())
    assert isinstance(figure, Figure)
    ax, residual = figure.axes
    assert "rest wavelength" in residual.get_xlabel()
    assert "sigma" in residual.get_ylabel()
    assert "erg" in ax.get_ylabel()
    assert ax.get_title(loc="left") == "x = 1, y = 2"
    assert {item.get_text() for item in ax.get_legend().get_texts()} == {"data", "ha", "continuum", "model"}
    assert texts(ax) == ["H$\\alpha$"]  # a label outside the range isn't drawn
    low, high = residual.get_ylim()
    assert low == -high
    assert high >= 3.2


def test_spectrum_without_error_or_model():
    figure = draw(a_panel(error=None))
    assert figure.axes[1].get_ylabel() == "residual"
    assert len(draw(a_panel(model=None)).axes) == 1


def test_bad_pixels_neither_set_the_scale_nor_have_residuals(tmp_path):
    panel = a_panel()
    data = np.array(panel.data)
    data[10], data[50:53] = 1e6, np.nan
    error = np.ones(data.size)
    error[20] = 0.0
    bad = ~np.isfinite(data)
    bad[10] = True
    figure = draw(plotting.SpectrumPanel(panel.wavelength, data, error, panel.model, bad=bad))
    ax, residual = figure.axes
    assert ax.get_ylim()[1] < 100
    drawn = residual.lines[1].get_ydata()
    assert np.isnan(drawn[[10, 20, 50, 51, 52]]).all()
    assert np.isfinite(drawn[:10]).all()
    assert len(ax.patches) == 2  # two runs are shaded
    figure.savefig(tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 5000


def test_all_nan_spectrum_is_drawn():
    nan = np.full(20, np.nan)
    figure = plotting.plot_spectrum(np.arange(20.0), nan, nan, nan, nan, {"a": nan}, np.ones(20, dtype=bool), labels={"a": 3.0})
    figure.canvas.draw()


def test_shapes_of_a_spectrum_are_checked():
    with pytest.raises(DataError, match="model must have the shape"):
        plotting.plot_spectrum(np.arange(5.0), np.ones(5), model=np.ones(4))
    with pytest.raises(DataError, match="component 'a'"):
        plotting.plot_spectrum(np.arange(5.0), np.ones(5), components={"a": np.ones(4)})


def test_colour_scales():
    name, norm = color_scale(RNG.normal(30.0, 50.0, 1000), "velocity")
    assert name == "RdBu_r"
    assert abs(0.5 * (norm.vmin + norm.vmax) - 30) < 10
    values = np.exp(RNG.normal(size=1000) * 2)
    assert isinstance(color_scale(values, "flux")[1], LogNorm)
    assert isinstance(color_scale(values - 1.0, "flux")[1], AsinhNorm)
    assert type(color_scale(RNG.uniform(50, 80, 100), "dispersion")[1]) is Normalize
    for kind in ("flux", "velocity", "dispersion", "snr"):
        for values in (np.full(5, np.nan), np.zeros(5), np.full(5, 3.0)):
            norm = color_scale(values, kind)[1]
            assert norm.vmin < norm.vmax


def test_masked_and_nan_spaxels_are_grey():
    values = RNG.normal(size=(8, 10))
    values[2, 3] = np.nan
    mask = np.zeros((8, 10), dtype=bool)
    mask[5, 5] = True
    figure = plotting.plot_map(values, "velocity", "km/s", "velocity", mask=mask, markers=[(1, 1), (7, 9)])
    ax = figure.axes[0]
    picture = ax.images[0]
    rgba = picture.to_rgba(picture.get_array())
    for y, x in ((2, 3), (5, 5)):
        np.testing.assert_allclose(rgba[y, x], to_rgba(MASKED_COLOR))
    assert {"a", "b"} <= set(texts(ax))
    assert ax.get_title() == "velocity"
    bars = [child.get_ylabel() for child in ax.child_axes]
    assert "km s$^{-1}$" in bars


def test_status_legend_counts():
    status = np.zeros((6, 7))
    status[0, :3], status[1, 1] = 1, 5
    status[5, 5] = np.nan
    ax = plotting.plot_map(status, "status", kind="status", names={1: "no data"}).axes[0]
    labels = [item.get_text() for item in ax.get_legend().get_texts()]
    assert labels == ["usable (37)", "no data (3)", "status 5 (1)", "not shown (1)"]


@pytest.mark.parametrize("kind", ["flux", "velocity", "dispersion", "snr", "status"])
def test_a_map_of_nothing_is_drawn(kind):
    plotting.plot_map(np.full((4, 5), np.nan), "empty", "km/s", kind).canvas.draw()


def test_north_and_east_follow_the_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [63.0, 10.0], [5, 5], [-5e-5, 5e-5]
    ax = plotting.plot_map(np.ones((20, 20)), wcs=wcs).axes[0]
    places = {item.get_text(): item.get_position() for item in ax.texts if item.get_text() in ("N", "E")}
    assert places["N"][1] > places["E"][1]
    assert places["E"][0] < places["N"][0]


def test_map_arguments_are_checked():
    with pytest.raises(UsageError, match="Did you mean 'velocity'"):
        plotting.plot_map(np.ones((2, 2)), kind="velocty")
    with pytest.raises(DataError, match="2-D"):
        plotting.plot_map(np.ones(3))
    with pytest.raises(DataError, match="mask must have the shape"):
        plotting.plot_map(np.ones((2, 2)), mask=np.ones(2))


def a_page(shape=(12, 15), n_maps=5):
    kinds = ["flux", "velocity", "dispersion", "snr", "status"]
    values = [np.exp(RNG.normal(size=shape)), RNG.normal(size=shape), RNG.uniform(50, 90, shape), RNG.uniform(1, 50, shape)]
    values.append(np.zeros(shape))
    maps = [plotting.MapPanel(values[i % 5], kinds[i % 5], "km/s", kinds[i % 5]) for i in range(n_maps)]
    return plotting.fit_page(
        maps, [a_panel(), a_panel(), a_panel()], "A title", "A caption. " * 30, markers=[(1, 1), (5, 6), (11, 14)]
    )


@pytest.mark.parametrize(("shape", "n_maps"), [((12, 15), 5), ((4, 30), 3), ((40, 8), 7)])
def test_page_panels_do_not_overlap(tmp_path, shape, n_maps):
    figure = a_page(shape, n_maps)
    path = tmp_path / "page.png"
    figure.savefig(path, dpi=60)
    assert path.stat().st_size > 10000
    assert len(figure.axes) == n_maps + 6
    boxes = [ax.get_position() for ax in figure.axes]
    for i, one in enumerate(boxes):
        assert one.x0 >= 0
        assert one.y0 >= 0
        assert one.x1 <= 1
        assert one.y1 <= 1
        for other in boxes[i + 1 :]:
            assert (
                one.x1 <= other.x0 + 1e-9 or other.x1 <= one.x0 + 1e-9 or one.y1 <= other.y0 + 1e-9 or other.y1 <= one.y0 + 1e-9
            )


def test_page_marks_spaxels_on_maps_but_not_on_the_status():
    figure = a_page()
    assert {"a", "b", "c"} <= set(texts(figure.axes[0]))
    assert texts(figure.axes[4]) == []
    assert "a" in texts(figure.axes[5])
    with pytest.raises(UsageError, match="at least one panel"):
        plotting.fit_page([], [])


def test_pyplot_is_never_imported():
    code = "import sys; import ifujax.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_notebook_shows_the_figures():
    for figure in (a_page(), plotting.plot_map(np.arange(6.0).reshape(2, 3), "map")):
        assert figure._repr_png_().startswith(b"\x89PNG")
