"""Images through filter curves: weights against adaptive quadrature, the older tool's image, and what is left out."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, interpolate

from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.images.wideband import bandpass_image, read_filter_curve
from ifujax.io.cubes import read_cube
from ifujax.io.demo import minicube_path
from ifujax.io.images import read_image
from tests.reference import reference_data

WAVELENGTH = 5000.0 + 7.0 * np.arange(40)


@pytest.fixture
def cube(rng) -> Cube:
    values = rng.normal(5.0, 1.0, (40, 3, 4))
    values[5, 0, 0] = np.nan
    values[:, 2, 3] = np.nan
    flags = np.zeros(values.shape, np.uint8)
    flags[20:25, 1, 1] = 1
    return Cube(values, WAVELENGTH, rng.uniform(0.5, 2.0, values.shape), "variance", flags=flags, redshift=0.5, unit="x")


def curve(low: float, high: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = np.sort(np.concatenate([[low, high], rng.uniform(low, high, n - 2)]))
    return x, rng.uniform(0.1, 1.0, n)


def expected(cube: Cube, x, y, kind: str, photons: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights by adaptive quadrature between the curve's points; sums by loops."""
    sensitivity = interpolate.interp1d(x, y, kind=kind, bounds_error=False, fill_value=0.0)
    weights = []
    for centre in cube.wavelength:
        knots = [centre - 3.5, *(each for each in x if abs(each - centre) < 3.5), centre + 3.5]
        pieces = [
            integrate.quad(lambda w: float(sensitivity(w)) * (w if photons else 1.0), a, b, epsabs=0, epsrel=1e-12)[0]
            for a, b in pairwise(knots)
            if b > x[0] and a < x[-1]
        ]
        weights.append(sum(pieces))
    values, variance = np.full(cube.shape[1:], np.nan), np.full(cube.shape[1:], np.nan)
    for row, column in np.ndindex(cube.shape[1:]):
        spectrum = cube.values[:, row, column]
        good = np.isfinite(spectrum) & (cube.flags[:, row, column] == 0)
        w = np.array(weights)[good]
        if w.sum() > 0:
            values[row, column] = (w * spectrum[good]).sum() / w.sum()
            variance[row, column] = (w**2 * cube.uncertainty[good, row, column]).sum() / w.sum() ** 2
    return values, variance


@pytest.mark.parametrize("photons", [False, True])
@pytest.mark.parametrize(
    ("kind", "low", "high", "n"),
    [
        ("linear", 5050.3, 5201.9, 70),
        ("linear", 5030.0, 5230.0, 6),
        ("linear", 5101.0, 5103.0, 5),  # within one plane
        ("cubic", 5030.0, 5230.0, 6),
        ("cubic", 5101.0, 5103.0, 5),
    ],
)
def test_against_quadrature(cube, rng, kind, photons, low, high, n):
    x, y = curve(low, high, n, rng)
    found = bandpass_image(cube, x, y, interpolation=kind, photon_weighting=photons)
    values, variance = expected(cube, x, y, kind, photons)
    np.testing.assert_allclose(found.values, values, rtol=1e-9)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-9)
    assert np.isnan(found.values[2, 3])
    assert (found.unit, found.shape) == ("x", (3, 4))


def test_units_of_the_curve(cube, rng):
    x, y = curve(5050.0, 5200.0, 20, rng)
    wanted = bandpass_image(cube, x, y).values
    np.testing.assert_allclose(bandpass_image(cube, x / 10, y, unit="nm").values, wanted, rtol=1e-10)
    np.testing.assert_allclose(bandpass_image(cube, x / 1e4, y, unit="um").values, wanted, rtol=1e-10)
    np.testing.assert_allclose(bandpass_image(cube, (x - 5000) / 7, y, unit=None).values, wanted, rtol=1e-10)
    np.testing.assert_allclose(bandpass_image(cube, x, 1e-9 * y).values, wanted, rtol=1e-10)


