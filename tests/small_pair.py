"""A small pair of HST and MUSE images, simulated, as objects and as files."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ifujax import simulate
from ifujax.data.image import Image
from ifujax.images.regrid import regrid_like
from ifujax.io.images import write_image

ALL_FIXED = {
    "method": "fourier", "fix_scale": 0.9, "fix_bg": 0.05, "fix_dx": 0.1, "fix_dy": -0.15, "fix_fwhm": 0.65, "fix_beta": 2.8,
}  # fmt: skip
"""Nothing to fit: no compilation, but all that a result has."""
STAR = simulate.Star(0.5, 0.3, 300.0)
PHOTFLAM = 1.0e-20


@lru_cache
def small_pair() -> simulate.SimulatedPair:
    """Return a pair of 48 x 48 pixels of 0.2 arcsec; HST has 0.05 arcsec."""
    galaxies = (
        simulate.Galaxy(-3.0, -2.5, 60.0, 0.35),
        simulate.Galaxy(3.2, -2.8, 40.0, 0.30),
        simulate.Galaxy(-2.6, 3.0, 30.0, 0.25),
        simulate.Galaxy(3.4, 3.1, 25.0, 0.4),
    )
    scene = simulate.Scene(galaxies, (STAR,))
    return simulate.simulate_image_pair(
        scene, seed=4, muse_shape=(48, 48), hst_shape=(360, 360), dx=0.1, dy=-0.15, scale=0.9, bg=0.05, sigma=0.02
    )


def star_position() -> tuple[float, float]:
    """Return RA and Dec of the star in degrees."""
    scene = small_pair().scene
    return scene.ra + STAR.east / np.cos(np.radians(scene.dec)) / 3600, scene.dec + STAR.north / 3600


@lru_cache
def regridded() -> Image:
    """Return the HST image on the pixels of MUSE."""
    pair = small_pair()
    return regrid_like(pair.hst, pair.muse)


def write_small_pair(folder: Path) -> None:
    """Write muse.fits, hst.fits (native), hst_on_muse.fits, and hst_counts.fits in counts per second."""
    pair = small_pair()
    write_image(folder / "muse.fits", pair.muse)
    write_image(folder / "hst.fits", pair.hst)
    write_image(folder / "hst_on_muse.fits", regridded())
    counts = replace(pair.hst, values=pair.hst.values * 1e-20 / PHOTFLAM, unit="electrons/s")
    cards = {"FILTER": ("F606W", ""), "PHOTFLAM": (PHOTFLAM, ""), "PHOTPLAM": (5921.0, "")}
    write_image(folder / "hst_counts.fits", replace(counts, cards=cards))
    write_image(folder / "hst_unknown.fits", replace(counts, cards={"FILTER": ("F999W", "")}))
