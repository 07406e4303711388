"""Refit from neighbours: what it changes, what it must not change, and that errors do not run along the rings."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ifujax
from ifujax.data.cube import Cube
from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.io.checkpoint import ChunkStore
from ifujax.lines.config import FitOptions
from ifujax.lines.neighbours.passes import asks_neighbours
from tests.lines.neighbours.fields import Field, field_with_gaps, model_of_one

SIZE = 32
BOUNDS = (1.0, 60.0, 40.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "refit": {"refit": True},
    "bounds": {"refit": True, "bounds_change": BOUNDS},
    "coherence": {"coherence": 4.0},
}


@cache
def field() -> Field:
    return field_with_gaps(SIZE)


def fit_of(cube: Cube, chunk_size: int | None = None, **options: Any) -> ifujax.CubeFit:
    config = model_of_one()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "refit holds", IfujaxWarning)
        return ifujax.fit_cube(cube, replace(config, fit=replace(config.fit, **options)), chunk_size=chunk_size)


@cache
def fits() -> dict[str, ifujax.CubeFit]:
    return {"plain": fit_of(field().cube)} | {name: fit_of(field().cube, **options) for name, options in VARIANTS.items()}


def distance() -> np.ndarray:
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2.0
    return np.round(np.hypot(x, y))


def along_rings(values: np.ndarray, where: np.ndarray) -> tuple[float, int]:
    """Correlation of `values` of spaxels that touch and lie in one ring, and the number of such pairs."""
    ring, pairs = distance(), []
    for one, two in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, 1:], np.s_[:-1, :-1])):
        both = where[one] & where[two] & (ring[one] == ring[two]) & np.isfinite(values[one]) & np.isfinite(values[two])
        pairs.append(np.stack([values[one][both], values[two][both]]))
    first, second = np.concatenate(pairs, axis=1)
    return float(np.corrcoef(first, second)[0, 1]), len(first)


def errors_of(fit: ifujax.CubeFit) -> np.ndarray:
    """Velocity less truth."""
    return fit["ha", "velocity"] - field().truth.truth["ha.velocity"].reshape(SIZE, SIZE)


def detected() -> np.ndarray:
    """Spaxels that are to be right: with a peak at 2.5 times the noise at least, and fitted."""
    bright = field().truth.truth["snr"].reshape(SIZE, SIZE) > 2.5
    return bright & ~field().cube.spatial_mask  # type: ignore[operator]


def deep_gap() -> np.ndarray:
    """Spaxels of the gap that have no neighbour with a line."""
    y, _ = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2.0
    return field().gap & (y > 6.6) & (y < 8.9)


def test_the_statistic_sees_worms() -> None:
    noise = np.random.default_rng(1).uniform(-400, 400, (SIZE, SIZE))
    worms = np.copy(noise)
    for ring in np.unique(distance()):
        y, x = np.nonzero(distance() == ring)
        order = np.argsort(np.arctan2(y - (SIZE - 1) / 2, x - (SIZE - 1) / 2))
        for before, after in pairwise(order):  # as where each starts from the one before it
            worms[y[after], x[after]] = 0.8 * worms[y[before], x[before]] + 0.2 * noise[y[after], x[after]]
    correlation, pairs = along_rings(noise, field().gap)
    assert abs(correlation) < 3.0 / np.sqrt(pairs)
    assert along_rings(worms, field().gap)[0] > 0.5


@pytest.mark.parametrize("name", VARIANTS)
def test_no_worms_in_the_gap(name: str) -> None:
    plain, now = (fits()[each]["ha", "velocity"] for each in ("plain", name))
    before, pairs = along_rings(plain, deep_gap() if name == "bounds" else field().gap)
    after, _ = along_rings(now, deep_gap() if name == "bounds" else field().gap)
    assert after < before + 2.0 / np.sqrt(pairs)
    assert np.array_equal(plain[deep_gap()], now[deep_gap()], equal_nan=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_worms_where_there_are_lines(name: str) -> None:
    before, pairs = along_rings(np.clip(errors_of(fits()["plain"]), -100, 100), detected())
    after, _ = along_rings(np.clip(errors_of(fits()[name]), -100, 100), detected())
    assert after < before + 2.0 / np.sqrt(pairs)


@pytest.mark.parametrize("name", VARIANTS)
def test_not_more_wrong_velocities(name: str) -> None:
    def wrong(fit: ifujax.CubeFit) -> int:
        return int((np.abs(errors_of(fit)) > 5 * fit.error["ha", "velocity"])[detected()].sum())

    assert wrong(fits()[name]) <= wrong(fits()["plain"])


def test_chi2_is_never_higher_without_bounds() -> None:
    plain, now = fits()["plain"], fits()["refit"]
    assert not now.status[~field().cube.spatial_mask].any()  # type: ignore[operator]
    assert np.nanmax(now.chi2 - plain.chi2) <= 0


def test_masked_spaxels_stay_out() -> None:
    masked = field().cube.spatial_mask
    for name in VARIANTS:
        assert (fits()[name].status[masked] == bits.SKIPPED.value).all()
        assert np.isnan(fits()[name]["ha", "velocity"][masked]).all()


def test_bounds_are_narrowed_but_never_beyond_the_declared() -> None:
    plain, now = fits()["plain"], fits()["bounds"]
    velocity, sigma, flux = (now["ha", name] for name in ("velocity", "velocity_dispersion", "flux"))
    assert np.nanmax(np.abs(velocity)) <= 400
    assert np.nanmin(sigma) >= 20
    assert np.nanmax(sigma) <= 300
    assert np.nanmin(flux) >= 0
    moved = np.abs(velocity - plain["ha", "velocity"]) > 1.0
    # Within the bounds' half-width of the truth, give or take that of the neighbours' median.
    assert moved.sum() > 10
    assert (np.abs(errors_of(now))[moved & detected()] < BOUNDS[1] + 20).all()
    higher = now.chi2 > plain.chi2 + 0.01
    assert higher.any()
    assert (now.warn[higher] & bits.AT_BOUND.value > 0).mean() > 0.9  # the others found a minimum between the bounds


def test_held_spaxels_are_told() -> None:
    config = model_of_one()
    with pytest.warns(IfujaxWarning, match=r"refit holds \d+ of 1008 spaxels.*strength of a line"):
        ifujax.fit_cube(field().cube, replace(config, fit=replace(config.fit, refit=True, bounds_change=(0.2, 60.0, 40.0))))


@pytest.mark.parametrize("name", ["bounds", "coherence"])
def test_chunks_do_not_matter(name: str) -> None:
    whole, parts = fits()[name], fit_of(field().cube, chunk_size=63, **VARIANTS[name])
    np.testing.assert_allclose(parts.chi2, whole.chi2, rtol=1e-8, equal_nan=True)
    difference = np.abs(parts["ha", "velocity"] - whole["ha", "velocity"])
    assert np.nanmax(difference / whole.error["ha", "velocity"]) < 1e-3
    again = fit_of(field().cube, **VARIANTS[name])
    assert np.array_equal(again["ha", "velocity"], whole["ha", "velocity"], equal_nan=True)


def test_centre_of_the_rings() -> None:
    """It may change little: the rings' order only says who has been fitted again already."""
    middle = fits()["bounds"]
    for centre in ("peak", "cofm", (3.0, 20.0)):
        other = fit_of(field().cube, **VARIANTS["bounds"], spiral_center=centre)
        agree = np.abs(other["ha", "velocity"] - middle["ha", "velocity"]) < 0.1 * middle.error["ha", "velocity"]
        assert agree[detected()].mean() > 0.95