def test_truncated_curve_is_said_and_normalised(cube):
    flat = np.ones(2)
    first, last = WAVELENGTH[0] - 3.5, WAVELENGTH[-1] + 3.5
    with pytest.warns(IfujaxWarning, match="^10% of the integrated filter curve is beyond the edges of the cube"):
        found = bandpass_image(cube, np.array([first, last + (last - first) / 9]), flat)
    whole = bandpass_image(cube, np.array([first, last]), flat)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-12)
    np.testing.assert_allclose(whole.values[0, 1], cube.values[:, 0, 1].mean(), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bandpass_image(cube, np.array([first, last + 0.004 * (last - first)]), flat)


def test_a_uniform_cube_stays_so(cube, rng):
    flat = Cube(np.full(cube.shape, 3.25), WAVELENGTH)
    found = bandpass_image(flat, *curve(5050.0, 5200.0, 20, rng), photon_weighting=True)
    np.testing.assert_allclose(found.values, 3.25, rtol=1e-12)
    assert found.variance is None


def test_spatial_mask(cube):
    mask = np.zeros(cube.shape[1:], bool)
    mask[0, 1] = True
    masked = Cube(cube.values, WAVELENGTH, spatial_mask=mask)
    found = bandpass_image(masked, np.array([5050.0, 5100.0]), np.ones(2))
    assert np.isnan(found.values[0, 1])
    assert np.isfinite(found.values[0, 2])


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        ([5100.0, 5000.0], [1, 1], {}, UsageError, "wavelengths ascending"),
        ([5000.0, 5000.0, 5100.0], [1, 1, 1], {}, UsageError, "wavelengths ascending"),
        ([5000.0, 5100.0], [1, np.nan], {}, UsageError, "finite"),
        ([5000.0, 5100.0], [1, 1, 1], {}, UsageError, "two vectors of one length"),
        ([5000.0], [1], {}, UsageError, "two vectors of one length"),
        (["a", "b"], [1, 1], {}, UsageError, "must be numbers"),
        ([500.0, 510.0], [1, 1], {}, DataError, "must overlap the cube, 4996.50 to 5276.50"),
        ([5000.0, 5100.0], [0, 0], {}, DataError, "must overlap the cube"),
        ([5000.0, 5100.0], [1, 1], {"unit": "Hz"}, UsageError, "unit must be one of length"),
        ([5000.0, 5100.0], [1, 1], {"unit": "nonsense"}, UsageError, "unit must be one of length"),
        ([1.0, 5.0], [1, 1], {"unit": None, "photon_weighting": True}, UsageError, "one of length with photon_weighting"),
        ([5000.0, 5100.0], [1, 1], {"interpolation": "cubik"}, UsageError, "Did you mean 'cubic'"),
        ([5000.0, 5100.0], [1, 1], {"interpolation": "cubic"}, UsageError, "four points or more"),
    ],
)
def test_wrong_use(cube, x, y, options, error, message):
    with pytest.raises(error, match=message):
        bandpass_image(cube, x, y, **options)


def test_curve_files(tmp_path):
    path = tmp_path / "f.dat"
    path.write_text("# a filter\n\n5000 0.1 7\n5100, 0.2 # here\n5200\t0.3\n")
    x, y = read_filter_curve(path)
    np.testing.assert_array_equal(x, [5000, 5100, 5200])
    np.testing.assert_array_equal(y, [0.1, 0.2, 0.3])
    path.write_text("5200 0.3\n5100 0.2\n")
    np.testing.assert_array_equal(read_filter_curve(path)[0], [5100, 5200])
    for text, message in (
        ("5000 0.1\n5100\n", "got '5100' in line 2"),
        ("wave trans\n5000 0.1\n", "in line 1"),
        ("5000 0.1\n", "two points or more; got 1"),
        ("", "got 0"),
        ("5000 0.1\n5000 0.2\n5100 0.3\n", "ascending"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_filter_curve(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_filter_curve(path)
    with pytest.raises(DataError, match="No such file"):
        read_filter_curve(tmp_path / "nope")


def test_older_tools_image():
    """Abell 478 through F814W: imphot integrates the same curve by adaptive quadrature."""
    folder = ("image_photometry", "a478")
    with np.load(reference_data(*folder, "bandpass_oracle.npz")) as stored:
        data, variance = stored["data"], stored["var"]
    try:
        cube = read_cube(minicube_path())
    except DataError as error:
        pytest.skip(f"no MUSE cube here: {error}")
    with pytest.warns(IfujaxWarning, match=r"4.2% of the integrated"):
        found = bandpass_image(cube, *read_filter_curve(reference_data(*folder, "wfpc2_F814W.dat")))
    np.testing.assert_allclose(found.values, data, rtol=1e-8)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-8)
    # Its file is in single precision.
    np.testing.assert_allclose(read_image(reference_data(*folder, "wfpc2_F814W_image.fits")).values, found.values, rtol=1e-7)
