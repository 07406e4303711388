"""Figures of a posterior: which parameters and spaxels they show, and models that are those of the draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import ifujax
from ifujax import simulate
from ifujax.errors import UsageError
from ifujax.inference.status import UNEVEN_WEIGHTS
from ifujax.lines.config import EmissionModel, Line
from ifujax.lines.posteriors.figures import (
    MOST,
    models_of_draws,
    page_figure,
    pair_figure,
    percentile_figure,
    predictive_figure,
    tiers_figure,
)
from ifujax.lines.posteriors.results import CubePosterior
from ifujax.lines.posteriors.sampled import Layout, Sampled
from ifujax.lines.posteriors.selection import Chosen
from ifujax.lines.results import CubeFit
from ifujax.lines.run import as_config, fit_cube
from tests.lines.posteriors.made_up import NAN, a_fit, a_posterior
from tests.plotting.test_posterior_plots import drawn_texts, outside, overlaps

X, Y = 5, 4


def texts(figure: Figure) -> list[str]:
    return [text for text, _ in drawn_texts(figure)]


def at_the_fit(fit: CubeFit) -> CubePosterior:
    """Return a posterior whose draws are all the fit itself, without scatter."""
    chosen = Chosen.of(fit, None)
    model, chains, draws = fit.setup.model, 2, 3
    layout = Layout.of(model, (), (), chains, draws)
    shape = (len(chosen.rows), chains, draws)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None, None], shape + values.shape[1:]).copy()

    named = {name: np.full((*shape, len(fit.lines)), np.nan) for name in layout.quantities}
    solution = dict(zip(model.parameter_names, fit.found.solution.T))
    for i, line in enumerate(fit.lines):
        for role in model.parameters(i):
            named[role][..., i] = spread(solution[f"{line}.{role}"][chosen.rows])
    if model.n_continuum:
        named["continuum"] = spread(fit.found.linear[chosen.rows])
    known = {name: np.ones(len(chosen.rows)) for name in ("khat", "ess", "rhat", "ess_bulk", "ess_tail")}
    known |= {name: np.ones(len(chosen.rows), int) for name in ("tier", "divergences", "status")}
    return replace(a_posterior(), fit=fit, layout=layout, chosen=chosen, sampled=Sampled(named, {}, known))


def a_model(degree: int | None = 2, shape: str = "gaussian") -> EmissionModel:
    kin = ifujax.Kinematics(ifujax.Bounded(-400, 400, start=0), ifujax.Bounded(20, 400, start=80))
    lines = [Line("ha", 6562.80, kin, shape=shape), Line("n2b", 6583.46, kin)]
    return EmissionModel(lines, continuum_degree=degree)


@pytest.mark.parametrize(
    "kind", ["joint", "rejection", "given", "stellar", pytest.param("gauss_hermite", marks=pytest.mark.slow)]
)
def test_models_are_those_of_the_fit_where_the_draws_are_the_fit(kind):
    post = at_the_fit(a_fit() if kind == "joint" else a_fit_of(kind))
    fit = post.fit
    for x, y in ((0, 0), (2, 1)):
        found = models_of_draws(post, x, y)
        assert found.shape == (6, fit.cube.shape[0])
        expected = fit.spectra(np.array([y * fit.shape[1] + x])).model[0]
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-10, atol=1e-10)
    panel_models = predictive_figure(post, 0, 0).axes[0]
    assert panel_models.get_legend() is not None


def a_fit_of(kind: str) -> CubeFit:
    disc = simulate.cube((2, 3), scale_radius=4.0, seed=2)
    cube, options = disc.cube, {}
    model = a_model(None if kind == "given" else 2, "gauss_hermite" if kind == "gauss_hermite" else "gaussian")
    config = as_config(model)
    if kind == "rejection":
        config = replace(config, continuum=replace(config.continuum, mode="rejection"))
    if kind == "given":
        options["continuum"] = np.full_like(cube.values, 3.0)
    if kind == "stellar":
        cube = replace(cube, stellar=np.full_like(cube.values, 1.5))
    return fit_cube(cube, config, window=(6480, 6660), **options)


def test_models_of_some_draws():
    post = a_posterior()
    assert models_of_draws(post, X, Y, 7).shape[0] == 7
    every = models_of_draws(post, X, Y)
    assert every.shape[0] == 400
    peak = int(np.argmax(np.median(every, axis=0)))
    scatter = np.std(every[:, peak])
    assert scatter > 0.5 * np.std(post.draws("ha", "amplitude", X, Y))


def test_pairs_show_free_parameters_and_no_tied_ones():
    figure = pair_figure(a_posterior(), X, Y)
    shown = {text.split("\n")[0] for text in texts(figure) if "\n" in text}
    # [N II] 6548 is tied to 6583, and its kinematics to those of H-alpha
    assert shown == {"ha flux", "n2b flux", "ha velocity", "ha dispersion"}
    assert len(figure.axes) == 10
    assert overlaps(figure) == []
    assert outside(figure) == []
    assert "effective sample size" in " ".join(figure.get_suptitle().split())


@pytest.mark.slow
def test_at_most_eight_parameters_those_of_bright_lines():
    disc = simulate.cube((2, 2), scale_radius=4.0, seed=2)
    wide = [ifujax.Kinematics(ifujax.Bounded(-400, 400, start=0), ifujax.Bounded(20, 400, start=80)) for _ in range(4)]
    lines = [Line(name, at, kin) for name, at, kin in zip("abcd", (6548.04, 6562.80, 6583.46, 6630.0), wide)]
    post = at_the_fit(fit_cube(disc.cube, EmissionModel(lines, continuum_degree=1), window=(6480, 6660)))
    rng = np.random.default_rng(3)
    draws = {name: values + rng.normal(size=values.shape) for name, values in post.sampled.draws.items()}
    draws["flux"] = rng.normal([30.0, 50.0, 40.0, 1.0], 1.0, draws["flux"].shape)
    figure = pair_figure(replace(post, sampled=replace(post.sampled, draws=draws)), 0, 0)
    assert len(figure.axes) == MOST * (MOST + 1) // 2
    shown = {text.split("\n")[0] for text in texts(figure) if "\n" in text}
    assert shown == {f"{line} {name}" for line in "abc" for name in ("flux", "velocity", "dispersion")} - {"a dispersion"}
    assert "most significant lines" in " ".join(figure.get_suptitle().split())
    assert overlaps(figure) == []


def test_pairs_of_chosen_parameters():
    figure = pair_figure(a_posterior(), X, Y, [("n2b/ha", "ratio"), ("ha", "velocity_width"), ("0", "continuum")])
    shown = texts(figure)
    for label in ("log n2b/ha\n(dex)", "ha width\n(km s$^{-1}$)"):
        assert label in shown
    assert len(figure.axes) == 6
    with pytest.raises(UsageError, match="unknown line"):
        pair_figure(a_posterior(), X, Y, [("hb", "flux")])


@pytest.mark.parametrize("draw", [pair_figure, predictive_figure])
def test_spaxels_without_draws(draw):
    post = a_posterior()
    with pytest.raises(UsageError, match="no fit to start from"):
        draw(post, NAN[1], NAN[0])
    with pytest.raises(UsageError, match="x=3, y=8: .*not asked for"):
        draw(post, 3, 8)
    y, x = np.argwhere((post.status & 2) > 0)[0]
    with pytest.raises(UsageError, match="not finite where the fit is"):
        draw(post, x, y)


def test_doubtful_draws_are_shown_and_named():
    post = a_posterior()
    y, x = np.argwhere((post.status & UNEVEN_WEIGHTS.value) > 0)[0]
    assert "(uneven weights, few effective)" in predictive_figure(post, x, y).axes[0].get_title(loc="left")


def test_predictive_figure():
    figure = predictive_figure(a_posterior(), X, Y)
    assert overlaps(figure) == []
    assert outside(figure) == []
    assert figure.axes[0].get_title(loc="left").startswith(f"x = {X}, y = {Y}: ")


def test_percentiles():
    post = a_posterior()
    figure = percentile_figure(post, "ha", "flux")
    for ax, q in zip(figure.axes, (0.16, 0.5, 0.84)):
        shown = ax.images[0].get_array()
        np.testing.assert_allclose(shown.filled(np.nan), post.quantile("ha", "flux", q))
    assert figure.axes[3].get_ylabel().startswith("$10^{-20}$ erg")
    assert overlaps(figure) == []


def test_kinematics_are_shown_of_detected_lines_only():
    post = a_posterior()
    figure = percentile_figure(post, "n2b", "velocity")
    hidden = figure.axes[0].images[0].get_array().mask
    np.testing.assert_array_equal(hidden, ~post.detected("n2b"))
    assert "n2b velocity, where the line is detected" in texts(figure)
    others = percentile_figure(post, "n2b/ha", "ratio")
    assert "log n2b/ha" in texts(others)
    with pytest.raises(UsageError, match="unknown quantity"):
        percentile_figure(post, "ha", "fluxes")


def test_tiers():
    post = a_posterior()
    figure = tiers_figure(post)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    count = {k: int((post.tier == k).sum()) for k in (1, 2)}
    assert legend[:2] == [f"importance sampling ({count[1]})", f"NUTS ({count[2]})"]
    assert [ax.get_title().split(" (")[0] for ax in figure.axes][2:] == ["Pareto k-hat", "effective sample size", "R-hat"]
    assert f"Pareto k-hat ({count[2]} not below 0.7)" in texts(figure)
    assert overlaps(figure) == []
    assert outside(figure) == []


def test_page():
    figure = page_figure(a_posterior())
    shown = texts(figure)
    assert "cube: posterior of ha" in shown
    for title in ("ha flux", "ha velocity, where the line is detected", "what made the draws"):
        assert title in shown
    assert overlaps(figure) == []
    assert outside(figure) == []
    assert any("posterior of n2b" in text for text in texts(page_figure(a_posterior(), "n2b")))


def test_maps_of_a_small_region_show_it_alone():
    post = a_posterior()
    asked = np.zeros(post.shape, bool)
    asked[1, 7] = True  # with the margin 20 of 99 spaxels: it ends at the edge
    post = replace(post, chosen=replace(post.chosen, index=np.where(asked.ravel(), post.chosen.index, -1), asked=asked.ravel()))
    for figure in (page_figure(post), percentile_figure(post, "ha", "flux"), tiers_figure(post)):
        maps = [ax for ax in figure.axes if ax.get_xlabel() == "x (spaxels)"]
        assert len(maps) > 2
        assert {(ax.get_xlim(), ax.get_ylim()) for ax in maps} == {((4.5, 9.5), (-0.5, 3.5))}
        assert overlaps(figure) == []
        assert outside(figure) == []
        # north and east are within what is shown
        arrows = [text for text in maps[0].texts if text.get_text() in "NE" and text.get_text()]
        assert len(arrows) == 2
        assert all(4.5 < text.get_position()[0] < 9.5 and -0.5 < text.get_position()[1] < 3.5 for text in arrows)
    caption = " ".join(texts(page_figure(post)))
    assert "11 x 9 spaxels, that was sampled" in caption
    assert "draws of 1 spaxel (seed" in " ".join(caption.split())
    assert "1 spaxels" not in caption
    assert "not asked for (98)" in texts(tiers_figure(post))


def test_page_of_a_spectrum_shows_the_models():
    disc = simulate.cube((1, 1), seed=2)
    config = as_config(a_model())
    # Of guesses: that is quick to compile, and the page is no different.
    post = at_the_fit(fit_cube(disc.cube, replace(config, fit=replace(config.fit, fixed=True)), window=(6480, 6660)))
    assert len(page_figure(post).axes) == 2
    none = replace(post.sampled, diagnostics=post.sampled.diagnostics | {"tier": np.zeros(1, int)})
    assert len(page_figure(replace(post, sampled=none)).axes) == 2
