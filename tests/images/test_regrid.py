"""HST images on MUSE pixels: against integrals of the filter, what is conserved and masked, and the older tool's images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy import integrate, special

from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.images.filters import ACS_FILTERS
from ifujax.images.regrid import images_aligned, regrid_like, rescale_like
from ifujax.io.demo import a478_hst_path, hdfs_paths
from ifujax.io.images import read_image
from tests.reference import reference_data

FLUX = "10**(-20)*erg/s/cm**2/Angstrom"
FOLDER = "image_photometry"


def grid(shape: tuple[int, int], step: float, angle: float = 0.0, **options) -> WCS:
    """Pixels of `step` arcsec, the sky's (53.16, -27.78) at their middle; north `angle` degrees clockwise of up."""
    turn = np.deg2rad(angle)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = options.get("ctype", ["RA---TAN", "DEC--TAN"])
    wcs.wcs.crval = options.get("crval", [53.16, -27.78])
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = step / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.radesys = options.get("radesys", "ICRS")
    if "equinox" in options:
        wcs.wcs.equinox = options["equinox"]
    wcs.wcs.set()
    return wcs


def blank(shape: tuple[int, int], step: float, angle: float = 0.0, **options) -> Image:
    return Image(np.zeros(shape), celestial=grid(shape, step, angle, **options), unit=FLUX, name="blank")


def gaussian(
    shape: tuple[int, int], step: float, sigma: float, angle: float = 0.0, at: tuple[float, float] = (0.0, 0.0)
) -> Image:
    """A source of flux 1: `sigma` and its place (arcsec from the middle, along the pixels) on pixels of `step`."""
    y, x = np.indices(shape, dtype=float)
    u, v = (x - (shape[1] - 1) / 2) * step - at[0], (y - (shape[0] - 1) / 2) * step - at[1]
    values = np.exp(-0.5 * (u**2 + v**2) / sigma**2) * step**2 / (2 * np.pi * sigma**2)
    return Image(values + 1e-9, celestial=grid(shape, step, angle), name="hst", header=fits.Header({"FILTER": "F606W"}))


def filtered_profile(radius: np.ndarray, sigma: float, step: float) -> np.ndarray:
    """The source after the low-pass for pixels of `step`, by quadrature of the Hankel transform; per pixel."""
    limit = 0.5 / step

    def integrand(k: float, r: float) -> float:
        f = k / limit
        window = 0.42 + 0.5 * np.cos(np.pi * f) + 0.08 * np.cos(2 * np.pi * f)
        return window * np.exp(-2 * (np.pi * sigma * k) ** 2) * special.j0(2 * np.pi * k * r) * 2 * np.pi * k

    return step**2 * np.array([integrate.quad(integrand, 0, limit, args=(r,), epsabs=1e-10)[0] for r in radius.ravel()]).reshape(
        radius.shape
    )


@pytest.mark.parametrize("angle", [0.0, 57.3])
@pytest.mark.parametrize(("step", "sigma"), [(0.05, 0.1), (0.1, 0.15)])
def test_against_the_filters_integral(step, sigma, angle):
    """Whatever the orientation of HST: nothing is blurred but by the filter."""
    n = round(16 / step)
    muse = blank((40, 44), 0.2)
    found = regrid_like(gaussian((n, n + 6), step, sigma, angle), muse)
    y, x = np.indices(muse.shape)
    expected = filtered_profile(np.hypot((x - 21.5) * 0.2, (y - 19.5) * 0.2), sigma, 0.2)
    np.testing.assert_allclose(found.values, expected, atol=2e-4 * expected.max())
    assert found.values.sum() == pytest.approx(1.0, abs=1e-3)
    assert images_aligned(found, muse)
    assert found.header["FILTER"] == "F606W"


def test_place_and_light_from_beyond_the_edge():
    source = gaussian((320, 320), 0.05, 0.1, at=(2.0, -1.0))
    small = blank((16, 16), 0.2)
    found, whole = regrid_like(source, small), regrid_like(source, blank((40, 40), 0.2))
    np.testing.assert_allclose(found.values, whole.values[12:28, 12:28], atol=1e-4 * whole.values.max())
    y, x = np.indices((40, 40))
    assert (whole.values * x).sum() / whole.values.sum() == pytest.approx(19.5 + 2.0 / 0.2, abs=0.02)
    assert (whole.values * y).sum() / whole.values.sum() == pytest.approx(19.5 - 1.0 / 0.2, abs=0.02)


