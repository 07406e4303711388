"""The FITS file of a posterior: names, units, coordinates, and numbers that are those of the draws."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.errors import DataError, UsageError
from ifujax.inference.sampling.draws import TIERS
from ifujax.inference.status import NO_FIT, POSTERIOR_FLAGS
from ifujax.lines.posteriors import product as module
from ifujax.lines.posteriors.product import PLANES
from ifujax.lines.posteriors.sampled import NOT_ASKED
from tests.lines.posteriors.made_up import CHAINS, DRAWS, NAN, NOT_ASKED_Y, SHAPE, a_posterior

QUANTITIES = ("flux", "amplitude", "velocity", "velocity_dispersion", "sigma", "equivalent_width")
DIAGNOSTICS = ["TIER", "KHAT", "ESS", "RHAT", "ESS_BULK", "ESS_TAIL", "DIVERGENCES", "STATUS"]
OTHERS = ["N2B_HA_LOGRATIO", "HA_W80", "CONTINUUM_0", "CONTINUUM_1"]
X, Y = 5, 4


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    path = tmp_path_factory.mktemp("product") / "out.fits"
    assert a_posterior().write(path) == path
    with fits.open(path, memmap=False) as file:
        file.verify("exception")
        yield file


def test_extensions(product):
    expected = ["PRIMARY"]
    for line in ("HA", "N2B", "N2A"):
        for quantity in QUANTITIES:
            name = f"{line}_{quantity.upper()}"
            expected += [name, f"{name}_ERR", f"{name}_POST"]
            if quantity in ("flux", "amplitude"):
                expected.append(f"{name}_UL95")
        expected.append(f"{line}_DETECTED")
    expected += [f"{name}{suffix}" for name in OTHERS for suffix in ("", "_ERR", "_POST")]
    assert [hdu.name for hdu in product] == [*expected, *DIAGNOSTICS, "FITCONFIG", "PRIORS"]


@pytest.mark.parametrize(
    ("name", "element", "variable"),
    [
        ("HA_FLUX", "ha", "flux"),
        ("N2A_SIGMA", "n2a", "sigma"),
        ("N2B_HA_LOGRATIO", "n2b/ha", "ratio"),
        ("HA_W80", "ha", "velocity_width"),
    ],
)
def test_numbers_are_those_of_the_draws(product, name, element, variable):
    draws = a_posterior().draws(element, variable, X, Y).ravel()
    draws = draws[np.isfinite(draws)]
    low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84])
    assert product[name].data[Y, X] == pytest.approx(middle, rel=1e-5)
    assert product[f"{name}_ERR"].data[Y, X] == pytest.approx(0.5 * (high - low), rel=1e-4)
    planes = dict(zip(PLANES, product[f"{name}_POST"].data[:, Y, X]))
    assert planes["p16"] == pytest.approx(low, rel=1e-5)
    assert planes["p97.5"] == pytest.approx(np.quantile(draws, 0.975), rel=1e-5)
    assert planes["mean"] == pytest.approx(draws.mean(), rel=1e-5)
    assert planes["sd"] == pytest.approx(draws.std(ddof=1), rel=1e-4)
    header = product[f"{name}_POST"].header
    assert [header[f"PLANE{i}"] for i in range(1, 10)] == ["p2.5", "p5", "p16", "p50", "p84", "p95", "p97.5", "mean", "sd"]
    assert product[f"{name}_POST"].data.dtype == np.dtype(">f4")


def test_limits_and_detections(product):
    draws = a_posterior().draws("n2b", "flux", X, Y)
    assert product["N2B_FLUX_UL95"].data[Y, X] == pytest.approx(np.quantile(draws, 0.95), rel=1e-5)
    detected = product["N2B_DETECTED"].data
    seen = np.abs(product["N2B_FLUX"].data) > 3 * product["N2B_FLUX_ERR"].data
    np.testing.assert_array_equal(detected == 1, seen)
    assert 0 < detected.sum() < SHAPE[0] * SHAPE[1]


def test_spaxels_without_draws(product):
    assert np.isnan(product["HA_FLUX"].data[NAN])
    assert np.isnan(product["HA_FLUX"].data[NOT_ASKED_Y:]).all()
    status = product["STATUS"].data
    assert status[NAN] == NO_FIT.value
    assert (status[NOT_ASKED_Y:] == NOT_ASKED.value).all()
    assert (product["TIER"].data[status == 0] > 0).all()
    assert np.isnan(product["HA_VELOCITY_POST"].data[:, *NAN]).all()
    assert product["DIVERGENCES"].data.sum() == 3
    np.testing.assert_array_equal(np.isfinite(product["RHAT"].data), product["TIER"].data == 2)


def test_bits_and_tiers_are_named(product):
    header = product["STATUS"].header
    for flag in (*POSTERIOR_FLAGS, NOT_ASKED):
        assert header[f"BIT{flag.value.bit_length() - 1}"] == flag.name
        assert any(flag.sentence in str(text) for text in header["COMMENT"])
    assert [product["TIER"].header[f"TIER{k}"] for k in range(3)] == list(TIERS)


def test_units_and_coordinates(product):
    post = a_posterior()
    for name in ("HA_FLUX", "HA_FLUX_POST", "HA_FLUX_UL95", "HA_VELOCITY", "HA_SIGMA_ERR", "HA_EQUIVALENT_WIDTH", "HA_W80"):
        units.Unit(product[name].header["BUNIT"], format="fits", parse_strict="raise")
    assert units.Unit(product["HA_VELOCITY"].header["BUNIT"]) == units.km / units.s
    assert product["N2B_HA_LOGRATIO"].header["BUNIT"] == "dex"
    assert product["HA_FLUX"].header["RESTWAVE"] == 6562.8
    for name in ("HA_FLUX", "HA_FLUX_POST", "STATUS", "CONTINUUM_0"):
        wcs = WCS(product[name].header).celestial
        np.testing.assert_allclose(wcs.wcs_pix2world([[3, 4]], 0), post.fit.cube.celestial.wcs_pix2world([[3, 4]], 0))


def test_header_says_how_it_was_made(product):
    header = product[0].header
    assert (header["METHOD"], header["SEED"], header["NDRAWS"], header["NCHAINS"]) == ("auto", 11, CHAINS * DRAWS, CHAINS)
    post = a_posterior()
    assert header["NSAMPLED"] == (post.tier > 0).sum()
    assert header["NDOUBT"] == 2
    assert header["ERRTYPE"] == "posterior"
    assert header["NPYROVER"]
    assert header["JAXVER"]
    comments = " ".join(str(text) for text in header["COMMENT"])
    assert "Conventions of this posterior" in comments
    assert "covariance of the fit" not in comments
    assert not any("SOLUTION" in str(card) for card in header.cards)
    assert header["SIGMATYP"] == "observed"
    names = dict(zip(product["FITCONFIG"].data["parameters"], product["FITCONFIG"].data["values"]))
    assert names["ha.rest_wavelength"] == "6562.8"
    text = "\n".join(product["PRIORS"].data["priors"])
    assert "-400 to 400" in text
    assert "half-normal" in text


def test_compressed_and_overwritten(tmp_path):
    path = tmp_path / "out.fits.gz"
    post = a_posterior((), ())
    post.write(path)
    with fits.open(path) as file:
        assert "HA_W80" not in file
        assert file["HA_FLUX"].data.shape == SHAPE
    with pytest.raises(UsageError, match="must not exist"):
        post.write(path)
    post.write(path, overwrite=True)


def test_ratios_and_groups_of_like_names_have_names_of_their_own(tmp_path):
    post = a_posterior((("n2b", "ha"), ("ha", "n2b")), (("ha",), ("ha", "n2b")))
    post.write(tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as file:
        names = [hdu.name for hdu in file]
    assert len(set(names)) == len(names)
    assert {"HA_N2B_LOGRATIO", "N2B_HA_LOGRATIO", "HA_W80", "HA+N2B_W80"} <= set(names)


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", full)
    with pytest.raises(DataError, match="full disk"):
        a_posterior().write(tmp_path / "out.fits")
    assert list(tmp_path.iterdir()) == []


def test_quantities_of_lines_that_have_none_are_left_out(tmp_path):
    post = a_posterior()
    layout = replace(post.layout, quantities=(*post.quantities, "h3"))
    empty = np.full_like(post.sampled.summary["flux"], np.nan)
    empty[:, 0] = 0.1  # of the first line alone
    sampled = replace(post.sampled, summary=post.sampled.summary | {"h3": empty})
    module.write_posterior_product(replace(post, layout=layout, sampled=sampled), tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as file:
        assert [hdu.name for hdu in file if "H3" in hdu.name] == ["HA_H3", "HA_H3_ERR", "HA_H3_POST"]
