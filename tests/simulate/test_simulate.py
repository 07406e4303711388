"""The simulators: line profiles, spectra, problems and cubes with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.integrate import quad

from ifujax import simulate
from ifujax.errors import DataError, UsageError
from ifujax.simulate.profiles import gaussian_line, pixel_edges, velocity_of, wavelength_of

C = 299792.458


def density(wavelength, rest, flux, velocity, sigma):
    """Flux density F N(v(lambda)) dv/dlambda, written out from the definition."""
    q = (wavelength / rest) ** 2
    v = C * (q - 1) / (q + 1)
    slope = C * 4 * wavelength * rest**2 / (wavelength**2 + rest**2) ** 2
    return flux * np.exp(-0.5 * ((v - velocity) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma) * slope


@pytest.mark.parametrize("velocity", [-3000.0, 0.0, 250.0, 10000.0])
@pytest.mark.parametrize("sigma", [8.0, 120.0])
def test_pixels_hold_the_integral_of_the_density(velocity, sigma):
    wavelength = np.arange(6300.0, 6900.0, 1.25)
    edges = pixel_edges(wavelength)
    line = gaussian_line(wavelength, 6562.8, 3.0, velocity, sigma)
    np.testing.assert_allclose(np.sum(line * np.diff(edges)), 3.0, rtol=1e-12)
    centre = int(np.argmax(line))
    for i in (centre - 2, centre, centre + 1):
        expected = quad(density, edges[i], edges[i + 1], args=(6562.8, 3.0, velocity, sigma), epsabs=1e-13)[0]
        np.testing.assert_allclose(line[i], expected / 1.25, rtol=1e-9, atol=1e-12)


def test_both_tails_are_accurate_and_never_negative():
    wavelength = np.arange(6400.0, 6725.0, 1.25)
    line = gaussian_line(wavelength, 6562.8, 1.0, 0.0, 150.0)
    assert (line >= 0).all()
    # 11 sigma out on either side: still the integral of the density, where 1 - Phi would have lost every digit
    edges = pixel_edges(wavelength)
    for i in (np.argmin(np.abs(wavelength - 6525.0)), np.argmin(np.abs(wavelength - 6600.5))):
        expected = quad(density, edges[i], edges[i + 1], args=(6562.8, 1.0, 0.0, 150.0), epsabs=0, epsrel=1e-10)[0]
        np.testing.assert_allclose(line[i], expected / 1.25, rtol=1e-8)


def test_sampled_profile_is_the_density_at_rest_and_ifscubes_formula():
    wavelength = np.linspace(6500, 6620, 400)
    line = gaussian_line(wavelength, 6562.8, 2.0, 100.0, 90.0, profile="sampled")
    v = velocity_of(wavelength, 6562.8)
    amplitude = 2.0 * C / (np.sqrt(2 * np.pi) * 90.0 * 6562.8)
    np.testing.assert_allclose(line, amplitude * np.exp(-0.5 * ((v - 100) / 90) ** 2) / (1 + v / C), rtol=1e-13)
    fine = density(wavelength, 6562.8, 2.0, 100.0, 90.0)
    np.testing.assert_allclose(line, fine, atol=2e-6 * fine.max())


def test_velocity_and_wavelength_are_inverse():
    v = np.array([-50000.0, -3.0, 0.0, 3.0, 20000.0])
    np.testing.assert_allclose(velocity_of(wavelength_of(v, 5006.84), 5006.84), v, atol=1e-7)


def test_profile_names_and_wavelengths_are_checked():
    with pytest.raises(UsageError, match="'integrated'"):
        gaussian_line(np.arange(5.0) + 1, 3.0, 1.0, 0.0, 1.0, profile="integratd")
    with pytest.raises(DataError, match="ascending"):
        pixel_edges([3.0, 2.0, 1.0])


def test_spectra_shapes_seed_and_noise():
    one = simulate.spectra(50, snr=simulate.Uniform(3, 20), continuum=(2.0, 0.5), noise=0.3, seed=7)
    again = simulate.spectra(50, snr=simulate.Uniform(3, 20), continuum=(2.0, 0.5), noise=0.3, seed=7)
    other = simulate.spectra(50, snr=simulate.Uniform(3, 20), continuum=(2.0, 0.5), noise=0.3, seed=8)
    n_pix = one.wavelength.size
    assert len(one) == 50
    assert one.values.shape == one.variance.shape == one.model.shape == one.continuum.shape == (50, n_pix)
    assert one.truth["ha.flux"].shape == (50,)
    assert one.truth["continuum"].shape == (50, 2)
    np.testing.assert_array_equal(one.values, again.values)
    assert not np.allclose(one.values, other.values)
    pull = (one.values - one.model) / np.sqrt(one.variance)
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 5 / np.sqrt(2 * pull.size)


def test_truth_describes_the_model():
    sample = simulate.spectra(20, snr=10.0, continuum=(4.0, -1.0), lsf_fwhm=2.5, seed=2)
    widths = np.diff(sample.edges)
    total = sum(sample.truth[f"{name}.flux"] for name in ("n2a", "ha", "n2b"))
    np.testing.assert_allclose(np.sum((sample.model - sample.continuum) * widths, axis=1), total, rtol=1e-9)
    amplitudes = np.max([sample.truth[f"{name}.amplitude"] for name in ("n2a", "ha", "n2b")], axis=0)
    np.testing.assert_allclose(amplitudes, 10.0, rtol=1e-12)
    np.testing.assert_allclose(sample.truth["snr"], 10.0, rtol=1e-12)
    lsf = 2.5 / 2.354820045 / 6562.8 * C
    observed = np.hypot(sample.truth["ha.velocity_dispersion"], lsf)
    np.testing.assert_allclose(sample.truth["ha.sigma"], observed, rtol=1e-3)
    expected = -sample.truth["ha.flux"] / 4.0
    np.testing.assert_allclose(sample.truth["ha.equivalent_width"], expected, rtol=0.1)


def test_groups_share_kinematics_and_wrong_groups_are_named():
    two = simulate.two_component_problem(30)
    np.testing.assert_array_equal(two.truth["ha.velocity"], two.truth["n2b.velocity"])
    assert (two.truth["ha_broad.velocity_dispersion"] >= 200).all()
    assert (two.truth["ha.velocity_dispersion"] <= 120).all()
    with pytest.raises(UsageError, match="Did you mean 'narrow'"):
        simulate.spectra(2, two.lines, velocity={"narow": 0.0, "broad": 0.0})
    with pytest.raises(UsageError, match="'broad'"):
        simulate.spectra(2, two.lines, velocity={"narrow": 0.0})
    with pytest.raises(UsageError, match="velocity must be"):
        simulate.spectra(3, velocity=[1.0, 2.0])


def test_three_line_problem_is_the_benchmark():
    problem = simulate.three_line_problem(64, n_pix=300)
    assert problem.values.shape == (64, 300)
    assert problem.truth["snr"].min() >= 2
    assert problem.truth["snr"].max() <= 50


def test_cube_has_a_rotation_field_and_bad_spaxels():
    disc = simulate.cube((9, 11), position_angle=-90.0, nan_spaxels=[(0, 3)], masked_spaxels=[(2, 1)], bad_fraction=0.01, seed=5)
    velocity = disc.truth["ha.velocity"]
    assert velocity.shape == (9, 11)
    # receding side at +x for a position angle of -90 degrees; the centre is at rest
    assert velocity[4, 10] > 50
    assert velocity[4, 0] < -50
    assert velocity[4, 5] == 0
    np.testing.assert_allclose(velocity[4], -velocity[4, ::-1], atol=1e-9)
    snr = disc.truth["snr"]
    np.testing.assert_allclose(snr[4, 5], 50.0)
    assert np.isnan(disc.values[:, 0, 3]).all()
    assert disc.flags[:, 0, 3].all()
    assert disc.spatial_mask.sum() == 1
    good = disc.flags == 0
    assert 0.98 < good[:, 1:].mean() < 1
    pull = (disc.values - disc.model)[good] / np.sqrt(disc.variance[good])
    assert abs(pull.std() - 1) < 0.02
    # the flux of a spaxel, integrated in the observed frame, is the true flux
    clean = simulate.cube((3, 3), continuum=(0.0,), seed=5)
    widths = np.diff(pixel_edges(clean.wavelength))
    total = sum(clean.truth[f"{name}.flux"] for name in ("n2a", "ha", "n2b"))
    np.testing.assert_allclose(np.sum(clean.model * widths[:, None, None], axis=0), total, rtol=1e-5)


def test_cube_arguments_are_checked():
    with pytest.raises(UsageError, match="nan_spaxels"):
        simulate.cube((3, 3), nan_spaxels=[(3, 0)])
    with pytest.raises(UsageError, match="bad_fraction"):
        simulate.cube((3, 3), bad_fraction=1.0)


def test_muse_file(tmp_path):
    disc = simulate.cube((5, 6), redshift=0.02, nan_spaxels=[(1, 1)])
    path = disc.write_muse(tmp_path / "disc.fits.gz")
    with fits.open(path) as file:
        assert [extension.name for extension in file][1:] == ["DATA", "STAT", "DQ"]
        header = file["DATA"].header
        assert header["CTYPE3"] == "AWAV"
        assert header["CUNIT3"] == "Angstrom"
        assert header["BUNIT"] == simulate.cube((1, 1)).unit
        np.testing.assert_allclose(header["CRVAL3"] + header["CD3_3"] * np.arange(disc.wavelength.size), disc.wavelength)
        np.testing.assert_array_equal(file["DATA"].data, disc.values)
        assert file["DQ"].data[0, 1, 1] == 1
        assert file["DQ"].data.sum() == disc.wavelength.size
        sky = WCS(header).celestial.pixel_to_world(2.5, 2.0)
        np.testing.assert_allclose(sky.ra.deg, 63.3553, atol=1e-9)
    with pytest.raises(UsageError, match="overwrite"):
        disc.write_muse(path)
    disc.write_muse(path, overwrite=True)


def test_as_a_cube_of_the_library():
    data = pytest.importorskip("ifujax.data.cube")
    disc = simulate.cube((3, 4), masked_spaxels=[(0, 0)])
    assert isinstance(disc.cube, data.Cube)
    assert disc.cube.shape == disc.shape
    assert disc.cube.redshift == disc.redshift