def test_masks():
    hst = gaussian((320, 320), 0.05, 1.0)
    values = hst.values + 0.01  # a background: holes must not pull it to 0
    clean = regrid_like(replace(hst, values=values), blank((40, 40), 0.2)).values
    holes = values.copy()
    holes[100, 120] = np.nan
    holes[200:220, 180:210] = 0.0  # no data in drizzled images
    holes[:, 230:] = 1e-12
    found = regrid_like(replace(hst, values=holes), blank((40, 40), 0.2)).values
    # Pixel i of HST lies at (i - 159.5) / 4 + 19.5 of MUSE: the single one at (9.6, 4.6), the block within 24.6-32, 29.6-34.5.
    good = np.isfinite(found)
    assert not good[5, 10]
    assert not good[30:35, 25:33].any()
    assert not good[:, 37:].any()
    assert (~good[:, :36]).sum() < 1 + 5 * 8 + 40
    assert good[15, 5]
    np.testing.assert_allclose(found[good], clean[good], rtol=2e-2)


def test_beyond_hst_is_masked():
    muse = blank((40, 40), 0.2)
    found = regrid_like(gaussian((100, 100), 0.05, 0.3), muse)
    assert np.isfinite(found.values).sum() == pytest.approx(24**2, abs=60)
    assert np.isfinite(found.values[19, 19])
    assert np.isnan(found.values[0]).all()
    with pytest.raises(DataError, match="the images must overlap; got hst without data in blank"):
        regrid_like(gaussian((100, 100), 0.05, 0.3), blank((40, 40), 0.2, crval=[53.2, -27.78]))
    empty = replace(gaussian((100, 100), 0.05, 0.3), values=np.zeros((100, 100)))
    with pytest.raises(DataError, match="must overlap"):
        regrid_like(empty, muse)


def test_images_in_small_units_are_not_empty():
    hst = gaussian((320, 320), 0.05, 0.3)
    tiny = replace(hst, values=hst.values * 1e-18)
    tiny.values[:, :150] = 0.0
    muse = blank((20, 20), 0.2)
    hst.values[:, :150] = 0.0
    found = regrid_like(tiny, muse).values
    np.testing.assert_allclose(found, 1e-18 * regrid_like(hst, muse).values, rtol=1e-9)
    assert 0.3 < np.isnan(found).mean() < 0.5


def test_variance_is_that_of_the_noise(rng):
    """The scatter of one pixel over many realisations of independent noise."""
    step, muse = 0.1, blank((6, 6), 0.2)
    hst = gaussian((60, 60), step, 1.0, angle=20.0)
    hst = replace(hst, variance=np.full(hst.shape, 0.04))
    found = regrid_like(hst, muse)
    drawn = np.array([regrid_like(replace(hst, values=1 + rng.normal(0, 0.2, hst.shape)), muse).values for _ in range(300)])
    assert drawn.var(axis=0).mean() == pytest.approx(found.variance.mean(), rel=0.05)


def test_coarse_hst_pixels_are_warned_of():
    with pytest.warns(IfujaxWarning, match=r"pixels of hst are 2\.5 times as wide"):
        regrid_like(gaussian((60, 60), 0.5, 1.0), blank((20, 20), 0.2))


def test_a_cube_gives_its_grid():
    muse = blank((12, 14), 0.2)
    cube = Cube(np.ones((3, 12, 14)), np.array([5000.0, 5001.0, 5002.0]), celestial=muse.celestial, unit=FLUX)
    hst = gaussian((320, 320), 0.05, 0.3)
    np.testing.assert_array_equal(regrid_like(hst, cube).values, regrid_like(hst, muse).values)
    assert images_aligned(cube, muse)
    assert rescale_like(hst, cube).unit == FLUX


def test_coordinates_are_needed_and_of_one_system():
    hst, muse = gaussian((320, 320), 0.05, 0.3), blank((20, 20), 0.2)
    for one, other in ((replace(hst, celestial=None), muse), (hst, replace(muse, celestial=None))):
        with pytest.raises(DataError, match="must have celestial coordinates"):
            regrid_like(one, other)
    with pytest.raises(DataError, match="coordinates in one system; got icrs in hst and fk4"):
        regrid_like(hst, blank((20, 20), 0.2, radesys="FK4", equinox=1950.0))
    with pytest.raises(DataError, match="coordinates in one system"):
        regrid_like(hst, blank((20, 20), 0.2, ctype=["GLON-TAN", "GLAT-TAN"]))
    # FK5 of 2000 and ICRS are 0.02 arcsec apart: one for this purpose
    found = regrid_like(hst, blank((20, 20), 0.2, radesys="FK5", equinox=2000.0))
    np.testing.assert_array_equal(found.values, regrid_like(hst, muse).values)