def test_share_of_the_median_as_bounds() -> None:
    plain, now = fits()["plain"], fit_of(field().cube, refit=True, bound_range=0.1)
    narrowed = (now.warn & bits.AT_BOUND.value != 0) & detected()
    assert narrowed.sum() > 50
    spread = [np.nanstd(fit["ha", "velocity_dispersion"][detected()]) for fit in (plain, now)]
    assert spread[1] < 0.7 * spread[0]


def test_finished_rings_are_found_again(tmp_path: Path) -> None:
    config = model_of_one()
    config = replace(config, fit=replace(config.fit, refit=True, coherence=4.0))
    with ChunkStore.open(tmp_path / "out.fits", {}) as store:
        first = ifujax.fit_cube(field().cube, config, checkpoint=store)
        names = {path.stem for path in store.folder.glob("*.npz")}
    assert {"refit-000000", "coherence-0-0"} <= names
    with ChunkStore.open(tmp_path / "out.fits", {}) as store:
        for name in ("refit-000003", "coherence-0-0"):
            (store.folder / f"{name}.npz").unlink()
        again = ifujax.fit_cube(field().cube, config, checkpoint=store)
    assert np.array_equal(again["ha", "velocity"], first["ha", "velocity"], equal_nan=True)


def test_monte_carlo_draws_belong_to_the_second_fit() -> None:
    small = field().cube.values[:, 10:18, 10:18]
    cube = Cube(small, field().cube.wavelength, uncertainty=np.ones_like(small), uncertainty_kind="variance")
    plain, drawn = fit_of(cube, refit=True), fit_of(cube, refit=True, monte_carlo=30)
    assert np.array_equal(plain["ha", "velocity"], drawn["ha", "velocity"])
    assert drawn.found.draws.shape[:2] == (64, 30)
    ratio = drawn.error["ha", "velocity"] / plain.error["ha", "velocity"]
    assert 0.8 < np.nanmedian(ratio) < 1.2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (FitOptions(refit=True, fixed=True), "refit changed nothing.*nothing is fitted"),
        (FitOptions(refit=True, coherence=3.0, individual_spec=(4, 5)), "refit and coherence changed nothing.*single spaxel"),
    ],
)
def test_meaningless_refits_are_told(options: FitOptions, reason: str) -> None:
    with pytest.warns(IfujaxWarning, match=reason):
        assert not asks_neighbours(options)


def test_without_any_line_nothing_changes() -> None:
    noise = np.random.default_rng(5).normal(size=(120, 4, 5))
    cube = Cube(noise, field().cube.wavelength[:120], uncertainty=np.ones_like(noise), uncertainty_kind="variance")
    with pytest.warns(IfujaxWarning, match="no spaxel has a line"):
        fit = fit_of(cube, refit=True)
    assert np.array_equal(fit.chi2, fit_of(cube).chi2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refit_radius": 0.5}, "refit_radius must be 1 or more"),
        ({"bounds_change": (1.0, 50.0)}, "bounds_change must have 3 or 5"),
        ({"bounds_change": (1.0, 50.0, -3.0)}, "bounds_change must have 3 or 5 positive"),
        ({"bound_range": -1.0}, "bound_range must be 0 or more"),
        ({"spiral_center": "middle"}, "spiral_center must be"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_of(field().cube, refit=True, **options)
