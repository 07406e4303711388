"""Bits by line: what is wrong with one line is not said of its neighbours. Data of numpy alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import ifujax
from ifujax.errors import UsageError
from ifujax.inference.status import AT_BOUND, ERRORS_NOT_TRUSTED, NO_DETECTION, OTHER_MINIMUM, UNCONSTRAINED

C_KMS = 299792.458
WAVELENGTH = np.arange(6250.0, 6650.0, 1.25)
REST = {"oi": 6300.30, "oi2": 6363.78, "ha": 6562.80}
DOUBT = ERRORS_NOT_TRUSTED.value | OTHER_MINIMUM.value
N = 12


def spectra(peaks: dict[str, float]) -> np.ndarray:
    """One spectrum a row: lines at 50 km/s with a dispersion of 120 on a flat continuum, noise of 1."""
    total = np.full((N, len(WAVELENGTH)), 20.0)
    for name, peak in peaks.items():
        centre = REST[name] * (1 + 50.0 / C_KMS)
        total += peak * np.exp(-0.5 * ((WAVELENGTH - centre) / (REST[name] * 120.0 / C_KMS)) ** 2)
    return total + np.random.default_rng(3).normal(size=total.shape)


def cube(values: np.ndarray, hidden: np.ndarray | None = None) -> ifujax.Cube:
    planes = np.ascontiguousarray(values.T[:, None, :])
    flags = None if hidden is None else np.broadcast_to(hidden[:, None, None], planes.shape).astype(np.int16)
    return ifujax.Cube(planes, WAVELENGTH, uncertainty=np.ones_like(planes), uncertainty_kind="variance", flags=flags)


def model() -> ifujax.EmissionModel:
    """[O I] with a tied doublet in one group, H-alpha in another."""
    first, second = (ifujax.Kinematics(ifujax.Bounded(-400, 400), ifujax.Bounded(30, 400)) for _ in range(2))
    lines = (
        ifujax.Line("oi", REST["oi"], first),
        ifujax.Line("oi2", REST["oi2"], first, flux=ifujax.Tied("oi.flux / 3")),
        ifujax.Line("ha", REST["ha"], second),
    )
    return ifujax.EmissionModel(lines, continuum_degree=0)


@cache
def faint() -> ifujax.CubeFit:
    return ifujax.fit_cube(cube(spectra({"ha": 40.0, "oi": 1.0, "oi2": 0.33})), model())


def test_a_faint_line_is_doubted_and_the_bright_one_beside_it_is_not() -> None:
    fit = faint()
    assert ((fit.line_warn("oi") & DOUBT) != 0).mean() > 0.5
    assert not (fit.line_warn("ha") & (DOUBT | NO_DETECTION.value)).any()
    # The spaxel has the bits of its lines; that nothing is detected is said of a spaxel if it holds for all lines.
    every = fit.line_warn("ha") | fit.line_warn("oi") | fit.line_warn("oi2")
    np.testing.assert_array_equal(fit.warn & DOUBT, every & DOUBT)
    assert not (fit.warn & NO_DETECTION.value).any()


def test_no_detection_is_that_of_the_line_itself() -> None:
    fit = faint()
    for line in fit.lines:
        weak = ~(np.abs(fit[line, "flux"]) > 3 * fit.error[line, "flux"])
        np.testing.assert_array_equal((fit.line_warn(line) & NO_DETECTION.value) != 0, weak)


def test_tied_lines_share_the_doubt() -> None:
    fit = faint()
    np.testing.assert_array_equal(fit.line_warn("oi") & DOUBT, fit.line_warn("oi2") & DOUBT)


def test_a_line_under_a_mask_is_the_only_one_without_a_constraint() -> None:
    hidden = np.abs(WAVELENGTH - REST["ha"]) < 40.0
    fit = ifujax.fit_cube(cube(spectra({"ha": 40.0, "oi": 30.0, "oi2": 10.0}), hidden), model())
    assert ((fit.line_warn("ha") & UNCONSTRAINED.value) != 0).all()
    assert not (fit.line_warn("oi") & (UNCONSTRAINED.value | DOUBT)).any()


def test_a_bound_is_that_of_the_line() -> None:
    narrow = ifujax.Kinematics(ifujax.Bounded(-400, 400), ifujax.Bounded(30, 90))
    wide = ifujax.Kinematics(ifujax.Bounded(-400, 400), ifujax.Bounded(30, 400))
    lines = (ifujax.Line("oi", REST["oi"], wide), ifujax.Line("ha", REST["ha"], narrow))
    fit = ifujax.fit_cube(cube(spectra({"ha": 40.0, "oi": 30.0})), ifujax.EmissionModel(lines, continuum_degree=0))
    assert ((fit.line_warn("ha") & AT_BOUND.value) != 0).all()
    assert not (fit.line_warn("oi") & AT_BOUND.value).any()


@pytest.mark.parametrize("kind", ["product", "maps"])
def test_files_keep_them(kind: str, tmp_path: Path) -> None:
    fit = faint()
    path = tmp_path / "out.fits"
    (fit.write if kind == "product" else fit.write_maps)(path)
    loaded = ifujax.load_fit(path)
    for line in fit.lines:
        np.testing.assert_array_equal(loaded.line_warn(line), fit.line_warn(line))
    if kind == "maps":
        assert fits.getdata(path, "HA_WARN").dtype.kind == "i"
        assert "warn" not in loaded.quantities


def test_an_unknown_line_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown line 'hb'"):
        faint().line_warn("hb")


def test_a_spectrum_has_numbers() -> None:
    one = ifujax.fit_spectrum(
        ifujax.Spectrum(spectra({"ha": 40.0})[0], WAVELENGTH, uncertainty=np.ones(len(WAVELENGTH)), uncertainty_kind="variance"),
        model(),
    )
    assert isinstance(one.line_warn("ha"), int)
    assert one.line_warn("oi") & NO_DETECTION.value