def test_aligned():
    muse = blank((30, 40), 0.2)
    assert images_aligned(muse, blank((30, 40), 0.2))
    assert not images_aligned(muse, blank((30, 41), 0.2))
    moved = 1 / 3600 / np.cos(np.deg2rad(27.78))
    assert images_aligned(muse, blank((30, 40), 0.2, crval=[53.16 + 0.009 * moved, -27.78]))
    assert not images_aligned(muse, blank((30, 40), 0.2, crval=[53.16 + 0.011 * moved, -27.78]))
    assert images_aligned(muse, blank((30, 40), 0.2, crval=[53.16, -27.78 + 0.1 / 3600]), tolerance=0.11)
    # 0.05 degrees, or a thousandth of the scale, are more than 0.01 arcsec at the corners
    assert not images_aligned(muse, blank((30, 40), 0.2, 0.2))
    assert not images_aligned(muse, blank((30, 40), 0.2005))
    east = blank((30, 40), 0.2, crval=[359.999999, 0.0])
    assert images_aligned(east, blank((30, 40), 0.2, crval=[-0.000001, 0.0]))
    with pytest.raises(DataError, match="must have celestial coordinates"):
        images_aligned(muse, replace(muse, celestial=None))


def test_rescaling():
    hst = replace(gaussian((20, 20), 0.05, 0.3), unit="ELECTRONS/S", variance=np.full((20, 20), 4.0))
    factor = ACS_FILTERS["F606W"].photflam * 1e20
    for muse in (blank((5, 5), 0.2), FLUX, "10**-20 erg Angstrom-1 s-1 cm-2", "1e-20 erg/s/cm2/A"):
        found = rescale_like(hst, muse)
        np.testing.assert_allclose(found.values, hst.values * factor, rtol=1e-12)
        np.testing.assert_allclose(found.variance, 4.0 * factor**2, rtol=1e-12)
    np.testing.assert_allclose(rescale_like(hst, "erg/s/cm**2/Angstrom").values, hst.values * factor * 1e-20, rtol=1e-12)
    other = rescale_like(hst, FLUX, filter_info=ACS_FILTERS["F814W"])
    np.testing.assert_allclose(other.values, hst.values * 7.05, rtol=1e-12)
    # Once in a unit of flux it is only converted, whatever the filter.
    again = rescale_like(replace(rescale_like(hst, FLUX), header=None), "erg/s/cm**2/Angstrom")
    np.testing.assert_allclose(again.values, hst.values * factor * 1e-20, rtol=1e-12)


@pytest.mark.parametrize("unit", ["", "COUNTS", "Jy", "erg", "nonsense"])
def test_muse_needs_a_unit_of_flux(unit):
    with pytest.raises(DataError, match="muse must have a unit of flux density"):
        rescale_like(gaussian((20, 20), 0.05, 0.3), unit)


def test_hst_in_total_counts_or_of_unknown_filter():
    hst = gaussian((20, 20), 0.05, 0.3)
    with pytest.raises(DataError, match=r"counts per second .* got ELECTRONS\. Divide it by its exposure time"):
        rescale_like(replace(hst, unit="ELECTRONS"), FLUX)
    with pytest.raises(UsageError, match="unknown HST filter 'F999W'"):
        rescale_like(replace(hst, header=fits.Header({"FILTER": "F999W"})), FLUX)


def real_a478() -> tuple[Image, Image, Image]:
    hst = read_image(a478_hst_path())
    muse = read_image(reference_data(FOLDER, "a478", "wfpc2_F814W_image.fits"))
    return hst, muse, read_image(reference_data(FOLDER, "a478", "hst_F814W_for_a478.fits"))


def real_hdfs() -> tuple[Image, Image, Image]:
    muse = read_image(reference_data(FOLDER, "hdfs", "muse_hdfs.fits"))
    return read_image(hdfs_paths()[1]), muse, read_image(reference_data(FOLDER, "hdfs", "hst_F606W_for_hdfs.fits"))


def synthetic() -> tuple[Image, Image, Image]:
    hst, muse, stored = ("hst_native.fits", "S1_noiseless.fits", "hst_on_muse.fits")
    return tuple(read_image(reference_data(FOLDER, "synth", name)) for name in (hst, muse, stored))


@pytest.mark.parametrize(("load", "limit"), [(real_a478, 2e-3), (real_hdfs, 1e-3), (synthetic, 5e-4)])
def test_older_tools_images(load, limit):
    """The same, less its blur of linear interpolation: within 1 % rms of the peak is what must be; it is far less."""
    try:
        hst, muse, stored = load()
    except DataError as error:
        pytest.skip(f"no HST image here: {error}")
    assert images_aligned(muse, stored)
    found = rescale_like(regrid_like(hst, muse), muse)
    both = np.isfinite(found.values) & np.isfinite(stored.values)
    assert both.sum() >= 0.98 * np.isfinite(stored.values).sum()
    difference = (found.values - stored.values)[both] / np.nanmax(stored.values)
    print(f"\n{load.__name__}: rms {100 * difference.std():.3f} % of peak, largest {100 * np.abs(difference).max():.2f} %")
    assert np.sqrt(np.mean(difference**2)) < limit
    assert found.values[both].sum() == pytest.approx(stored.values[both].sum(), rel=5e-3)
