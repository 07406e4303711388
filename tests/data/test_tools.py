"""Images, apertures, signal to noise and centres of a cube, against plain sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.integrate import quad

from ifujax.data import Cube, Image
from ifujax.data.scaled import Scaled
from ifujax.errors import DataError, UsageError
from ifujax.io.units import squared_unit

SHAPE = (40, 6, 7)
Z = 0.1


def make(**changes) -> Cube:
    rng = np.random.default_rng(5)
    options = {
        "values": rng.normal(10.0, 1.0, SHAPE),
        "wavelength": (5000.0 + 2.0 * np.arange(SHAPE[0])) * (1 + Z),
        "uncertainty": rng.uniform(0.5, 2.0, SHAPE),
        "uncertainty_kind": "variance",
        "redshift": Z,
        "unit": "erg/s/cm2/Angstrom",
    }
    return Cube(**(options | changes))


# Images


@pytest.mark.parametrize("kind", ["box", "gaussian"])
def test_filters_are_means(kind):
    cube = make(values=np.full(SHAPE, 3.0))
    found = cube.image(5040.0, 20.0, kind)
    np.testing.assert_allclose(found.values, 3.0 * (1 + Z), rtol=1e-12)
    assert found.unit == cube.unit


def test_box_takes_exact_shares_of_the_edge_pixels():
    cube = make()
    # 5010.5 to 5015.25: 0.5 of the pixel at 5010, all of 5012, 5014 to 5015 and 0.25 of 5016.
    found = cube.image(5012.875, 4.75)
    weights = np.zeros(SHAPE[0])
    weights[5:8] = 0.5, 2.0, 2.0
    weights[8] = 0.25
    weights /= 4.75
    np.testing.assert_allclose(found.values, np.tensordot(weights, cube.values, 1) * (1 + Z))
    np.testing.assert_allclose(found.variance, np.tensordot(weights**2, cube.uncertainty, 1) * (1 + Z) ** 2)
    np.testing.assert_allclose(found.error, np.sqrt(found.variance))


def test_box_times_its_width_is_the_flux():
    edges = np.linspace(5000.0, 5080.0, SHAPE[0] + 1)
    line = np.zeros(SHAPE)
    line[20, 2, 3] = 8.0
    cube = make(values=line, wavelength=0.5 * (edges[1:] + edges[:-1]) * (1 + Z))
    found = cube.image(5041.0, 30.0)
    # Integrated over observed wavelength: 8 x 2 Angstrom x (1 + z).
    assert found.values[2, 3] * 30.0 == pytest.approx(8.0 * 2.0 * (1 + Z))


def test_gaussian_weights_are_its_integrals():
    cube = make(values=(np.arange(SHAPE[0], dtype=float) ** 2)[:, None, None] * np.ones(SHAPE), uncertainty=np.ones(SHAPE))
    sigma = 9.0 / 2.354820045
    edges = cube.rest_edges
    weights = [quad(lambda x: np.exp(-0.5 * ((x - 5037.0) / sigma) ** 2), a, b)[0] for a, b in itertools.pairwise(edges)]
    weights = np.array(weights) / np.sum(weights)
    found = cube.image(5037.0, 9.0, "gaussian")
    np.testing.assert_allclose(found.values, weights @ cube.values[:, 0, 0] * (1 + Z), rtol=2e-6)
    np.testing.assert_allclose(found.variance, (weights**2).sum() * (1 + Z) ** 2, rtol=1e-5)


def test_bad_pixels_are_left_out_of_images():
    values = np.full(SHAPE, 3.0)
    values[18:20, 0, 0] = np.nan
    values[15:24, 0, 1] = 1e9
    flags = np.zeros(SHAPE, dtype=np.uint8)
    flags[15:24, 0, 1] = 1
    variance = np.ones(SHAPE)
    variance[18, 0, 2] = 0.0
    found = make(values=values, flags=flags, uncertainty=variance).image(5040.0, 16.0)
    assert found.values[0, 0] == pytest.approx(3.0 * (1 + Z))
    assert np.isnan(found.values[0, 1])
    assert np.isnan(found.variance[0, 1])
    assert np.isfinite(found.values).sum() == found.values.size - 1
    assert found.variance[0, 0] > found.variance[1, 1]
    assert found.variance[0, 2] > found.variance[1, 1]


def test_filters_must_lie_within_the_cube():
    with pytest.raises(DataError, match=r"within the cube, 4999.00 to 5079.00 .*got 5001 with a FWHM of 10, 70 % of it inside"):
        make().image(5001.0, 10.0)
    with pytest.raises(DataError, match="of it inside"):
        make().image(5005.0, 10.0, "gaussian")
    with pytest.raises(UsageError, match="unknown filter 'triangle'"):
        make().image(5040.0, 10.0, "triangle")
    with pytest.raises(UsageError, match="fwhm positive"):
        make().image(5040.0, 0.0)


def test_images_are_written_with_their_coordinates(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [63.0, 10.0], [-5e-5, 5e-5]
    found = make(celestial=wcs).image(5040.0, 20.0)
    path = found.write(tmp_path / "image.fits")
    with fits.open(path) as file:
        assert [hdu.name for hdu in file] == ["PRIMARY", "DATA", "STAT"]
        np.testing.assert_array_equal(file["DATA"].data, found.values)
        np.testing.assert_array_equal(file["STAT"].data, found.variance)
        head = file["DATA"].header
        assert (head["WLPRTYPE"], head["WLPRWL0"], head["WLPRFWHM"], head["REDSHIFT"]) == ("box", 5040.0, 20.0, Z)
        assert (head["BUNIT"], head["CTYPE1"]) == ("erg/s/cm2/Angstrom", "RA---TAN")
        assert file["STAT"].header["BUNIT"] == squared_unit("erg/s/cm2/Angstrom")
    with pytest.raises(UsageError, match="must not exist"):
        found.write(path)
    found.write(path, overwrite=True)
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    assert "6 x 7 pixels" in repr(found)


def test_an_image_of_ones_own():
    assert Image(np.ones((2, 3))).error is None
    with pytest.raises(DataError, match="two axes"):
        Image(np.ones(3))
    with pytest.raises(DataError, match=r"variance must have the shape of the image, \(2, 3\)"):
        Image(np.ones((2, 3)), np.ones(2))


# Apertures


def inside(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE[1:])
    return np.hypot(columns - x, rows - y) <= radius


@pytest.mark.parametrize(("x", "y", "radius", "count"), [(3, 2, 0, 1), (3, 2, 1, 5), (3.5, 2.5, 1.0, 4), (0, 0, 1.5, 4)])
def test_sum_and_mean(x, y, radius, count):
    cube = make(stellar=np.full(SHAPE, 0.5))
    chosen = inside(x, y, radius)
    assert chosen.sum() == count
    total, mean = cube.aperture_spectrum(x, y, radius), cube.aperture_spectrum(x, y, radius, "mean")
    np.testing.assert_allclose(total.values, cube.values[:, chosen].sum(axis=1))
    np.testing.assert_allclose(total.uncertainty, cube.uncertainty[:, chosen].sum(axis=1))
    np.testing.assert_allclose(mean.values, total.values / count)
    np.testing.assert_allclose(mean.uncertainty, total.uncertainty / count**2)
    np.testing.assert_allclose(total.stellar, 0.5 * count)
    assert (total.uncertainty_kind, total.redshift, total.unit) == ("variance", Z, cube.unit)
    np.testing.assert_array_equal(total.wavelength, cube.wavelength)
    assert not total.bad.any()
    assert f"Sum of the {count} spaxels" in total.notes[-1]


def test_median():
    cube = make()
    chosen = inside(3, 2, 1.5)
    found = cube.aperture_spectrum(3, 2, 1.5, "median")
    np.testing.assert_allclose(found.values, np.median(cube.values[:, chosen], axis=1))
    mean = cube.uncertainty[:, chosen].sum(axis=1) / chosen.sum() ** 2
    np.testing.assert_allclose(found.uncertainty, np.pi / 2 * mean)


@pytest.mark.parametrize("combine", ["sum", "mean", "median"])
def test_missing_pixels_leave_no_mark(combine):
    values = np.full(SHAPE, 4.0)
    values[10, 2, 3] = np.nan
    flags = np.zeros(SHAPE, dtype=np.uint8)
    flags[20][inside(3, 2, 1)] = 1
    flags[20, 2, 3] = 0
    flags[21][inside(3, 2, 1)] = 1
    cube = make(values=values, flags=flags, uncertainty=np.ones(SHAPE), stellar=np.full(SHAPE, 0.5))
    found = cube.aperture_spectrum(3, 2, 1, combine)
    whole = 20.0 if combine == "sum" else 4.0
    np.testing.assert_allclose(np.delete(found.values, 21), whole)
    assert np.isnan(found.values[21])
    # 1 of 5 is missing: no flag; 4 of 5 and all: flagged.
    np.testing.assert_array_equal(np.flatnonzero(found.flags), [20, 21])
    np.testing.assert_array_equal(np.flatnonzero(found.bad), [20, 21])
    assert found.uncertainty[10] == pytest.approx(found.uncertainty[11] * 5 / 4)
    np.testing.assert_allclose(np.delete(found.stellar, 21), whole / 8)


def test_masked_spaxels_are_left_out():
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[2, 3] = True
    cube = make(spatial_mask=mask)
    np.testing.assert_allclose(cube.aperture_spectrum(3, 2, 1).values, cube.values[:, inside(3, 2, 1) & ~mask].sum(axis=1))
    with pytest.raises(DataError, match="isn't masked"):
        cube.aperture_spectrum(3, 2, 0)


def test_apertures_without_uncertainty_and_wrong_ones():
    found = make(uncertainty=None, uncertainty_kind=None).aperture_spectrum(3, 2, 1, "median")
    assert found.uncertainty is None
    with pytest.raises(UsageError, match="must hold the centre of a spaxel, 0..6 by 0..5; got x=20"):
        make().aperture_spectrum(20, 2, 1)
    with pytest.raises(UsageError, match="unknown combination 'total'"):
        make().aperture_spectrum(3, 2, 1, "total")
    with pytest.raises(UsageError, match="radius must be 0 or more"):
        make().aperture_spectrum(3, 2, -1)


# Signal to noise


def test_signal_to_noise_with_errors():
    cube = make()
    found = cube.snr_map((5010.0, 5030.0))
    part = slice(5, 16)
    expected = np.mean(cube.values[part], axis=0) / np.mean(np.sqrt(cube.uncertainty[part]), axis=0)
    np.testing.assert_allclose(found.values, expected)
    assert found.plot().axes


def test_signal_to_noise_from_the_scatter():
    rng = np.random.default_rng(3)
    offset = np.arange(SHAPE[0])[:, None, None]
    values = 1000.0 + 3.0 * offset + rng.normal(0, 2.0, SHAPE)
    values[12, 1, 1] = np.nan
    values[:, 0, 0] = np.nan
    cube = make(values=values, uncertainty=None, uncertainty_kind=None)
    found = cube.snr_map((5000.0, 5078.0)).values
    assert np.isnan(found[0, 0])
    y, x = 1, 1
    good = np.isfinite(values[:, y, x])
    line = np.polyfit(cube.rest_wavelength[good], values[good, y, x], 1)
    scatter = np.sqrt(np.sum((values[good, y, x] - np.polyval(line, cube.rest_wavelength[good])) ** 2) / (good.sum() - 2))
    assert found[y, x] == pytest.approx(values[good, y, x].mean() / scatter, rel=1e-6)
    with pytest.raises(DataError, match="overlap the data"):
        cube.snr_map()


# Centres


def test_peak_and_centroid():
    rows, columns = np.indices(SHAPE[1:])
    light = np.exp(-0.5 * ((columns - 4.2) ** 2 + (rows - 2.4) ** 2) / 0.6**2)
    values = light * np.ones(SHAPE)
    cube = make(values=values, uncertainty=None, uncertainty_kind=None)
    assert cube.peak() == (4, 2)
    np.testing.assert_allclose(cube.centroid(), (4.2, 2.4), atol=0.02)
    flags = np.zeros(SHAPE, dtype=np.uint8)
    values[7, 5, 0] = 1e6
    flags[7, 5, 0] = 1
    cube = make(values=values, flags=flags, uncertainty=None, uncertainty_kind=None)
    assert cube.peak() == (4, 2)
    assert make(values=values, uncertainty=None, uncertainty_kind=None).peak() == (0, 5)
    assert make(values=values, uncertainty=None, uncertainty_kind=None).peak((5050.0, 5070.0)) == (4, 2)
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[2, 4] = True
    assert make(values=values, flags=flags, spatial_mask=mask, uncertainty=None, uncertainty_kind=None).peak() == (4, 3)


def test_centres_of_nothing():
    with pytest.raises(DataError, match="positive sum"):
        make(values=np.full(SHAPE, -1.0)).centroid()
    with pytest.raises(DataError, match="usable pixel"):
        make(values=np.full(SHAPE, np.nan)).peak()
    assert make(values=np.full(SHAPE, -1.0) - np.arange(42).reshape(SHAPE[1:])).peak() == (0, 0)


# Spectra of spaxels, and planes in another unit


def test_one_spaxel():
    flags = np.zeros(SHAPE, dtype=">i4")
    flags[3, 2, 1] = 4
    cube = make(flags=flags, flag_bits=4, uncertainty_kind="ivar")
    found = cube.spectrum(1, 2)
    np.testing.assert_array_equal(found.values, cube.values[:, 2, 1])
    np.testing.assert_array_equal(np.flatnonzero(found.bad), [3])
    assert found.uncertainty_kind == "ivar"
    for wrong in ((-1, 0), (7, 0), (0, 6)):
        with pytest.raises(UsageError, match="x, y must lie within 0..6, 0..5"):
            cube.spectrum(*wrong)
    figure = cube.plot(1, 2, window=(5010.0, 5030.0))
    assert figure.axes[0].get_title(loc="left") == "x = 1, y = 2"
    with pytest.raises(UsageError):
        cube.plot(9, 9)


def test_large_cubes_are_read_in_blocks(monkeypatch):
    whole = make()
    expected = [whole.image(5040.0, 20.0).values, whole.snr_map((5010, 5060)).values, whole.aperture_spectrum(3, 2, 1).values]
    monkeypatch.setattr("ifujax.data.blocks._PIXELS", 100)
    found = [whole.image(5040.0, 20.0).values, whole.snr_map((5010, 5060)).values, whole.aperture_spectrum(3, 2, 1).values]
    for one, other in zip(expected, found):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_scaled_planes():
    array = np.arange(24.0, dtype=">f4").reshape(2, 3, 4)
    factor = np.array([2.0, 3.0])[:, None, None]
    plane = Scaled(array, factor)
    assert (plane.shape, plane.ndim, len(plane), plane.dtype) == ((2, 3, 4), 3, 2, np.float64)
    np.testing.assert_array_equal(np.asarray(plane), array * factor)
    np.testing.assert_array_equal(plane[1], array[1] * 3)
    np.testing.assert_array_equal(plane[:, [0, 2], [1, 3]], (array * factor)[:, [0, 2], [1, 3]])
    assert isinstance(plane[1:], Scaled)
    np.testing.assert_array_equal(np.asarray(plane[1:]), array[1:] * 3)
    cube = Cube(values=plane, wavelength=[5000.0, 5001.0])
    np.testing.assert_array_equal(cube.spaxels(np.array([5])).values, [[10.0, 51.0]])
    assert cube.peak() == (3, 2)
    cube.release()
