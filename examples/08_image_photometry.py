"""
The PSF of an image
===================

A MUSE image of the Hubble Deep Field South is compared with that of HST: the point-spread function, the flux scale, the
background and the pointing come out, each with an error. At the end four bands are fitted together.

The images come from PyPI on first use (60 MB, kept in your cache folder). Without network simulated ones take their place.
From the command line: ``ifujax fit-photometry hst.fits muse.fits --regions bright.reg --noise correlated``, and ``--unit`` where
the MUSE image has none.
"""

from dataclasses import replace

import numpy as np

import ifujax
from ifujax import simulate
from ifujax.io.demo import hdfs_paths

UNIT = "10**(-20)*erg/s/cm**2/Angstrom"
try:
    muse_path, hst_path = hdfs_paths()
    hst = ifujax.read_image(hst_path)
    # The header of MUSE has no BUNIT. Its unit is known, and has to be said: the flux scale rests on it.
    muse = replace(ifujax.read_image(muse_path), unit=UNIT)
    bright, star = (338.244867, -60.556536, 3.0), (338.237634, -60.556370, 1.6)  # RA, Dec (degrees), radius (arcsec)
except ifujax.DataError as error:
    print(f"Simulated images instead: {error}")
    scene = simulate.random_scene(2, n_galaxies=25, n_stars=0, size_arcsec=22.0)
    scene = replace(scene, stars=(simulate.Star(7.0, 5.0, 4000.0), simulate.Star(-4.0, 6.0, 400.0)))
    pair = simulate.simulate_image_pair(scene, muse_shape=(92, 92), hst_shape=(500, 500), hst_pixel=0.04, dy=0.12, scale=0.8)
    hst, muse = pair.hst, pair.muse
    east = 1 / 3600 / np.cos(np.deg2rad(scene.dec))
    bright, star = (
        (scene.ra + each.east * east, scene.dec + each.north / 3600, radius) for each, radius in zip(scene.stars, (3.0, 1.6))
    )
print(muse)
print(hst)

# %%
# A star
# ------
# The PSF of HST has to be known: it is taken out before that of MUSE is put in. The default is that of ACS on pixels of 0.03
# arcsec; this is WFPC2, so a star of the field is measured in both images. Counts of HST become fluxes by PHOTFLAM of its header.
#
# The variances of this file are not those of its noise, which ``noise="scaled"`` puts right. ``noise="correlated"`` also takes
# from the residuals how far the noise is alike in neighbouring pixels.
of_star = ifujax.fit_star_photometry(hst, muse, star, noise="correlated")
print(of_star.summary())
for name in ("muse_fwhm", "hst_fwhm", "hst_beta"):
    print(f"{name}: {of_star.detail(name)}")
profiles = of_star.plot()

# %%
# The whole field
# ---------------
# HST keeps its own pixels. A bright star at the edge has moved between the two epochs, which would be taken for a shift of the
# whole field: a region leaves it out. The report shows how far the variances are off.
regions = ["fk5", f'-circle({bright[0]}, {bright[1]}, {bright[2]}")']
options = ifujax.PhotometryOptions(hst_psf=of_star.hst_psf, noise="correlated")
fit = ifujax.fit_image_photometry(hst, muse, regions=regions, options=options)
print(fit)
print(fit.fit_report())

# %%
# Data, model and what is left. Hatched: no HST image, or left out. What HST shows and MUSE does not, or the other way round,
# is variable, moves, or has another colour within the band.
panels = fit.plot()

# %%
# The point-spread function
# -------------------------
# ``fit.psf`` is what other jobs take: a function of offsets in arcsec, with its Fourier transform in ``psf.mtf``. Here the part
# of a star's light within a circular aperture, which is what an aperture correction needs.
psf = fit.psf
print(psf)
radius = np.linspace(0.0, 40.0, 40001)
rings = np.asarray(psf(radius, 0.0), dtype=float) * 2 * np.pi * radius
growth = np.concatenate([[0.0], np.cumsum(0.5 * (rings[1:] + rings[:-1]) * np.diff(radius))])
for aperture in (0.5, 1.0, 2.0):
    print(f"within {aperture:.1f} arcsec: {np.interp(aperture, radius, growth):.3f} of the flux")

# %%
# Correct the image
# -----------------
# Position, background and flux scale become those of HST. A fit of the corrected image has nothing left to find.
aligned = fit.corrected()
again = ifujax.fit_image_photometry(hst, aligned, regions=regions, options=options)
for name in ("scale", "bg", "dx", "dy", "fwhm"):
    print(f"{name:6s} {getattr(fit, name)!s:26s} after: {getattr(again, name)}")

# %%
# Four bands at once
# ------------------
# Seeing makes the FWHM fall along the spectrum. Images of several bands, or exposures, can share one straight line of FWHM
# against wavelength and one beta; scale, background and pointing stay each image's own. Simulated here: the truth is known.
scene = simulate.random_scene(5, n_galaxies=20, n_stars=2, size_arcsec=18.0)
wavelengths = np.array([5921.1, 7692.4, 8057.0, 9033.1])  # pivots of F606W, F775W, F814W, F850LP
slope, rng = -3.4e-5, np.random.default_rng(1)
sharp = simulate.simulate_hst(scene, (320, 320))
images = [
    simulate.simulate_muse(
        scene,
        (48, 48),
        fwhm=0.66 + slope * (wavelength - 7500.0),
        dx=rng.normal(0, 0.1),
        dy=rng.normal(0, 0.1),
        scale=rng.normal(1, 0.05),
        sigma=0.3,
        seed=band,
        name=f"band {band + 1}",
    )
    for band, wavelength in enumerate(wavelengths)
]
joint = ifujax.fit_joint_photometry(sharp, images, wavelengths)
print(joint)
print(f"slope: {joint.slope.value:.2e} +/- {joint.slope.error:.1e} arcsec/Angstrom; truth {slope:.2e}")
for wavelength, each in zip(wavelengths, joint.images):
    truth = 0.66 + slope * (wavelength - 7500.0)
    print(f"{each.name}: fwhm {each.fwhm.value:.4f} +/- {each.fwhm.error:.4f} arcsec (truth {truth:.4f}), scale {each.scale}")

# %%
line = joint.plot()
