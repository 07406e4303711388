"""Spectra: images, bands, planes, tables, and what is said about them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.cubes import read_cube
from ifujax.io.spectra import read_spectrum
from ifujax.io.spectrum_tables import SDSS_BITS
from tests.io.files import SHAPE, data, image, table, write
from tests.reference import reference_data

N = 30
FLUX = np.linspace(1.0, 4.0, N)
WAVES = 5000.0 + 2.0 * np.arange(N)
AXIS = {"CRVAL1": 5000.0, "CRPIX1": 1.0, "CD1_1": 2.0}


def primary(path, array: np.ndarray, cards: dict, *more):
    first = fits.PrimaryHDU(array)
    first.header.update(cards)
    fits.HDUList([first, *more]).writeto(path)
    return path


# Images


@pytest.mark.parametrize("shape", [(N,), (1, N), (1, 1, N)])
def test_primary_image(tmp_path, shape):
    path = primary(tmp_path / "s.fits", FLUX.reshape(shape), AXIS | {"REDSHIFT": 0.01, "BUNIT": "erg/cm2/s/A"})
    spectrum = read_spectrum(path)
    np.testing.assert_array_equal(spectrum.values, FLUX)
    np.testing.assert_allclose(spectrum.wavelength, WAVES)
    assert (spectrum.redshift, spectrum.unit, spectrum.medium) == (0.01, "erg/cm2/s/A", "unknown")
    assert spectrum.uncertainty is None


@pytest.mark.parametrize(("unit", "factor"), [("nm", 10.0), ("um", 1e4), ("m", 1e10)])
def test_units_of_length(tmp_path, unit, factor):
    cards = {"CRVAL1": 5000.0 / factor, "CDELT1": 2.0 / factor, "CUNIT1": unit, "CTYPE1": "AWAV"}
    spectrum = read_spectrum(primary(tmp_path / "s.fits", FLUX, cards))
    np.testing.assert_allclose(spectrum.wavelength, WAVES, rtol=1e-14)
    assert spectrum.medium == "air"


def test_iraf_logarithm(tmp_path):
    cards = {"CRVAL1": 3.7, "CD1_1": 1e-4, "DC-FLAG": 1, "WAT1_001": "wtype=linear label=Wavelength units=angstroms"}
    np.testing.assert_allclose(
        read_spectrum(primary(tmp_path / "s.fits", FLUX, cards)).wavelength, 10 ** (3.7 + 1e-4 * np.arange(N))
    )


def test_named_planes_and_compressed_files(tmp_path):
    planes = [image("F", FLUX, AXIS), image("V", FLUX * 0 + 4), image("Q", np.arange(N) % 2), image("S", FLUX / 2)]
    path = write(tmp_path / "s.fits.gz", *planes)
    spectrum = read_spectrum(path, scidata="F", variance="V", flags="Q", stellar="S", redshift=0.1)
    assert spectrum.uncertainty_kind == "variance"
    np.testing.assert_array_equal(spectrum.bad, np.arange(N) % 2 == 1)
    assert spectrum.as_cube().spaxels(np.array([0])).stellar[0, 0] == pytest.approx(0.55)
    with pytest.raises(DataError, match=r"scidata must be named.*4 1-D images.*F \(30,\); V"):
        read_spectrum(path)
    assert read_spectrum(path, scidata=1, flags="Q", flag_bits=2).bad.sum() == 0


def test_mpdaf_spectrum(tmp_path):
    quality = (np.arange(N) == 3).astype(np.uint8)
    path = write(tmp_path / "s.fits", image("DATA", FLUX, AXIS), image("STAT", FLUX), image("DQ", quality))
    spectrum = read_spectrum(path)
    assert spectrum.uncertainty_kind == "variance"
    np.testing.assert_array_equal(np.flatnonzero(spectrum.bad), [3])
    assert "MPDAF spectrum" in spectrum.notes[0]


def test_wavelength_vector(tmp_path):
    path = write(tmp_path / "s.fits", image("SCI", FLUX), image("WAVE", WAVES / 10, {"BUNIT": "nm", "CTYPE1": "WAVE"}))
    spectrum = read_spectrum(path, wavelength="WAVE", scidata="SCI")
    np.testing.assert_allclose(spectrum.wavelength, WAVES)
    assert spectrum.medium == "vacuum"


def test_header_of_a_cube(tmp_path):
    cards = {"CTYPE1": "LINEAR", "CRVAL1": 6.0, "CD1_1": -1.0, "CRVAL2": 0.1, "CD2_2": 1.0, "CRVAL3": 5000.0, "CD3_3": 2.0}
    path = primary(tmp_path / "a.fits", FLUX, cards)
    with pytest.raises(
        DataError, match=r"which of its 3 axes is the wavelength; got 1: CTYPE1 = 'LINEAR', CRVAL1 = 6.0.*wcs_axis: 3"
    ):
        read_spectrum(path)
    np.testing.assert_allclose(read_spectrum(path, wcs_axis=3).wavelength, WAVES)
    path = primary(tmp_path / "b.fits", FLUX, cards | {"CTYPE3": "LAMBDA"})
    np.testing.assert_allclose(read_spectrum(path).wavelength, WAVES)
    with pytest.raises(UsageError, match="wcs_axis must be 1, 2 or 3"):
        read_spectrum(path, wcs_axis=4)


def test_flux_density_per_frequency(tmp_path):
    path = primary(tmp_path / "s.fits", FLUX, AXIS | {"BUNIT": "Jy"}, image("E", FLUX * 0.1))
    with pytest.warns(IfujaxWarning, match="per frequency"):
        spectrum = read_spectrum(path, scidata=0, error="E")
    np.testing.assert_allclose(spectrum.values, FLUX * 1e-23 * 2.99792458e18 / WAVES**2)
    np.testing.assert_allclose(spectrum.uncertainty, 0.1 * spectrum.values)


# IRAF


def bands(path, names: list[str], cards: dict | None = None, spectra: int = 1):
    planes = np.stack([np.tile(FLUX * (k + 1), (spectra, 1)) for k in range(len(names))])
    head = {f"BANDID{k + 1}": name for k, name in enumerate(names)}
    return primary(path, planes, AXIS | {"CTYPE1": "LINEAR", "CD2_2": 1.0, "CD3_3": 1.0, "WCSDIM": 3} | head | (cards or {}))


def test_bands(tmp_path):
    names = ["spectrum - background fit", "raw - weights none", "background - fit", "sigma - background fit"]
    spectrum = read_spectrum(bands(tmp_path / "s.fits", names))
    np.testing.assert_array_equal(spectrum.values, FLUX)
    np.testing.assert_array_equal(spectrum.uncertainty, 4 * FLUX)
    assert spectrum.uncertainty_kind == "error"
    assert "Not used: band 2 (raw - weights none), 3 (background - fit)" in spectrum.notes[1]
    assert read_spectrum(bands(tmp_path / "t.fits", names[:2])).uncertainty is None
    with pytest.raises(DataError, match="must hold one spectrum; got 2"):
        read_spectrum(bands(tmp_path / "u.fits", names, spectra=2))
    with pytest.raises(DataError, match="error must be left out.*BANDIDs say what is what"):
        read_spectrum(tmp_path / "s.fits", error="4")


@pytest.mark.parametrize(("kind", "redshift"), [(0, 0.0), (1, 0.0), (0, 0.01)])
def test_multispec(tmp_path, kind, redshift):
    start, step = (5000.0, 2.0) if kind == 0 else (3.7, 1e-4)
    text = f'wtype=multispec spec1 = "1 1 {kind} {start} {step} {N} {redshift} 1. 9."'
    cards = {"CTYPE1": "MULTISPE", "WAT1_001": "wtype=multispec label=Wavelength units=angstroms"}
    # 68 characters a card, with a blank at the end of the first one that astropy strips.
    text = text.replace("spec1", " " * (68 - text.index('"') - len(f"1 1 {kind} ")) + "spec1")
    cards |= {"WAT2_001": text[:68].rstrip(), "WAT2_002": text[68:]}
    expected = (start + step * np.arange(N)) if kind == 0 else 10 ** (start + step * np.arange(N))
    spectrum = read_spectrum(primary(tmp_path / "s.fits", FLUX, cards))
    np.testing.assert_allclose(spectrum.wavelength, expected / (1 + redshift))


def test_multispec_function_is_refused(tmp_path):
    text = f'wtype=multispec spec1 = "1 1 2 5000. 2. {N} 0. 1. 9. 1. 0. 1 3"'
    path = primary(tmp_path / "s.fits", FLUX, {"CTYPE1": "MULTISPE", "WAT2_001": text})
    with pytest.raises(DataError, match="got a dispersion function.*dispcor"):
        read_spectrum(path)


# Tables


def test_table(tmp_path):
    columns = table("SPEC", WAVE=(WAVES / 10, "nm"), Flux=(FLUX, "erg/s/cm2/Angstrom"), ERR=FLUX * 0.1, QUAL=np.arange(N) % 3)
    spectrum = read_spectrum(write(tmp_path / "s.fits", columns))
    np.testing.assert_allclose(spectrum.wavelength, WAVES)
    np.testing.assert_allclose(spectrum.uncertainty, 0.1 * FLUX)
    assert (spectrum.uncertainty_kind, spectrum.unit) == ("error", "erg/s/cm2/Angstrom")
    np.testing.assert_array_equal(spectrum.bad, np.arange(N) % 3 != 0)
    assert "column Flux of s.fits[SPEC]; error: ERR; flags: QUAL" in spectrum.notes[0]


def test_one_row_table(tmp_path):
    columns = table("SPEC", WAVE=(WAVES[None], "Angstrom"), FLUX=FLUX[None], IVAR=FLUX[None])
    spectrum = read_spectrum(write(tmp_path / "s.fits", columns))
    np.testing.assert_array_equal(spectrum.values, FLUX)
    assert spectrum.uncertainty_kind == "ivar"


def test_sdss(tmp_path):
    mask = np.zeros(N, dtype=np.int64)
    mask[[2, 5]] = 1 << 24, 1 << 16
    coadd = table("COADD", flux=FLUX, loglam=np.log10(WAVES), ivar=FLUX, and_mask=mask, or_mask=mask, model=FLUX)
    path = write(tmp_path / "s.fits", coadd, primary={"BUNIT": "1E-17 erg/cm^2/s/Ang"})
    spectrum = read_spectrum(path)
    np.testing.assert_allclose(spectrum.wavelength, WAVES)
    assert (spectrum.medium, spectrum.uncertainty_kind, spectrum.flag_bits) == ("vacuum", "ivar", SDSS_BITS)
    assert spectrum.unit == "1E-17 erg/cm^2/s/Ang"
    np.testing.assert_array_equal(np.flatnonzero(spectrum.bad), [2])
    np.testing.assert_array_equal(np.flatnonzero(read_spectrum(path, flag_bits=1 << 16).bad), [5])
    np.testing.assert_array_equal(np.flatnonzero(read_spectrum(path, flags="and_mask").bad), [2, 5])


def test_named_columns(tmp_path):
    columns = table("SPEC", x=(WAVES, "Angstrom"), y=FLUX, noise=FLUX, model=FLUX / 2, short=FLUX)
    path = write(tmp_path / "s.fits", columns, table("OTHER", a=np.arange(3)))
    spectrum = read_spectrum(path, scidata="Y", wavelength="x", variance="noise", stellar="model")
    assert (spectrum.uncertainty_kind, spectrum.stellar[0]) == ("variance", 0.5)
    with pytest.raises(DataError, match=r"wavelength must name a column of s.fits\[SPEC\]; got unknown column 'wavelength'"):
        read_spectrum(path, scidata="y")
    with pytest.raises(DataError, match="error must name a column.*unknown column 'nois'. Did you mean 'noise'"):
        read_spectrum(path, scidata="y", wavelength="x", error="nois")
    with pytest.raises(DataError, match="scidata must be named"):
        read_spectrum(path)
    with pytest.raises(DataError, match="scidata must name a column"):
        read_spectrum(path, scidata="SPEC", wavelength="x")


def test_jwst_table(tmp_path):
    columns = table("EXTRACT1D", WAVELENGTH=(WAVES / 1e4, "um"), FLUX=(FLUX, "Jy"), FLUX_ERROR=(FLUX, "Jy"), DQ=np.arange(N) % 4)
    path = write(tmp_path / "s.fits", columns, primary={"TELESCOP": "JWST"})
    with pytest.warns(IfujaxWarning, match="per frequency"):
        spectrum = read_spectrum(path)
    assert (spectrum.medium, spectrum.flag_bits, spectrum.uncertainty_kind) == ("vacuum", 1, "error")
    np.testing.assert_array_equal(spectrum.bad, np.arange(N) % 2 == 1)


# Wrong files


def test_cube_and_spectrum_are_told_apart(tmp_path):
    cube = write(tmp_path / "c.fits", image("SCI", data()))
    with pytest.raises(
        DataError, match=r"got c.fits\[SCI\] with shape \(20, 4, 5\).*It looks like a cube: use read_cube \(fit-cube\)"
    ):
        read_spectrum(cube)
    spectrum = primary(tmp_path / "s.fits", FLUX, AXIS)
    with pytest.raises(DataError, match=r"It looks like a spectrum: use read_spectrum \(fit-spectrum\)"):
        read_cube(spectrum)


def test_wrong_lengths_and_arguments(tmp_path):
    path = write(tmp_path / "s.fits", image("SCI", FLUX, AXIS), image("V", FLUX[:5]), image("CUBE", np.ones(SHAPE)))
    with pytest.raises(DataError, match=r"variance must have the shape of the data, \(30,\); got \(5,\)"):
        read_spectrum(path, variance="V")
    with pytest.raises(DataError, match=r"flags must have the shape"):
        read_spectrum(path, flags="CUBE")
    with pytest.raises(UsageError, match="got variance and error"):
        read_spectrum(path, variance="V", error="V")
    with pytest.raises(UsageError, match="flag_bits must come with flags"):
        read_spectrum(path, flag_bits=4)
    noisy = write(tmp_path / "t.fits", image("F", FLUX, AXIS), image("VAR", FLUX))
    with pytest.warns(IfujaxWarning, match="has VAR: it isn't used"):
        read_spectrum(noisy, scidata="F")


# The files of IFSCube


def test_extensions_that_the_nucleus_does_not_have():
    path = reference_data("line_fitting", "ngc6300_nuc.fits")
    with pytest.raises(DataError) as caught:
        read_spectrum(path, scidata="F_OBS", primary=0, variance="F_VAR", flags="F_FLAG", stellar="F_SYN")
    assert str(caught.value) == (
        "scidata, variance, flags, stellar must name extensions of ngc6300_nuc.fits; it has no F_OBS, F_VAR, F_FLAG, F_SYN. "
        "Known: SCI. Say scidata: SCI, and leave variance, flags, stellar out."
    )
    spectrum = read_spectrum(path, scidata="SCI", primary="SCI")
    assert spectrum.redshift == 0.003699
    np.testing.assert_allclose(spectrum.wavelength[[0, -1]], [4415.392, 4415.392 + 0.46293 * 5554])
    assert spectrum.uncertainty is None


@pytest.mark.parametrize("named", [False, True])
def test_the_manga_spectrum(named):
    path = reference_data("line_fitting", "manga_onedspec.fits")
    planes = {"scidata": "F_OBS", "variance": "F_VAR", "flags": "F_FLAG", "stellar": "F_SYN"} if named else {}
    spectrum = read_spectrum(path, **planes)
    assert spectrum.values.shape == (6801,)
    # PC1_1 = 1e-10 and metres.
    np.testing.assert_allclose(spectrum.wavelength[[0, -1]], [3600.0, 10400.0], rtol=1e-14)
    assert (spectrum.uncertainty_kind, spectrum.medium, spectrum.redshift) == ("variance", "air", 0.0)
    assert spectrum.bad.sum() == 929
    assert spectrum.stellar.max() > 2
    spectrum.check()
