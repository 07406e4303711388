"""Which of several minima is kept, and which component is which, where neighbours know better than the spectrum alone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import ifujax
from ifujax.errors import IfujaxWarning
from ifujax.inference import status as bits
from ifujax.lines.config import LineFitConfig
from ifujax.lines.neighbours.labels import alike_components
from ifujax.lines.setup import prepare
from tests.lines.neighbours.fields import HA, N2, Field, field_of_two_discs, field_with_aliases, model_of_one, model_of_two

SIZE = 20


@cache
def aliases() -> Field:
    return field_with_aliases(SIZE)


@cache
def two_discs() -> Field:
    return field_of_two_discs(SIZE)


def fit_of(field: Field, config: LineFitConfig, **options: object) -> ifujax.CubeFit:
    return ifujax.fit_cube(field.cube, replace(config, fit=replace(config.fit, **options)))  # type: ignore[arg-type]


@cache
def fits() -> dict[float, ifujax.CubeFit]:
    return {limit: fit_of(aliases(), model_of_one(1500.0), coherence=limit) for limit in (0.0, 1.0, 9.0)}


@cache
def disc_fits() -> dict[str, ifujax.CubeFit]:
    return {
        "plain": fit_of(two_discs(), model_of_two()),
        "refit": fit_of(two_discs(), model_of_two(), refit=True),
        "coherence": fit_of(two_discs(), model_of_two(), coherence=9.0),
    }


def wrong(fit: ifujax.CubeFit, field: Field, line: str) -> np.ndarray:
    """Velocities that are off by more than 5 times their error, and 60 km/s."""
    off = np.abs(fit[line, "velocity"] - field.truth.truth[f"{line}.velocity"].reshape(SIZE, SIZE))
    return off > np.maximum(5 * fit.error[line, "velocity"], 60.0)


def test_the_other_line_is_not_taken_for_this_one() -> None:
    before, after = (int(wrong(fits()[limit], aliases(), "ha").sum()) for limit in (0.0, 9.0))
    assert before > 20
    assert after <= 2


def test_chi2_rises_by_no_more_than_allowed() -> None:
    for limit in (1.0, 9.0):
        higher = fits()[limit].chi2 - fits()[0.0].chi2
        assert higher.max() <= limit + 1e-6
        assert (higher > 1e-3).any()
    assert wrong(fits()[1.0], aliases(), "ha").sum() > wrong(fits()[9.0], aliases(), "ha").sum()


def test_spaxels_that_agree_with_their_neighbours_stay() -> None:
    right = ~wrong(fits()[0.0], aliases(), "ha")
    changed = np.abs(fits()[9.0].chi2 - fits()[0.0].chi2) > 1e-3
    assert (changed & right).sum() <= 3


def test_close_rivals_are_flagged() -> None:
    higher = fits()[9.0].chi2 - fits()[0.0].chi2
    close = (higher > 1e-3) & (higher < 1.0)
    assert close.any()
    assert (fits()[9.0].warn[close] & bits.OTHER_MINIMUM.value).all()


@pytest.mark.parametrize("name", ["refit", "coherence"])
def test_labels_of_two_discs_agree(name: str) -> None:
    """Of either disc the same one is ``a`` on both sides, though their velocities cross in between."""
    plain, now = disc_fits()["plain"], disc_fits()[name]
    assert (wrong(plain, two_discs(), "a") & wrong(plain, two_discs(), "b")).sum() > 30
    assert (wrong(now, two_discs(), "a") & wrong(now, two_discs(), "b")).sum() <= 2
    assert (now.chi2 - plain.chi2).max() <= (1e-9 if name == "refit" else 9.0)


def test_exchanged_labels_change_nothing_else() -> None:
    plain, now = disc_fits()["plain"], disc_fits()["refit"]
    swapped = (now["a", "velocity"] == plain["b", "velocity"]) & (now["b", "velocity"] == plain["a", "velocity"])
    assert swapped.sum() > 30
    for quantity in ("flux", "amplitude", "velocity_dispersion", "sigma", "equivalent_width", "flux_direct"):
        for one, two in (("a", "b"), ("b", "a")):
            assert np.array_equal(now[one, quantity][swapped], plain[two, quantity][swapped], equal_nan=True)
            assert np.array_equal(now.error[one, quantity][swapped], plain.error[two, quantity][swapped], equal_nan=True)
    assert np.array_equal(now.chi2[swapped], plain.chi2[swapped])
    rows = np.flatnonzero(swapped)[:5]
    np.testing.assert_allclose(now.spectra(rows).model, plain.spectra(rows).model, rtol=1e-10)


def alike(config: LineFitConfig) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    setup = prepare(config, np.arange(6440.0, 6690.0, 1.25), 0.0)
    groups: dict[int, list[int]] = {}
    for i, line in enumerate(setup.lines):
        groups.setdefault(id(line.kinematics), []).append(i)
    return [(pair.one, pair.two) for pair in alike_components(setup, list(groups.values()))]


def test_components_that_are_declared_alike() -> None:
    assert alike(model_of_two()) == [((0,), (1,))]
    other_guess = ifujax.Bounded(20.0, 300.0, start=200.0)
    assert alike(model_of_two(velocity_dispersion=other_guess)) == [((0,), (1,))]


@pytest.mark.parametrize(
    "second",
    [
        {"velocity_dispersion": ifujax.Bounded(100.0, 300.0, start=200.0)},
        {"velocity_dispersion": ifujax.Bounded(20.0, 300.0, above="a.velocity_dispersion")},
        {"velocity": ifujax.Tied("a.velocity")},
        {"velocity": ifujax.Fixed(0.0)},
    ],
)
def test_components_that_are_not_alike(second: dict[str, object]) -> None:
    assert alike(model_of_two(**second)) == []


def test_ties_within_components_leave_them_alike() -> None:
    def component(name: str) -> list[ifujax.Line]:
        gas = ifujax.Kinematics()
        tied = ifujax.Line(f"n2 {name}", N2, gas, flux=ifujax.Tied(f"ha {name}.flux * 0.5"))
        return [ifujax.Line(f"ha {name}", HA, gas), tied][:: 1 if name == "one" else -1]

    lines = component("one") + component("two")
    assert alike(LineFitConfig(ifujax.EmissionModel(tuple(lines)))) == [((0, 1), (3, 2))]
    third = ifujax.Line("third", 6500.0, ifujax.Kinematics(velocity=ifujax.Tied("ha one.velocity")))
    assert alike(LineFitConfig(ifujax.EmissionModel((*lines, third)))) == []


def test_gauss_hermite_lines() -> None:
    """Shapes' own parameters come from the neighbours, too, and stay within narrowed bounds."""
    gas = ifujax.Kinematics(ifujax.Bounded(-1500.0, 1500.0, start=0.0), ifujax.Bounded(20.0, 300.0, start=80.0))
    line = ifujax.Line("ha", HA, gas, shape="gauss_hermite")
    config = LineFitConfig(ifujax.EmissionModel((line,), continuum_degree=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "refit holds", IfujaxWarning)
        plain = fit_of(aliases(), config)
        fit = fit_of(aliases(), config, refit=True, coherence=4.0, bounds_change=(1.0, 100.0, 60.0, 0.05, 0.05))
    assert not fit.status.any()
    for quantity in ("h3", "h4"):
        assert np.nanstd(fit["ha", quantity]) < 0.7 * np.nanstd(plain["ha", quantity])
        assert np.nanmax(np.abs(fit["ha", quantity])) <= 0.3
