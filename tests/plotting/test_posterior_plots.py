"""Figures of posteriors: what is drawn, that one scale serves all maps, and that no text lies on another."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ifujax.errors import DataError, UsageError
from ifujax.plotting import MapPanel, SpectrumPanel
from ifujax.plotting.posterior import plot_pairs, plot_predictive
from ifujax.plotting.posterior_maps import PercentilePanel, TierPanel, plot_percentiles, plot_tiers, posterior_page

FLUX = "10**-20 erg s-1 cm-2"
NAMES = ("ha flux", "n2b flux", "ha velocity", "ha dispersion", "ha $h_3$", "ha $h_4$", "continuum 0", "hb_broad velocity")
UNITS = (FLUX, FLUX, "km/s", "km/s", "", "", "erg s-1 cm-2 Angstrom-1", "km/s")


def some_draws(k, n=400):
    """Return correlated draws of `k` parameters of very different size, one at a bound, one skewed."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(n, 8)) @ np.linalg.cholesky(0.5 + 0.5 * np.eye(8)).T
    columns = [737 + 100 * z[:, 0], np.abs(40 * z[:, 1]), 149 + 13 * z[:, 2], 100 * np.exp(0.5 * z[:, 3])]
    columns += [0.03 + 0.02 * z[:, 4], 0.02 * z[:, 5] - 0.01, 1e-17 * (50 + z[:, 6]), 34 * z[:, 7] - 12345]
    return np.stack(columns[:k], axis=1)


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return every text that is seen, and where."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()  # labels of ticks beyond the ends of an axis exist, but are not drawn
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.majorTicks, *axis.minorTicks]:
            if not low - 1e-9 * (high - low) <= tick.get_loc() <= high + 1e-9 * (high - low):
                unseen |= {tick.label1, tick.label2}
    texts = [each for each in figure.findobj(Text) if each not in unseen and each.get_visible() and each.get_text().strip()]
    boxes = [(each.get_text(), each.get_window_extent(canvas.get_renderer())) for each in texts]
    return [(text, box) for text, box in boxes if box.width]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return pairs of texts that are drawn on each other."""
    boxes = [(text, box.shrunk(0.97, 0.85)) for text, box in drawn_texts(figure)]
    return [(one, two) for i, (one, a) in enumerate(boxes) for two, b in boxes[i + 1 :] if a.overlaps(b)]


def outside(figure: Figure) -> list[str]:
    """Return the texts that stick out of the figure."""
    edge = figure.bbox.padded(1)
    return [text for text, box in drawn_texts(figure) if not (edge.contains(*box.min) and edge.contains(*box.max))]


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_pairs(k):
    title = "x = 12, y = 8: importance sampling, k-hat 0.21, 612 effective draws"
    figure = plot_pairs(some_draws(k), NAMES[:k], UNITS[:k], title=title)
    assert len(figure.axes) == k * (k + 1) // 2
    assert overlaps(figure) == []
    assert outside(figure) == []
    above = [text for text, _ in drawn_texts(figure) if text.startswith("ha flux\n$")]
    low, middle, high = np.quantile(some_draws(k)[:, 0], [0.16, 0.5, 0.84])
    assert above == [
        f"ha flux\n${middle:.0f}^{{+{high - middle:.0f}}}_{{-{middle - low:.0f}}}$\n$10^{{-20}}$ erg s$^{{-1}}$ cm$^{{-2}}$"
    ]
    assert " ".join(figure.get_suptitle().split()) == title


def test_long_names_are_broken():
    figure = plot_pairs(some_draws(3), ["[NII]_6583 broad component flux"] * 3, UNITS[:3])
    assert overlaps(figure) == []
    assert outside(figure) == []


def test_powers_of_ten_go_to_the_unit():
    texts = [text for text, _ in drawn_texts(plot_pairs(some_draws(8)[:, 6:7], NAMES[6:7], UNITS[6:7]))]
    assert any("\n$5.00" in text and "$10^{-16}$ erg" in text for text in texts)
    assert not any("1e" in text for text in texts)


def test_contours_hold_their_share_of_the_draws():
    draws = some_draws(2, 20000)
    figure = plot_pairs(draws, NAMES[:2])
    contour = figure.axes[1].collections[0]
    shares = [np.mean(path.contains_points(draws)) for path in contour.get_paths()]
    # the distribution ends at 0: the line of 95 % is open there, and closed by the panel's edge
    assert shares[-1] == pytest.approx(0.68, abs=0.01)


def test_draws_without_a_value_are_left_out():
    draws = some_draws(2)
    draws[::3, 1] = np.nan
    figure = plot_pairs(draws, NAMES[:2])
    assert len(figure.axes[1].lines[0].get_xdata()) == np.isfinite(draws[:, 1]).sum()
    draws[:, 1] = np.nan
    with pytest.raises(DataError, match="fewer of 'n2b flux'"):
        plot_pairs(draws, NAMES[:2])


def test_a_constant_parameter_is_drawn():
    draws = some_draws(2)
    draws[:, 1] = 3.0
    assert overlaps(plot_pairs(draws, NAMES[:2])) == []


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 2, 1)])
def test_pairs_of_a_wrong_shape(shape):
    with pytest.raises(DataError, match="shape"):
        plot_pairs(np.zeros(shape), ["a", "b"])


def test_pairs_need_as_many_names():
    with pytest.raises(UsageError, match="as many as parameters, 2; got 1 and 2"):
        plot_pairs(some_draws(2), ["a"])


def a_panel(n=150, **changes):
    rng = np.random.default_rng(4)
    wavelength = np.linspace(6500.0, 6620.0, n)
    models = 2 + rng.normal(8, 0.5, (300, 1)) * np.exp(-0.5 * ((wavelength - 6563) / 3) ** 2)
    options = {"error": np.ones(n), "title": "x = 1, y = 2", "unit": FLUX + " Angstrom-1", "labels": {"ha": 6562.8}} | changes
    return SpectrumPanel(wavelength, models[0] + rng.normal(size=n), **options), models


def test_models_over_data():
    panel, models = a_panel(bad=np.arange(150) > 140)
    figure = plot_predictive(panel, models, shown=5)
    ax, residual = figure.axes
    assert overlaps(figure) == []
    assert outside(figure) == []
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["model"].get_ydata(), np.median(models, axis=0))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["data", "median model", "95 % of models", "68 % of models", "draws"]
    drawn = [line for line in ax.lines if line.get_alpha() == 0.6]
    assert len(drawn) == 5
    np.testing.assert_allclose(drawn[0].get_ydata(), models[0])
    bands = {each.get_label(): each for each in ax.collections if "models" in str(each.get_label())}
    peak = int(np.argmax(models[0]))
    for label, tail in (("95 % of models", 0.025), ("68 % of models", 0.16)):
        vertices = bands[label].get_paths()[0].vertices
        heights = vertices[np.isclose(vertices[:, 0], np.asarray(panel.wavelength)[peak]), 1]
        np.testing.assert_allclose([heights.min(), heights.max()], np.quantile(models[:, peak], [tail, 1 - tail]))
    shown = residual.lines[1].get_ydata()
    assert np.isnan(shown[141:]).all()
    np.testing.assert_allclose(shown[:141], (np.asarray(panel.data) - np.median(models, axis=0))[:141])


def test_tiny_models_have_their_power_of_ten_in_the_label():
    panel, models = a_panel()
    tiny = SpectrumPanel(panel.wavelength, 1e-17 * np.asarray(panel.data), 1e-17 * np.ones(150), unit="erg s-1 cm-2 Angstrom-1")
    ax = plot_predictive(tiny, 1e-17 * models).axes[0]
    assert "10^{-16}" in ax.get_ylabel()
    assert ax.get_ylim()[1] < 10


def test_models_without_an_error():
    panel, models = a_panel(error=None)
    assert plot_predictive(panel, models).axes[1].get_ylabel() == "residual"


@pytest.mark.parametrize("wrong", [np.zeros((3, 149)), np.zeros(150), np.zeros((0, 150)), np.full((3, 150), np.nan)])
def test_models_of_a_wrong_shape(wrong):
    with pytest.raises(DataError, match=r"shape \(draws, 150\)"):
        plot_predictive(a_panel()[0], wrong)


def three_maps(shape=(9, 12), scale=1.0, middle=100.0):
    rng = np.random.default_rng(6)
    maps = scale * np.sort(rng.normal(middle, 30.0, (3, *shape)), axis=0)
    maps[:, 1, 2] = np.nan
    return maps


def test_percentiles_have_one_scale_and_one_bar():
    mask = np.zeros((9, 12), bool)
    mask[0, 0] = True
    figure = plot_percentiles(PercentilePanel(three_maps(), title="ha velocity", unit="km/s", kind="velocity", mask=mask))
    *maps, bar = figure.axes
    images = [ax.images[0] for ax in maps]
    assert [ax.get_title() for ax in maps] == ["16 %", "50 %", "84 %"]
    assert len({(image.norm.vmin, image.norm.vmax, image.cmap.name) for image in images}) == 1
    for image, values in zip(images, three_maps()):
        shown = image.get_array()
        assert shown.mask[1, 2]
        assert shown.mask[0, 0]
        np.testing.assert_allclose(shown[2:], values[2:])
    assert bar.get_ylabel() == "km s$^{-1}$"
    assert bar.get_ylim() == (images[0].norm.vmin, images[0].norm.vmax)
    assert [ax.child_axes for ax in maps] == [[], [], []]
    assert overlaps(figure) == []


@pytest.mark.parametrize("shape", [(9, 12), (90, 20), (5, 60), (1, 1)])
@pytest.mark.parametrize(("scale", "middle"), [(1.0, 100.0), (1e-18, 20.0), (1.0, 2.0)])
def test_percentiles_of_any_shape_and_size(shape, scale, middle):
    maps = np.resize(three_maps(scale=scale, middle=middle), (3, *shape))
    panel = PercentilePanel(maps, title="ha flux", unit="erg s-1 cm-2", kind="flux")
    figure = plot_percentiles(panel, wcs=WCS(naxis=2))
    assert overlaps(figure) == []
    assert outside(figure) == []
    label = figure.axes[-1].get_ylabel()
    assert "erg s" in label
    assert ("10^{-" in label) == (scale < 1)


def test_percentiles_of_nothing():
    figure = plot_percentiles(PercentilePanel(np.full((3, 4, 4), np.nan), title="nothing"))
    assert all(ax.images[0].get_array().mask.all() for ax in figure.axes[:3])
    drawn_texts(figure)


def test_wrong_percentiles():
    with pytest.raises(DataError, match=r"\(percentiles, y, x\)"):
        plot_percentiles(PercentilePanel(np.zeros((4, 4))))
    with pytest.raises(UsageError, match="labels must be as many as maps, 2"):
        plot_percentiles(PercentilePanel(np.zeros((2, 4, 4))))
    with pytest.raises(DataError, match="mask"):
        plot_percentiles(PercentilePanel(np.zeros((3, 4, 4)), mask=np.zeros((3, 4), bool)))
    with pytest.raises(UsageError, match="empty"):
        posterior_page([])


def some_tiers(shape=(9, 12)):
    rng = np.random.default_rng(7)
    tier = rng.integers(0, 3, shape)
    mask = np.zeros(shape, bool)
    mask[-2:] = True
    khat = np.where(tier == 1, rng.random(shape), np.nan)
    names = {0: "trustworthy", 1: "no fit", 12: "uneven weights,\nfew effective"}
    others = [
        MapPanel(rng.choice([0, 1, 12], shape), "can they be trusted?", kind="status", mask=mask, names=names),
        MapPanel(khat, "Pareto k-hat (12 not below 0.7)", kind="dispersion"),
        MapPanel(400 + khat, "effective sample size", kind="snr"),
        MapPanel(1 + 0.01 * khat, "R-hat (0 above 1.01)", kind="dispersion"),
    ]
    return TierPanel(tier, mask, others)


def test_tiers_are_counted_and_named():
    panel = some_tiers()
    figure = plot_tiers(panel)
    assert overlaps(figure) == []
    assert outside(figure) == []
    counts = [int(((panel.tier == value) & ~panel.mask).sum()) for value in (1, 2, 0)]
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    names = ("importance sampling", "NUTS", "no draws", "not asked for")
    assert legend == [f"{name} ({count})" for name, count in zip(names, [*counts, 24])]
    image = figure.axes[0].images[0]
    colors = {int(value): tuple(image.cmap(image.norm(k))) for k, value in enumerate((1, 2, 0))}
    assert len(set(colors.values())) == 3
    y, x = np.argwhere((panel.tier == 2) & ~panel.mask)[0]
    assert tuple(image.cmap(image.norm(image.get_array()[y, x]))) == colors[2]
    assert len(figure.axes) == 5


def test_one_tier_alone():
    legend = plot_tiers(TierPanel(np.full((3, 3), 2))).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["NUTS (9)"]


def test_wrong_tiers():
    with pytest.raises(DataError, match="one shape"):
        plot_tiers(TierPanel(np.zeros((3, 3)), np.zeros((3, 4), bool)))


@pytest.mark.parametrize("shape", [(9, 12), (40, 8), (6, 40)])
def test_page(shape):
    maps = np.resize(three_maps(), (3, *shape))
    rows = [PercentilePanel(maps, title="ha flux", unit=FLUX), PercentilePanel(maps, title="ha velocity", kind="velocity")]
    figure = posterior_page([*rows, some_tiers(shape)], "cube.fits: posterior of ha", "What this shows, in words. " * 12)
    assert len(figure.axes) == 4 + 4 + 5
    assert overlaps(figure) == []
    assert outside(figure) == []
