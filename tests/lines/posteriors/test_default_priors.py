"""Default priors: weak, proper, and from the noise alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ifujax
from ifujax.errors import UsageError
from ifujax.inference.parameter_space.priors import HalfNormal, Normal
from ifujax.lines.chunk import ChunkFitter
from ifujax.lines.config import LSF
from ifujax.lines.posteriors.default_priors import CONTINUUM_NOISES, STRENGTH_NOISES, DefaultPriors, default_priors
from ifujax.lines.run import as_config
from ifujax.models.doppler import C_KMS
from ifujax.simulate import HALPHA_LINES, spectra
from ifujax.simulate.profiles import gaussian_line

WAVELENGTH = np.arange(6450.0, 6680.0, 1.0)
GAS = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0.0), ifujax.Bounded(20, 500, start=120.0))


def fitter_of(*lines: ifujax.Line, noise: float = 2.0, level: float = 5.0, lsf: LSF | None = None) -> ChunkFitter:
    made = spectra(3, HALPHA_LINES, wavelength=WAVELENGTH, continuum=(level,), noise=noise, snr=20.0)
    cube = ifujax.Cube(
        np.ascontiguousarray(made.values.T[:, None, :]),
        WAVELENGTH,
        uncertainty=np.ascontiguousarray(made.variance.T[:, None, :]),
        uncertainty_kind="variance",
    )
    return ChunkFitter(cube, as_config(ifujax.EmissionModel(lines, continuum_degree=1, lsf=lsf)), None)


def priors_of(*lines: ifujax.Line, factor: float = 1.0, **options) -> DefaultPriors:
    fitter = fitter_of(*lines, **options)
    ready = fitter.preparation(np.arange(3))
    return default_priors(fitter.setup, ready.ivar / factor**2, fitter.coords.width)


def test_a_thousand_times_the_noise_of_the_line() -> None:
    lines = [ifujax.Line("ha", 6562.8, GAS), ifujax.Line("n2", 6583.46, GAS, amplitude=ifujax.Bounded(0.0))]
    for lsf in (None, LSF.constant(2.5)):
        found = priors_of(*lines, lsf=lsf)
        assert list(found.strengths) == ["ha.flux", "n2.amplitude"]
        own = 120.0 if lsf is None else np.hypot(120.0, 2.5 / 2.3548200450309493 * C_KMS / 6562.8)
        profile = gaussian_line(WAVELENGTH, 6562.8, 1.0, 0.0, own, "integrated")
        matched = 2.0 / np.sqrt(np.sum(profile**2))  # of the flux of a line that is known but for it
        prior = found.strengths["ha.flux"]
        assert isinstance(prior, HalfNormal)
        np.testing.assert_allclose(prior.sigma, STRENGTH_NOISES * matched, rtol=0.03)  # pixels make the profile broader
        peak = found.strengths["n2.amplitude"]
        wide = own if lsf is None else np.hypot(120.0, 2.5 / 2.3548200450309493 * C_KMS / 6583.46)
        expected = np.asarray(prior.sigma) * np.sqrt(wide / own) * np.sqrt(6583.46 / 6562.8)
        np.testing.assert_allclose(peak.sigma, expected * C_KMS / (np.sqrt(2 * np.pi) * wide * 6583.46), rtol=1e-6)
        np.testing.assert_allclose(found.continuum, np.full((3, 2), CONTINUUM_NOISES * 2.0))


def test_noise_alone_counts() -> None:
    line = ifujax.Line("ha", 6562.8, GAS)
    usual, bright = priors_of(line), priors_of(line, level=500.0)
    np.testing.assert_array_equal(usual.strengths["ha.flux"].sigma, bright.strengths["ha.flux"].sigma)
    for factor in (1e-20, 3.0, 1e20):
        scaled = priors_of(line, factor=factor)
        np.testing.assert_allclose(scaled.strengths["ha.flux"].sigma, factor * np.asarray(usual.strengths["ha.flux"].sigma))
        np.testing.assert_allclose(scaled.continuum, factor * usual.continuum)


def test_masked_spectra_have_one_too() -> None:
    fitter = fitter_of(ifujax.Line("ha", 6562.8, GAS))
    ivar = fitter.preparation(np.arange(3)).ivar
    ivar[0, ::2], ivar[1] = 0.0, 0.0
    with np.errstate(all="raise", divide="warn"):
        found = default_priors(fitter.setup, ivar, fitter.coords.width)
    sigma = np.asarray(found.strengths["ha.flux"].sigma)
    assert sigma[0] == sigma[2]
    assert sigma[1] == sigma[2] / 2.0  # as if the noise were 1


@pytest.mark.parametrize(
    ("declared", "kind", "more"),
    [
        (ifujax.Bounded(0.0), HalfNormal, 0.0),
        (ifujax.Bounded(), Normal, 0.0),
        (ifujax.Bounded(upper=0.0), Normal, 0.0),
        (ifujax.Bounded(-3.0), Normal, 3.0),
        (ifujax.Bounded(5.0), Normal, 5.0),
        (ifujax.Bounded(0.0, 1e4), None, 0.0),
        (ifujax.Bounded(0.0, prior=ifujax.Normal(3.0, 1.0)), None, 0.0),
        (ifujax.Fixed(3.0), None, 0.0),
    ],
)
def test_only_what_has_no_other(declared, kind, more: float) -> None:
    free = ifujax.Line("n2", 6583.46, GAS)
    found = priors_of(ifujax.Line("ha", 6562.8, GAS, flux=declared), free).strengths
    assert ("ha.flux" in found) == (kind is not None)
    if kind is not None:
        prior = found["ha.flux"]
        assert type(prior) is kind
        reference = np.asarray(priors_of(ifujax.Line("ha", 6562.8, GAS), free).strengths["ha.flux"].sigma)
        np.testing.assert_allclose(prior.sigma, reference + more)
        if isinstance(prior, Normal):
            np.testing.assert_array_equal(prior.mean, 0.0)


def test_tied_lines_follow_theirs() -> None:
    lines = [ifujax.Line("n2a", 6548.04, GAS, flux=ifujax.Tied("n2b.flux / 3.06")), ifujax.Line("n2b", 6583.46, GAS)]
    assert list(priors_of(*lines).strengths) == ["n2b.flux"]
    # A bound that moves and one that doesn't: uniform between them.
    under = [ifujax.Line("ha", 6562.8, GAS), ifujax.Line("n2", 6583.46, GAS, flux=ifujax.Bounded(0.0, below="ha.flux"))]
    assert list(priors_of(*under).strengths) == ["ha.flux"]


def test_space_with_its_priors() -> None:
    fitter = fitter_of(ifujax.Line("ha", 6562.8, GAS))
    found = default_priors(fitter.setup, fitter.preparation(np.arange(3)).ivar, fitter.coords.width)
    space = found.of(fitter.setup.space)
    assert space.structure.free[0].prior == "half_normal"
    one = found.first()
    assert "HalfNormal(" in one.of(fitter.setup.space).describe()
    assert one.continuum.shape == (1, 2)
    declared = ifujax.Line("ha", 6562.8, replace(GAS, velocity=ifujax.Bounded()))
    fitter = fitter_of(declared)
    found = default_priors(fitter.setup, fitter.preparation(np.arange(3)).ivar, fitter.coords.width)
    with pytest.raises(UsageError, match="ha.velocity"):
        found.of(fitter.setup.space)
