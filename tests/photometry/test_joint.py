"""Several bands in one fit: the line that they share, errors that include it, and what each image keeps for itself."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from astropy.io import fits

import ifujax
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.images.regrid import regrid_like
from ifujax.simulate import random_scene, simulate_muse
from tests.photometry.scenes import pair

WAVELENGTHS = np.array([5921.0, 7692.0, 8057.0, 9033.0])
SLOPE = -3e-5


def width(wavelength: float) -> float:
    return 0.70 + SLOPE * (wavelength - 7500.0)


def truth(i: int) -> dict[str, float]:
    return {"fwhm": round(width(WAVELENGTHS[i]), 6), "dx": 0.05 * i, "dy": -0.1 * i, "scale": 0.9 + 0.05 * i, "bg": 0.02 * i}


@lru_cache(maxsize=64)
def images(seed: int | None) -> tuple[ifujax.Image, ...]:
    return tuple(pair(**truth(i), seed=None if seed is None else 100 * seed + i).muse for i in range(4))


@lru_cache
def fine_hst() -> ifujax.Image:
    """HST pixels of 0.03 arcsec, small enough for its PSF: those of 0.05 bias a width by half of what four images know it to."""
    return pair(hst_pixel=0.03, hst_shape=(600, 600)).hst


def fit(seed: int | None, **options) -> ifujax.JointPhotometry:
    return ifujax.fit_joint_photometry(fine_hst(), images(seed), WAVELENGTHS, **options)


@pytest.mark.slow
def test_recovers_the_line_and_each_image() -> None:
    found = fit(None)
    assert found.status == 0
    assert found.slope.value == pytest.approx(SLOPE, abs=0.5 * found.slope.error)
    assert found.fwhm.value == pytest.approx(width(found.reference), abs=0.5 * found.fwhm.error)
    assert found.beta.value == pytest.approx(2.8, abs=0.5 * found.beta.error)
    for i, image in enumerate(found.images):
        for name, value in truth(i).items():
            assert image.value(name).value == pytest.approx(value, abs=0.5 * image.value(name).error), (i, name)
        assert image.fwhm.error == pytest.approx(found.fwhm_at(WAVELENGTHS[i]).error)
    assert isinstance(found.psf_at(6563.0), ifujax.MoffatPSF)
    # At the reference wavelength the line is known best, and independent of its slope
    assert abs(found.covariance[found.covariance_names.index("fwhm"), found.covariance_names.index("slope")]) < 1e-12
    assert found.fwhm_at(found.reference).error <= found.fwhm_at(9300.0).error
    alone = ifujax.fit_image_photometry(pair().hst, list(images(None)))
    assert found.fwhm.error < 0.7 * min(each.fwhm.error for each in alone)
    assert found.images[0].scale.error < alone[0].scale.error
    assert "joint fit of 4 images" in found.fit_report()
    assert len(found.plot().axes) >= 1


@pytest.mark.slow
def test_errors_cover() -> None:
    pulls: dict[str, list[float]] = {}
    for seed in range(60):
        found = fit(seed)
        assert found.warn == 0
        pulls.setdefault("slope", []).append((found.slope.value - SLOPE) / found.slope.error)
        pulls.setdefault("fwhm", []).append((found.fwhm.value - width(found.reference)) / found.fwhm.error)
        pulls.setdefault("beta", []).append((found.beta.value - 2.8) / found.beta.error)
        for i, image in enumerate(found.images):
            for name, value in truth(i).items():
                pulls.setdefault(f"{name} of images", []).append((image.value(name).value - value) / image.value(name).error)
    for name, values in pulls.items():
        spread, count = np.std(values), len(values)
        print(f"{name:16} mean {np.mean(values):+.2f}, width {spread:.2f} ({count})")
        # The four images of a fit share beta and the line
        independent = count if name.startswith(("scale", "bg", "dx", "dy")) else 60
        # HST ends 4 arcsec beyond MUSE: the wings of what lies farther away are taken for background
        assert abs(np.mean(values)) < 3.5 / np.sqrt(independent) + (0.35 if name.startswith("bg") else 0.0)
        assert abs(spread - 1.0) < 3.5 / np.sqrt(2 * independent)


@pytest.mark.slow
def test_images_of_other_shapes_and_one_wavelength() -> None:
    whole = images(None)
    cut = whole[1]
    celestial = cut.celestial.deepcopy()
    celestial.wcs.crpix = celestial.wcs.crpix - np.array([4.0, 0.0])
    smaller = replace(cut, values=cut.values[:, 4:-4], variance=cut.variance[:, 4:-4], celestial=celestial)
    found = ifujax.fit_joint_photometry(pair().hst, [whole[1], smaller], [7692.0, 7692.0])
    assert found.slope.fixed
    assert found.slope.value == 0.0
    assert found.images[1].dx.value == pytest.approx(truth(1)["dx"], abs=found.images[1].dx.error)
    assert found.images[1].data.shape == smaller.shape


def test_what_cannot_be() -> None:
    hst, muse = pair().hst, list(images(None))
    for change, message in (
        ({"wavelengths": [5000.0]}, "wavelengths must be one positive number for each of 4 images"),
        ({"wavelengths": [5000.0, 6000.0, -1.0, 8000.0]}, "wavelengths must be"),
        ({"elliptical": True}, "elliptical must be left out in a joint fit"),
        ({"method": "fourier"}, "method must be left out in a joint fit"),
        ({"min_scale": 1.5}, "min_scale must be left out in a joint fit"),
        ({"noise": "correlated"}, "noise must be 'variance' or 'scaled' in a joint fit"),
        ({"fix_slope": 0.0, "fix_fwhm": 0.7, "fix_beta": 2.5}, "must be free in a joint fit"),
        ({"hst": [hst, hst, hst, regrid_like(hst, muse[3])]}, "all native or all regridded"),
        ({"muse": muse[0]}, "muse must be a sequence"),
    ):
        arguments = {"hst": hst, "muse": muse, "wavelengths": WAVELENGTHS, **change}
        with pytest.raises(UsageError, match=message):
            ifujax.fit_joint_photometry(arguments.pop("hst"), arguments.pop("muse"), arguments.pop("wavelengths"), **arguments)


@pytest.mark.slow
def test_images_with_pixels_of_two_sizes() -> None:
    """Frequencies are those of each image's own pixels."""
    scene = random_scene(5, size_arcsec=18.0, n_galaxies=14, n_stars=4)
    wide = simulate_muse(scene, (48, 48), 0.25, fwhm=0.65, beta=2.8, seed=2)
    hst, muse = pair(fwhm=0.65, seed=1).hst, pair(fwhm=0.65, seed=1).muse
    found = ifujax.fit_joint_photometry(hst, [muse, wide], [7000.0, 7000.0])
    assert found.status == 0
    assert found.fwhm.value == pytest.approx(0.65, abs=4 * found.fwhm.error)
    assert found.beta.value == pytest.approx(2.8, abs=4 * found.beta.error)
    for each in found.images:
        assert 0.8 < each.reduced_chi2 < 1.2
    with pytest.raises(DataError, match="must all have a variance, or none"):
        ifujax.fit_joint_photometry(hst, [muse, replace(wide, variance=None)], [7000.0, 7000.0])


def test_other_cameras_are_warned_of() -> None:
    hst = pair().hst
    other = replace(hst, header=fits.Header({"INSTRUME": "WFPC2"}))
    with pytest.warns(IfujaxWarning, match="WFPC2"), pytest.raises(UsageError, match="must be free"):
        ifujax.fit_joint_photometry(other, images(None), WAVELENGTHS, fix_slope=0.0, fix_fwhm=0.7, fix_beta=2.5)
