"""`ifujax.lines.ifscube` against IFSCube's stored results, from its own solutions: formula by formula."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.lines.ifscube import (
    chi_square,
    degrees_of_freedom,
    fitted_pixels,
    flux_scale,
    line_profiles,
    loop_order,
    measure,
    pseudo_continuum,
)
from tests.lines.ifscube.ifscube_runs import CUBES, RUNS, load

SINGLE = 3e-7
"""Several roundings of the 32-bit numbers in which IFSCube keeps the continuum of such a cube."""


@pytest.mark.parametrize("name", RUNS)
def test_pseudo_continuum(name: str) -> None:
    run = load(name)
    options, degree = run.continuum
    inside = fitted_pixels(run.wavelength, run.window)
    ours = pseudo_continuum(
        run.wavelength[inside],
        (run.spectra("data") - run.spectra("stellar"))[:, inside],
        run.rest_lines,
        run.guess_sigma,
        options,
        degree,
        single_precision=run.stored["data"].dtype == np.float32,
    ).continuum
    theirs = run.spectra("pseudo_continuum")
    assert np.isnan(theirs[:, ~inside]).all()
    apart = np.abs(ours - theirs[:, inside]).max(axis=1) / np.abs(np.median(theirs[:, inside], axis=1))
    assert apart.max() < 1e-6


@pytest.mark.parametrize("name", RUNS)
def test_pixels_of_the_fit_and_reduced_chi2(name: str) -> None:
    run = load(name)
    width = float(run.config["fit"]["optimization_window"])
    inside = fitted_pixels(run.wavelength, run.window, run.rest_lines, run.guess_sigma, width)
    good = inside[None] & ~run.spectra("flags")
    assert np.array_equal(good, ~run.spectra("mask"))
    model = line_profiles(run.wavelength, run.rest_lines, run.table()).sum(axis=1)
    model += run.spectra("pseudo_continuum") + run.spectra("stellar")
    np.testing.assert_allclose(model, run.spectra("model_spectrum"), rtol=SINGLE)
    data = run.spectra("data")
    chi2 = chi_square(np.nan_to_num(data - model), run.variance, good, flux_scale(data, good))
    dof = degrees_of_freedom(
        good.sum(axis=1), len(run.stored["packed"]), len(run.stored["constraints"]), float(run.stored["instrument_dispersion"])
    )
    np.testing.assert_allclose(chi2 / dof, run.plane("reduced_chi2")[0], rtol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_fluxes_and_equivalent_widths_of_their_solution(name: str) -> None:
    run = load(name)
    pixels = np.flatnonzero(fitted_pixels(run.wavelength, run.window))
    inside = slice(int(pixels[0]), int(pixels[-1]) + 1)
    data, continuum, stellar = (run.spectra(plane)[:, inside] for plane in ("data", "pseudo_continuum", "stellar"))
    ours = measure(run.wavelength, inside, run.window, data, continuum, stellar, run.parameters())
    # Where a line has no flux at all, nor have we: absolute, against the brightest.
    brightest = np.abs(run.plane("flux_model")).max()
    for mine, their, rtol, atol in (
        ("flux", "flux_model", 1e-12, 0.0),
        ("equivalent_width", "eqw_model", 1e-12, 0.0),
        ("equivalent_width_direct", "eqw_direct", 1e-10, 0.0),
        ("flux_direct", "flux_direct", 1e-7, SINGLE * brightest if run.stored["data"].dtype == np.float32 else 0.0),
    ):
        np.testing.assert_allclose(ours[mine], run.plane(their), rtol=rtol, atol=atol, err_msg=mine)


@pytest.mark.parametrize("name", CUBES)
def test_order_of_the_spiral(name: str) -> None:
    run = load(name)
    fitted = np.zeros(run.stored["status"].shape, bool)
    fitted[tuple(run.stored["spaxel_indices"].T)] = True
    image = run.stored["data"].astype(np.float64).sum(axis=0)
    assert np.array_equal(loop_order(fitted, spiral=True, center="cofm", image=image), run.stored["spaxel_indices"])
