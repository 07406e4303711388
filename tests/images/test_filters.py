"""Filters of HST: names as cameras write them, and whose calibration wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.io import fits

from ifujax.data.image import Image
from ifujax.errors import UsageError
from ifujax.images.filters import ACS_FILTERS, ab_zero, hst_filter_info


def test_table_agrees_with_the_relation():
    assert len(ACS_FILTERS) == 8
    for each in ACS_FILTERS.values():
        assert ab_zero(each.photflam, each.pivot) == pytest.approx(each.ab_zero, abs=0.03)


def test_ab_zero_is_that_of_the_ab_system():
    # 3631 Jy at the pivot wavelength, erg/s/cm2/Angstrom: the definition, by another way
    photflam, pivot = 7.05e-20, 8057.0
    flux = 3631e-23 * 2.99792458e18 / pivot**2
    assert ab_zero(photflam, pivot) == pytest.approx(2.5 * math.log10(flux / photflam), abs=1e-3)


@pytest.mark.parametrize(
    ("cards", "name"),
    [
        ({"FILTER": "f606w "}, "F606W"),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, "F814W"),
        ({"FILTER1": "F606W", "FILTER2": "CLEAR2L"}, "F606W"),
        ({"FILTER1": "CLEAR1S", "FILTER2": "F775W"}, "F775W"),
        ({"FILTER": "F435W", "FILTER1": "F814W"}, "F435W"),
    ],
)
def test_names_of_acs(cards, name):
    assert hst_filter_info(fits.Header({"INSTRUME": "ACS", **cards})) == ACS_FILTERS[name]


def test_wfpc2_counts_its_filters():
    cards = {"INSTRUME": "WFPC2", "FILTER1": 38, "FILTER2": 0, "FILTNAM1": "F814W   ", "FILTNAM2": ""}
    header = fits.Header({**cards, "PHOTFLAM": 2.507987e-18, "PHOTPLAM": 7995.937, "PHOTBW": 646.1154, "PHOTZPT": -21.1})
    found = hst_filter_info(Image(np.ones((2, 2)), header=header))
    assert (found.name, found.photflam, found.pivot, found.bandwidth) == ("F814W", 2.507987e-18, 7995.937, 646.1154)
    assert found.ab_zero == pytest.approx(22.0793, abs=1e-4)
    with pytest.raises(UsageError, match="PHOTFLAM and PHOTPLAM for images of WFPC2"):
        hst_filter_info(fits.Header(cards))


def test_header_wins_over_the_table():
    header = fits.Header({"FILTER": "F606W", "PHOTFLAM": 8e-20, "PHOTPLAM": 5900.0})
    found = hst_filter_info(header)
    assert (found.photflam, found.pivot) == (8e-20, 5900.0)
    assert math.isnan(found.bandwidth)
    header = fits.Header({"FILTER": "F606W", "PHOTFLAM": 8e-20})
    assert hst_filter_info(header).pivot == ACS_FILTERS["F606W"].pivot
    assert hst_filter_info(header).ab_zero == pytest.approx(ab_zero(8e-20, 5921.1))
    # 0: the pipeline didn't calibrate it
    assert hst_filter_info(fits.Header({"FILTER": "F606W", "PHOTFLAM": 0.0, "PHOTPLAM": 0.0})) == ACS_FILTERS["F606W"]


def test_any_camera_with_a_calibration():
    header = fits.Header({"INSTRUME": "WFC3", "FILTER": "F160W", "PHOTFLAM": 1.93e-20, "PHOTPLAM": 15369.2})
    assert hst_filter_info(header).ab_zero == pytest.approx(25.95, abs=0.01)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("F815W", "unknown HST filter 'F815W'. Did you mean 'F814W'? Known: F435W, F475W"),
        (fits.Header({"FILTER": "F160W"}), "unknown HST filter 'F160W'"),
        (fits.Header(), "must name its filter in FILTER, FILTER1"),
        (fits.Header({"FILTER1": "CLEAR1L", "FILTER2": "CLEAR2L"}), "got FILTER1 = CLEAR1L, FILTER2 = CLEAR2L"),
        (fits.Header({"FILTER1": 38}), "got none of them"),
        (Image(np.ones((2, 2))), "must have a header"),
    ],
)
def test_unknown(source, message):
    with pytest.raises(UsageError) as caught:
        hst_filter_info(source)
    assert message in str(caught.value)
